"""The agent's own behaviour against real servers: waiting, stopping, other namespaces, a server that goes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import needs
from majors import binaries
from otlp_servers import listening
from pgsonar.demo.clients import WireClient
from playing import Agent, environment, flat, postgres
from ports import free_port

pytestmark = pytest.mark.live

STRETCHED = {"pgsonar.scan.reason": "max_cpu"}


def ask(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_open_leaks_end_with_the_agent_and_it_stops_within_five_seconds(tmp_path):
    with postgres(16) as server:
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]")
        client = WireClient(server.port, "postgres")
        client.execute("begin")
        client.execute("select 1")
        agent.wait_event("idle_in_transaction", "opened", lambda told: True, 6)
        seconds = agent.stop()
        client.close()

    (last,) = agent.events("idle_in_transaction", "resolved")
    assert seconds < 5
    assert last["attributes"]["pgsonar.leak.end_reason"] == "agent_stopped"
    assert [span["traceId"] for span in agent.spans()] == [last["traceId"]]


def test_it_stops_within_five_seconds_while_logins_and_a_backend_hang(tmp_path):
    """Everybody accepts and nobody answers."""
    asked, is_over = [], threading.Event()

    def hang(connection):
        asked.append(connection)
        is_over.wait(60)

    with postgres(16) as server, listening(hang) as logins, listening(hang) as backend:
        receivers = [f"postgresql/{n}: {{endpoint: '127.0.0.1:{logins}', username: x}}" for n in range(4)]
        health = free_port()
        agent = Agent(
            tmp_path,
            f"[{{name: db, port: {server.port}}}]",
            "".join(f", {receiver}" for receiver in receivers),
            settings=(
                f"exporters.otlp_http.endpoint=http://127.0.0.1:{backend}",
                f"extensions.health_check.endpoint=127.0.0.1:{health}",
                "service.extensions=[health_check]",
            ),
        )
        agent.wait_for(lambda: len(asked) >= len(receivers) + 1, 15, "not all of them were asked")
        seconds = agent.stop()
        is_over.set()

    assert seconds < 5
    assert "Traceback" not in agent.log.read_text()


def test_leaks_of_a_server_that_is_killed_do_not_stay_open(tmp_path):
    with postgres(16) as server:
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]")
        client = WireClient(server.port, "postgres")
        client.execute("begin")
        client.execute("select 1")
        agent.wait_event("idle_in_transaction", "opened", lambda told: True, 6)
        server.stop()
        agent.wait_event("idle_in_transaction", "resolved", lambda told: True, 9)
        agent.stop()
        client.close()


def test_it_waits_for_a_first_server_and_is_healthy_meanwhile(tmp_path):
    health, port = free_port(), free_port()
    config = tmp_path / "c.yaml"
    config.write_text(
        f"receivers: {{sockets: {{targets: [{{port: {port}}}]}}}}\n"
        f"exporters: {{file: {{path: {tmp_path}/out.jsonl}}}}\n"
        f"extensions: {{health_check: {{endpoint: 'localhost:{health}'}}}}\n"
        "service: {extensions: [health_check]}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pgsonar", "run", "--config", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        deadline = time.monotonic() + 10
        status, answer = 0, {}
        while time.monotonic() < deadline and not answer.get("reasons"):
            with contextlib.suppress(OSError):
                status, answer = ask(health)
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=6)

    assert status == 200
    assert "waiting for a first PostgreSQL server" in answer["reasons"]
    assert "waiting for one" in log
    assert process.returncode == 0


@pytest.mark.netns
@pytest.mark.parametrize(
    "namespaces", [("--net",), ("--net", "--pid", "--fork", "--kill-child")], ids=["net", "net+pid"]
)
def test_a_server_in_namespaces_of_its_own_is_scanned_from_outside(tmp_path, namespaces):
    needs.namespaces()
    needs.programs("ip", "unshare")
    inside = Path(__file__).with_name("inside_namespace.py")
    process = subprocess.Popen(
        ["unshare", *namespaces, sys.executable, str(inside), str(binaries(16))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        inner_pid, inner_backend, client, began = process.stdout.readline().split()
        outer = outer_pids(process.pid)
        agent = Agent(tmp_path, f"[{{name: db, pid: {outer[inner_pid]}}}]")
        process.stdin.write("go\n")
        process.stdin.flush()
        began = float(process.stdout.readline())
        event = agent.wait_event("orphaned_backend", "opened", lambda told: True, 6)["attributes"]
        agent.stop()
        backend = outer_pids(process.pid)[inner_backend]
        process.stdin.close()

    assert event["postgresql.pid"] == backend
    assert event.get("pgsonar.backend.inner_pid", backend) == int(inner_backend)
    is_contained = "--pid" in namespaces  # psql on the host would ask another server
    assert event["pgsonar.next.command"].endswith("pgsonar scan" if is_contained else f"grep {inner_backend}")
    assert event["client.port"] == int(client)
    assert abs(event["pgsonar.leak.onset"] / 1e9 - began) < 1


def outer_pids(ancestor):
    """What the host calls processes of a namespace, by what these call themselves (NSpid of man 5 proc_pid_status)."""
    numbers = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            ids = next(line for line in path.read_text().splitlines() if line.startswith("NSpid")).split()[1:]
            if os.stat(path.parent / "ns" / "net").st_ino == os.stat(f"/proc/{ancestor}/ns/net").st_ino:
                numbers[ids[-1]] = int(ids[0])
    return numbers


def test_it_scans_less_often_rather_than_take_more_than_max_cpu(tmp_path):
    """No agent fits a hundredth of a percent: it says so, and goes on."""
    with postgres(16) as server, contextlib.ExitStack() as stack:
        agent = Agent(tmp_path, f"[{{port: {server.port}}}], max_cpu: 0.01%")
        stack.callback(agent.stop)

        def stretched():
            return [p for p in agent.points("pgsonar.scan.interval") if flat(p["attributes"]) == STRETCHED]

        found = agent.wait_for(stretched, 20, "it never scanned less often")
        assert found[-1]["asDouble"] > 0.1
        client = WireClient(server.port, "postgres")
        client.execute("begin")
        client.execute("select 1")
        agent.wait_event("idle_in_transaction", "opened", lambda told: True, 15)
        client.close()
    assert "max_cpu" in agent.log.read_text()


def test_scan_shows_every_session_and_its_slot(tmp_path):
    with postgres(16) as server, contextlib.closing(WireClient(server.port, "postgres")) as client:
        client.execute("begin")
        port = client.port
        config = tmp_path / "c.yaml"
        config.write_text(f"receivers: {{sockets: {{targets: [{{name: db, port: {server.port}}}]}}}}\n")
        command = [sys.executable, "-m", "pgsonar", "scan", "--config", str(config)]
        machine = subprocess.run(
            [*command, "--format", "json"], capture_output=True, text=True, env=environment(), check=True
        )
        people = subprocess.run(
            command, capture_output=True, text=True, env={**environment(), "COLUMNS": "80"}, check=True
        ).stdout
    told = json.loads(machine.stdout)

    assert set(told) - {"poolers"} == {"time", "servers", "connections", "ledgers", "missing", "verdicts"}
    assert [(s["id"], s["port"], s["limit"], s["ceiling"]) for s in told["servers"]] == [("db", server.port, 30, 27)]
    ours = [c for c in told["connections"] if c["remote_port"] == port]
    assert [(c["backend_pid"], c["state"], c["activity"], c["user"]) for c in ours] == [
        (client.backend_pid, "established", "idle in transaction", "postgres")
    ]
    assert told["ledgers"][0]["holders"]["session"] == told["ledgers"][0]["used"] == 1
    assert max(len(line) for line in people.splitlines()) <= 80
    assert "SLOTS 1 of 30 used" in people
    assert "postgres@postgres" in people
