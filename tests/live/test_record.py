"""A leak against a real server, recorded beside a running agent: played, it opens what the agent has opened."""

import json
import signal
import subprocess
import sys
import time

import pytest

from pgsonar.demo.clients import WireClient
from playing import SLOTS, Agent, environment, postgres

pytestmark = pytest.mark.live

FASTER = 5  # than it happened, at least; what starting takes included


def replay(file, *more):
    """The events of a recording, and how long that took."""
    begun = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "pgsonar", "replay", str(file), "--format", "json", *more],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert not ran.stderr, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()], time.monotonic() - begun


def opened(events, kind):
    return [
        event["attributes"]
        for event in events
        if event["attributes"]["pgsonar.leak.kind"] == kind and event["event_name"] == "pgsonar.leak.opened"
    ]


def members(told):
    return {tuple(member.split()[:3]) for member in told["pgsonar.leak.member_list"]}


def test_what_was_recorded_opens_the_episode_that_the_agent_opened(tmp_path):
    file, config = tmp_path / "rec", tmp_path / "agent.yaml"
    with postgres(16) as server:
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]")
        command = [sys.executable, "-m", "pgsonar", "record", str(file), "--config", str(config)]
        recorder = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
        begun = time.monotonic()
        agent.wait_for(file.exists, 10, "nothing is recorded")
        time.sleep(1)
        client = WireClient(server.port, "postgres")
        ours = (str(client.backend_pid), "127.0.0.1", str(client.port))
        client.execute("begin")
        client.execute("select 1")
        sent = agent.wait_event("idle_in_transaction", "opened", lambda told: True, 8)["attributes"]
        time.sleep(8)
        client.close()
        agent.wait_event("idle_in_transaction", "resolved", lambda told: True, 5)
        time.sleep(2)
        recorder.send_signal(signal.SIGTERM)
        assert recorder.wait(6) == 0
        lasted = time.monotonic() - begun
        agent.stop()

    events, seconds = replay(file, "--config", str(config))
    (told,) = opened(events, "idle_in_transaction")
    later, _ = replay(file, "--config", str(config), "--set", "processors.leaks.idle_in_transaction.after=1h")

    assert members(told) == members(sent) == {ours}
    assert abs(told["pgsonar.leak.onset"] - sent["pgsonar.leak.onset"]) < 0.5e9
    assert told["pgsonar.client.pid"] == sent["pgsonar.client.pid"]
    assert [e["attributes"]["pgsonar.leak.end_reason"] for e in events if e["event_name"].endswith("resolved")] == [
        "resolved"
    ]
    assert opened(later, "idle_in_transaction") == []
    assert lasted / seconds > FASTER


def test_a_server_without_slots_leaves_a_file_of_what_led_to_it(tmp_path):
    folder = tmp_path / "recordings"
    recorder = f"extensions.flight_recorder={{directory: {folder}, window: 1m}}"
    with postgres(16) as server:
        agent = Agent(
            tmp_path,
            f"[{{name: db, port: {server.port}}}]",
            settings=(recorder, "service.extensions=[flight_recorder]"),
        )
        clients = [WireClient(server.port, "postgres") for _ in range(SLOTS - 3)]
        agent.wait_for(lambda: list(folder.glob("*.rec")), 10, "no file was written")
        time.sleep(3)
        for client in clients:
            client.close()
        agent.stop()
    (sent,) = [event["attributes"] for event in agent.events("pool_exhausted", "opened")]
    (file,) = folder.iterdir()
    events, _ = replay(file, "--config", str(tmp_path / "agent.yaml"))
    (told,) = opened(events, "pool_exhausted")

    assert f"-pool_exhausted-{sent['pgsonar.leak.id']}.rec" in file.name
    assert told["pgsonar.slot.used"] == sent["pgsonar.slot.used"]
    assert any(e["attributes"]["pgsonar.leak.severity"] == "critical" for e in events)
