"""A backend that is away, an agent that is killed meanwhile: what was told arrives all the same, at least once."""

import contextlib
import signal
import time

import pytest

from pgsonar.demo.receiver import Receiver
from playing import Agent, flat, postgres_with_app, transactions
from ports import free_port

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server():
    with postgres_with_app(16) as running:
        yield running


def started(folder, server, port, state):
    folder.mkdir()
    retry = "{initial_interval: 200ms, max_interval: 1s}"
    settings = (
        f"extensions.file_storage.directory={state}",
        "service.extensions=[file_storage]",
        f"exporters.otlp_http={{endpoint: http://127.0.0.1:{port}, retry_on_failure: {retry}}}",
    )
    return Agent(folder, f"[{{name: db, port: {server.port}}}]", settings=settings)


def told(agents):
    """What the agents wrote into their files: each step of each episode, and each span."""
    steps, spans = set(), set()
    for agent in agents:
        steps |= {(e["attributes"]["pgsonar.leak.id"], e["eventName"], e["timeUnixNano"]) for e in agent.events()}
        spans |= {(s["traceId"], s["spanId"]) for s in agent.spans()}
    return steps, spans


def test_what_was_told_while_the_backend_was_away_arrives_after_kills_too(server, tmp_path):
    port = free_port()
    with contextlib.ExitStack() as leaks:
        first = started(tmp_path / "one", server, port, tmp_path / "state")
        transactions(server, leaks, 3)
        first.wait_for(lambda: first.events("idle_in_transaction", "opened"), 15, "nothing was opened")
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        second = started(tmp_path / "two", server, port, tmp_path / "state")
        time.sleep(3)
        leaks.close()
        second.wait_for(second.spans, 20, "nothing was resolved")
        second.process.send_signal(signal.SIGKILL)
        second.process.wait()

    with Receiver(port=port) as receiver:
        third = started(tmp_path / "three", server, port, tmp_path / "state")
        third.wait_for(lambda: receiver.spans, 15, "what waited was not sent")
        time.sleep(2)
        third.stop()
    steps, spans = told([first, second, third])
    arrived = {(e["attributes"]["pgsonar.leak.id"], e["event_name"], str(e["time"])) for e in receiver.events}

    assert {name for _, name, _ in steps} >= {"pgsonar.leak.opened", "pgsonar.leak.resolved"}
    assert steps <= arrived
    assert spans <= {(s["trace_id"], s["span_id"]) for s in receiver.spans}
    assert sum_of_opened(receiver) == sum_of_opened_in_files([first, second, third])


def sum_of_opened(receiver):
    """The last value of the counter of each run, which begins at its start."""
    last = {}
    for point in receiver.points:
        if point["name"] == "pgsonar.leak.count":
            last[point["start"], point["attributes"]["pgsonar.leak.kind"]] = point["value"]
    return sum(last.values())


def sum_of_opened_in_files(agents):
    last = {}
    for point in (point for agent in agents for point in agent.points("pgsonar.leak.count")):
        kind = flat(point["attributes"])["pgsonar.leak.kind"]
        last[int(point["startTimeUnixNano"]), kind] = int(point["asInt"])
    return sum(last.values())
