"""SIGHUP: another configuration for an agent that runs on, with all it has learned."""

import contextlib
import signal
import time
from itertools import pairwise

import pytest
import urllib3

from pgsonar.demo.receiver import Receiver
from playing import Agent, flat, postgres_with_app, transactions
from ports import free_port

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server():
    with postgres_with_app(16) as running:
        yield running


@pytest.fixture
def agent(server, tmp_path):
    port = free_port()
    health = f"extensions.health_check.endpoint=127.0.0.1:{port}"
    running = Agent(
        tmp_path,
        f"[{{name: db, port: {server.port}}}]",
        settings=(health, "service.extensions=[health_check]"),
    )
    running.health = f"http://127.0.0.1:{port}"
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def reload(agent, *changes, said="the configuration was read anew"):
    """Changes the file and asks for it to be read; `said` is what the log tells of that."""
    path = agent.path.parent / "agent.yaml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    before = agent.log.read_text().count(said)
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_for(lambda: agent.log.read_text().count(said) > before, 5, f"it did not say: {said}")


def asked(agent):
    return urllib3.request("GET", agent.health, timeout=5, retries=False).json()


def ids(events):
    return [event["attributes"]["pgsonar.leak.id"] for event in events]


@pytest.mark.parametrize(
    "changes",
    [
        [("interval: 1s", "interval: 2s")],
        [("receivers: {sockets: {", "receivers: {sockets: {source: procfs, ")],
        [("receivers: {sockets: {", "receivers: {sockets: {interval: 50ms, max_cpu: 5%, ")],
        [("auth_stuck: {after: 2s}", "auth_stuck: {after: 9s}")],
    ],
    ids=["telemetry", "source", "pace", "thresholds"],
)
def test_what_is_open_goes_on_whatever_changes(server, agent, changes):
    with contextlib.ExitStack() as leaks:
        transactions(server, leaks, 3)
        opened = agent.wait_for(lambda: agent.events("idle_in_transaction", "opened"), 15, "nothing was opened")
        counted = agent.points("pgsonar.connection.opened")[-1]
        reload(agent, *changes)
        time.sleep(5)
        assert agent.events(None, "resolved") == []
    agent.wait_for(agent.spans, 15, "nothing was resolved")
    agent.stop()

    assert ids(agent.events("idle_in_transaction", "opened")) == ids(opened)
    assert ids(agent.events("idle_in_transaction", "resolved")) == ids(opened)
    onset = opened[0]["attributes"]["pgsonar.leak.onset"]
    assert abs(int(agent.spans()[0]["startTimeUnixNano"]) - onset) < 1e9
    later = [
        point
        for point in agent.points("pgsonar.connection.opened")
        if flat(point["attributes"]) == flat(counted["attributes"])
    ]
    assert {point["startTimeUnixNano"] for point in later} == {counted["startTimeUnixNano"]}
    values = [int(point["asInt"]) for point in later]
    assert values == sorted(values)


def test_a_file_that_is_wrong_is_refused_and_the_one_before_runs_on(server, agent):
    reload(agent, ("interval: 1s", "interval: soon"), said="the new configuration is refused, the one before runs on")
    log = agent.log.read_text()
    with contextlib.ExitStack() as leaks:
        transactions(server, leaks, 1)
        agent.wait_for(lambda: agent.events("idle_in_transaction", "opened"), 15, "nothing was opened")
        reasons = asked(agent)["reasons"]
        reload(agent, ("interval: soon", "interval: 1s"))
        mended = asked(agent)["reasons"]
    agent.stop()

    assert "service.telemetry.metrics.interval" in log
    assert any("the configuration was refused, the one before runs on" in reason for reason in reasons)
    assert not any("refused" in reason for reason in mended)


def test_what_is_decided_at_the_start_is_refused_by_name(agent):
    said = "service.telemetry.redaction cannot change while the agent runs"
    reload(agent, ("interval: 1s}", "interval: 1s}, redaction: {users: redact}"), said=said)
    assert "restart the agent" in agent.log.read_text()
    agent.stop()


