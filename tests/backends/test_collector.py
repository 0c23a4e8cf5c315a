"""A real Collector as the gateway: everything arrives in it and behind it, equal in every field to what was told."""

import contextlib
import json
from collections import Counter

import pytest

import told
from leaking import leak, server_with_users
from parts import needed
from pgsonar.demo.receiver import Receiver
from playing import Agent
from running import Collector, passing_to, until

pytestmark = pytest.mark.backends


@pytest.fixture(scope="module")
def server():
    with server_with_users() as running:
        yield running


def gateway(folder, receiver):
    """A Collector that writes what it gets to a file, and forwards it as it is."""
    config = passing_to(
        file={"path": str(folder / "out.jsonl"), "flush_interval": "100ms"},
        otlp_http={"endpoint": receiver.endpoint, "sending_queue": {"num_consumers": 1}},
    )
    return Collector(needed("collector"), folder, config)


def told_of_a_leak(folder, server, exporter):
    """The rows of an agent's life with a leak that opens and resolves, as its own file holds them."""
    folder.mkdir()
    agent = Agent(folder, f"[{{name: db, port: {server.port}}}]", settings=(exporter,))
    try:
        with contextlib.closing(leak(server, 0)):
            agent.wait_for(lambda: agent.events("idle_in_transaction", "opened"), 15, "the leak was not opened")
        agent.wait_for(agent.spans, 15, "the leak has not ended")
        # The counter with its exemplar has gone out as well.
        agent.wait_for(lambda: agent.points("pgsonar.leak.count"), 5, "the leak was not counted")
    finally:
        agent.stop()
    return told.of_file(agent.path)


@pytest.mark.parametrize("protocol", ["otlp_http", "otlp_grpc"])
def test_every_field_arrives_in_a_collector_and_behind_it(server, tmp_path, protocol):
    folder = tmp_path / "collector"
    with Receiver() as receiver, gateway(folder, receiver) as collector:
        endpoint = collector.endpoint if protocol == "otlp_http" else collector.grpc_endpoint
        rows = told_of_a_leak(tmp_path / "agent", server, f"exporters.{protocol}.endpoint={endpoint}")

        until(lambda: len(told.of_receiver(receiver)) >= len(rows), "not everything was forwarded")
        in_it, behind_it = told.of_file(folder / "out.jsonl"), told.of_receiver(receiver)

    assert Counter(in_it) == Counter(rows)
    assert Counter(behind_it) == Counter(rows)
    # What was compared holds what matters: every signal, ids, an exemplar that names the span, two resources.
    by_signal = {signal: [row for row in rows if row.signal == signal] for signal in told.REQUESTS}
    (span,) = (json.loads(row.fields) for row in by_signal["traces"])
    events = [json.loads(row.fields) for row in by_signal["logs"]]
    assert [event["eventName"] for event in events] == ["pgsonar.leak.opened", "pgsonar.leak.resolved"]
    assert {(event["traceId"], event["spanId"]) for event in events} == {(span["traceId"], span["spanId"])}
    (counted,) = {
        (exemplar["traceId"], exemplar["spanId"])
        for row in by_signal["metrics"]
        if json.loads(row.metric)["name"] == "pgsonar.leak.count"
        for exemplar in json.loads(row.fields).get("exemplars", [])
    }
    assert counted == (span["traceId"], span["spanId"])
    sums = [json.loads(row.metric)["sum"] for row in by_signal["metrics"] if "sum" in json.loads(row.metric)]
    assert {told["aggregationTemporality"] for told in sums} == {2}
    assert len({row.resource for row in by_signal["metrics"]}) == 2
