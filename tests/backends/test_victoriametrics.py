"""A real VictoriaMetrics: what the agent told is what PromQL answers."""

import contextlib
import json

import pytest

import told
from leaking import leak, server_with_users
from parts import needed
from pgsonar.demo.clients import WireClient
from playing import Agent
from running import VictoriaMetrics, asked, until

pytestmark = pytest.mark.backends
CLIENTS, LEAKS = 7, 3


@pytest.fixture(scope="module")
def server():
    with server_with_users() as running:
        yield running


@pytest.fixture(scope="module")
def played(server, tmp_path_factory):
    """The backend after an agent has told it of seven clients of which three leak, and the rows it told."""
    folder = tmp_path_factory.mktemp("played")
    with VictoriaMetrics(needed("victoriametrics"), folder / "backend") as backend:
        settings = (
            f"exporters.otlp_http.metrics_endpoint={backend.metrics_endpoint}",
            "service.pipelines.metrics={receivers: [sockets], processors: [leaks], exporters: [otlp_http, file]}",
            "service.pipelines.logs={receivers: [sockets], processors: [leaks], exporters: [file]}",
            "service.pipelines.traces={receivers: [sockets], processors: [leaks], exporters: [file]}",
        )
        agent = Agent(folder, f"[{{name: db, port: {server.port}}}]", settings=settings)
        with contextlib.ExitStack() as clients:
            try:
                for number in range(CLIENTS):
                    client = leak(server, number) if number < LEAKS else WireClient(server.port, f"app{number}")
                    clients.enter_context(contextlib.closing(client))
                agent.wait_for(lambda: len(agent.events(None, "opened")) == LEAKS, 15, "not all leaks were opened")
                agent.wait_for(lambda: _last(agent, "pgsonar.leak.count") == LEAKS, 5, "not all leaks were counted")
            finally:
                agent.stop()
        yield backend, told.of_file(agent.path)


def _last(agent, name):
    """The sum of a metric's points at the last instant it was told."""
    points = agent.points(name)
    last = max((point["timeUnixNano"] for point in points), default=0)
    return sum(float(p.get("asInt", p.get("asDouble", 0))) for p in points if p["timeUnixNano"] == last)


def points_of(rows, name):
    """The points of a metric at the last instant it was told: that instant, and the value by the attributes named."""
    found = [(row, json.loads(row.fields)) for row in rows if row.metric and json.loads(row.metric)["name"] == name]
    at = max(int(point["timeUnixNano"]) for _, point in found)
    return at / 1e9, [
        (told.attributes(row.fields), float(point.get("asInt", point.get("asDouble", 0))))
        for row, point in found
        if int(point["timeUnixNano"]) == at
    ]


@pytest.mark.parametrize(
    ("name", "series", "attribute", "label"),
    [
        ("pgsonar.slot.used", "pgsonar_slot_used", "pgsonar.slot.holder", "pgsonar_slot_holder"),
        ("pgsonar.slot.limit", "pgsonar_slot_limit", "pgsonar.limit.source", "pgsonar_limit_source"),
        (
            "pgsonar.connection.count",
            "pgsonar_connection_count",
            "network.connection.state",
            "network_connection_state",
        ),
        ("pgsonar.leak.count", "pgsonar_leak_count_total", "pgsonar.leak.kind", "pgsonar_leak_kind"),
        ("pgsonar.connection.opened", "pgsonar_connection_opened_total", "client.address", "client_address"),
    ],
)
def test_promql_answers_what_was_told(played, name, series, attribute, label):
    backend, rows = played
    at, points = points_of(rows, name)
    expected = {}
    for attributes, value in points:
        expected[attributes[attribute]] = expected.get(attributes[attribute], 0) + value

    # Milliseconds are all that Prometheus's instants hold: the next one is asked for.
    answered = until(lambda: asked(backend.port, f"sum by ({label}) ({series})", at + 0.001), f"no {series}")

    assert {dict(labels)[label]: value for labels, value in answered.items()} == expected


def test_the_slots_are_those_that_were_taken(played):
    backend, rows = played
    at, _ = points_of(rows, "pgsonar.slot.used")
    query = "max_over_time(sum(pgsonar_slot_used)[1m:1s])"

    answered = until(lambda: asked(backend.port, query, at + 0.001), "no slots")

    assert list(answered.values()) == [CLIENTS]