def test_where_an_exporter_waits_is_decided_at_the_start(agent):
    backend = "endpoint: 'http://127.0.0.1:1', sending_queue: {storage: memory}"
    reload(agent, ("exporters: {file: ", f"exporters: {{otlp_http: {{{backend}}}, file: "))
    said = "exporters.otlp_http.sending_queue.storage cannot change while the agent runs"
    reload(agent, (", sending_queue: {storage: memory}", ""), said=said)
    agent.stop()


def test_thresholds_hold_from_then_on(server, agent):
    reload(agent, ("idle_in_transaction: {after: 2s}", "idle_in_transaction: {after: 60s}"))
    with contextlib.ExitStack() as leaks:
        transactions(server, leaks, 1)
        time.sleep(5)
        assert agent.events("idle_in_transaction", "opened") == []
        reload(agent, ("idle_in_transaction: {after: 60s}", "idle_in_transaction: {after: 2s}"))
        agent.wait_for(lambda: agent.events("idle_in_transaction", "opened"), 5, "nothing was opened")
    agent.stop()


def test_exporters_come_change_and_go_and_what_waits_is_sent_the_new_way(server, agent, tmp_path):
    nobody = free_port()
    declared = f"exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{nobody}'}}, file: "
    reload(agent, ("exporters: {file: ", declared))
    with contextlib.ExitStack() as leaks:
        transactions(server, leaks, 1)
        (opened,) = agent.wait_for(lambda: agent.events("idle_in_transaction", "opened"), 15, "nothing was opened")
        with Receiver() as receiver:
            reload(agent, (f"127.0.0.1:{nobody}", f"127.0.0.1:{receiver.port}"))
            agent.wait_for(lambda: receiver.events, 10, "what waited was not sent")
            reload(agent, (f"otlp_http: {{endpoint: 'http://127.0.0.1:{receiver.port}'}}, ", ""))
            arrived = len(receiver.requests)
            time.sleep(3)
            assert len(receiver.requests) <= arrived + 1
        assert [e["attributes"]["pgsonar.leak.id"] for e in receiver.events] == ids([opened])
        assert "otlp_http" not in asked(agent)["exporters"]
    agent.stop()


def test_other_logs_take_back_nothing_that_was_counted(server, agent, tmp_path):
    refused = "2026-01-02 03:04:05 UTC [77] app@shop FATAL:  sorry, too many clients already\n"
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    for log in logs:
        log.touch()

    def counted():
        points = agent.points("pgsonar.refused")
        values = [int(p["asInt"]) for p in points if flat(p["attributes"])["pgsonar.refusal"] == "all_slots"]
        return values or [0]

    one = f"serverlog: {{include: ['{logs[0]}']}}"
    reload(agent, ("receivers: {", f"receivers: {{{one}, "))
    for number, log in enumerate(logs, 1):
        agent.wait_for(lambda: agent.points("pgsonar.refused"), 5, "no log is followed")
        time.sleep(1)
        with log.open("a") as file:
            file.write(refused * 3)
        agent.wait_for(lambda wanted=3 * number: counted()[-1] == wanted, 5, "it is not counted")
        if log is logs[0]:
            reload(agent, (one, one.replace("]", f", '{logs[1]}']")))
    agent.stop()

    assert counted() == sorted(counted())


def test_the_health_endpoint_comes_moves_and_goes(server, tmp_path):
    agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]")
    ports = [free_port(), free_port()]
    plain = "service: {"
    shapes = [f"extensions: {{health_check: {{endpoint: '127.0.0.1:{port}'}}}}\n{plain}" for port in ports]
    on = [shape + "extensions: [health_check], " for shape in shapes]
    answers = []
    for old, new in pairwise([plain, *on, plain]):
        reload(agent, (old, new))
        answers.append([port for port in ports if answers_at(port)])
    agent.stop()

    assert answers == [[ports[0]], [ports[1]], []]


def answers_at(port):
    try:
        return urllib3.request("GET", f"http://127.0.0.1:{port}", timeout=5, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False
