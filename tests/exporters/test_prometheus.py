"""The scrape endpoint over real HTTP: stable names, whose each series is, and exemplars that lead to the episode."""

import http.client
import time
from pathlib import Path

import pytest

from pgsonar.exporters import prometheus
from pgsonar.exporters.exposition import family_name
from pgsonar.exporters.prometheus import PrometheusExposition
from pgsonar.model import Resource
from pgsonar.signals.agent_metrics import AGENT_METRICS
from pgsonar.signals.hop_metrics import POOLER_METRICS
from pgsonar.signals.leak_metrics import LEAK_METRICS
from pgsonar.signals.login_metrics import LOGIN_METRICS
from pgsonar.signals.own_metrics import OWN_METRICS
from pgsonar.signals.rows import Batch, Exemplar, MetricRow, Point, Spread
from pgsonar.signals.server_metrics import SERVER_METRICS

KEY = "exporters.prometheus.endpoint"
NAMES = Path(__file__).with_name("prometheus_names.txt")
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
ALL = (*SERVER_METRICS, *LEAK_METRICS, *LOGIN_METRICS, *POOLER_METRICS, *AGENT_METRICS, *OWN_METRICS)
TRACE, SPAN = 0x0123456789ABCDEF0123456789ABCDEF, 0x1122334455667788
WHERE = 'server_address="db-1",server_port="5432",service_instance_id="id-1"'


def resource(port, number, **more):
    own = {"server.address": "db-1", "server.port": port, "service.instance.id": f"id-{number}"}
    own["service.name"] = "pgsonar"
    return Resource(tuple(sorted((own | more).items())))


def row(name, kind, unit, *points, exemplars=()):
    told = [Point(attributes, value, 1, 2, exemplars) for attributes, value in points]
    return MetricRow(name, kind, unit, f"About {name}.", told)


def leaks(number, *exemplars):
    kind = {"pgsonar.leak.kind": "auth_stuck", "server.address": "db-1", "server.port": 5432}
    return row("pgsonar.leak.count", "counter", "{leak}", (kind, number), exemplars=exemplars)


@pytest.fixture
def exposition():
    one = PrometheusExposition(KEY, "127.0.0.1:0")
    yield one
    one.close(5)


def scrape(port, accept="", path="/metrics"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], text


def series(text):
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_names_are_what_they_were_and_those_of_opentelemetrys_rules():
    suffix = {"counter": "_total"}
    told = {f"{m.name} {family_name(m.name, m.kind, m.unit)[0]}{suffix.get(m.kind, '')} {m.kind}" for m in ALL}

    assert sorted(told) == NAMES.read_text().splitlines(), "a renamed series breaks somebody's dashboard"


GOLDEN = """\
# HELP target_info Whom the series with the same server and instance are of.
# TYPE target_info gauge
target_info{a_b="x;y",WHERE,service_name="pgsonar"} 1.0
# HELP pgsonar_leak_count_total About pgsonar.leak.count.
# TYPE pgsonar_leak_count_total counter
pgsonar_leak_count_total{pgsonar_leak_kind="auth_stuck",WHERE} 7.0
# HELP pgsonar_queue_send_bytes About pgsonar.queue.send.
# TYPE pgsonar_queue_send_bytes gauge
pgsonar_queue_send_bytes{WHERE,user_name="o\\"b\\\\n\\n"} 3.0
# HELP pgsonar_slot_utilization_ratio About pgsonar.slot.utilization.
# TYPE pgsonar_slot_utilization_ratio gauge
pgsonar_slot_utilization_ratio{pgsonar_limit_guessed="true",WHERE} 0.5
# HELP wait_seconds About wait.
# TYPE wait_seconds histogram
wait_seconds_bucket{le="+Inf",WHERE} 4.0
wait_seconds_count{WHERE} 4.0
wait_seconds_sum{WHERE} 1.5
""".replace("WHERE", WHERE)
BATCH = Batch(
    "metrics",
    [
        (
            resource(5432, 1, **{"a.b": "x", "a/b": "y"}),
            [
                leaks(7, Exemplar(1_700_000_000_500_000_000, 1, TRACE, SPAN)),
                row("pgsonar.queue.send", "gauge", "By", ({"user.name": 'o"b\\n\n'}, 3)),
                row("pgsonar.slot.utilization", "gauge", "1", ({"pgsonar.limit.guessed": True}, 0.5)),
                row("wait", "histogram", "s", ({}, Spread(4, 1.5))),
            ],
        )
    ],
)


def test_the_text_is_prometheus_own_unless_openmetrics_is_asked_for(exposition):
    exposition.export(BATCH)

    assert scrape(exposition.port, "text/plain") == (200, "text/plain; version=0.0.4; charset=utf-8", GOLDEN)
    status, content_type, text = scrape(exposition.port, OPENMETRICS)
    assert (status, content_type) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert text.endswith("# EOF\n")
    assert "# TYPE pgsonar_leak_count counter" in text
    assert "# UNIT pgsonar_queue_send_bytes bytes" in text
    ids = f'{{span_id="{SPAN:016x}",trace_id="{TRACE:032x}"}}'
    assert f'service_instance_id="id-1"}} 7.0 # {ids} 1.0 1700000000.5\n' in text


def test_an_exemplar_stays_until_the_next_or_until_its_series_goes(exposition):
    exemplars = [Exemplar(number, 1, number, number) for number in (1, 2)]
    told = []
    for rows in ([leaks(1, exemplars[0])], [leaks(1)], [leaks(2, exemplars[1])], [], [leaks(2)]):
        exposition.export(Batch("metrics", [(resource(5432, 1), rows)]))
        text = scrape(exposition.port, OPENMETRICS)[2]
        told.append([line.partition('trace_id="')[2][:32] for line in text.splitlines() if "leak_count_total{" in line])

    assert told == [[f"{1:032x}"], [f"{1:032x}"], [f"{2:032x}"], [], [""]]


def test_the_last_batch_is_told_and_what_left_it_is_not(exposition):
    assert scrape(exposition.port)[2].strip() == ""
    for number in (1, 2):
        exposition.export(Batch("metrics", [(resource(5432, number), [row("m", "gauge", "", ({}, number))])]))

    told = series(scrape(exposition.port)[2])
    assert [(name, value) for name, value in told.items() if name.startswith("m{")] == [
        ('m{server_address="db-1",server_port="5432",service_instance_id="id-2"}', "2.0")
    ]
    assert exposition.stats.sent == {"metrics": 2}


def test_two_servers_of_one_address_and_port_have_series_of_their_own(exposition):
    # As two containers of one host have.
    rows = [row("m", "gauge", "", ({}, 1))]
    exposition.export(Batch("metrics", [(resource(5432, 1), rows), (resource(5432, 2), rows)]))

    text = scrape(exposition.port)[2]
    assert len([name for name in series(text) if name.startswith("m{")]) == 2
    assert text.count("# TYPE m gauge") == 1


def test_a_batch_that_no_other_follows_is_not_told_for_ever(exposition, monkeypatch):
    exposition.export(BATCH)
    later = time.monotonic() + prometheus.STALE_AFTER + 1
    monkeypatch.setattr(prometheus.time, "monotonic", lambda: later)

    assert series(scrape(exposition.port)[2]) == {}


def test_a_batch_is_rendered_once_however_many_scrape(exposition):
    exposition.export(BATCH)
    for _ in range(3):
        scrape(exposition.port)
    (body,) = (rendered.body for rendered in exposition._held.rendered.values())

    assert scrape(exposition.port)[2].encode() == body


def test_another_path_says_where_metrics_are(exposition):
    assert scrape(exposition.port, path="/") == (404, "text/plain; charset=utf-8", "metrics are at /metrics\n")


def backends(**states):
    points = [({"postgresql.state": state.replace("_", " "), "user.name": str(n)}, n) for state, n in states.items()]
    return row("pgsonar.backend.count", "updowncounter", "{backend}", *points)


LIMIT = row("pgsonar.slot.limit", "gauge", "{slot}", ({"pgsonar.limit.source": "pg_control"}, 100))
USED = row("pgsonar.slot.used", "updowncounter", "{slot}", ({"pgsonar.slot.holder": "session"}, 9))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [LIMIT, USED, backends(active=1, idle=2, idle_in_transaction=4, authentication=8)],
            {"max_connections": 100, "total": 15, "active": 1, "idle": 2, "idle_in_transaction": 4},
        ),
        ([LIMIT, USED], {"max_connections": 100, "total": 0, "active": 0, "idle": 0, "idle_in_transaction": 0}),
        ([USED, backends(unknown=3)], {"total": 3}),
        ([LIMIT], {"max_connections": 100}),
        ([], {}),
    ],
    ids=["all", "nobody", "titles say nothing", "processes are not seen", "an agent"],
)
def test_the_figures_of_connection_stats_are_told_as_far_as_they_are_known(exposition, rows, told):
    exposition.export(Batch("metrics", [(resource(5432, 1), rows)]))
    found = series(scrape(exposition.port)[2])

    assert {name: float(value) for name, value in found.items() if name.startswith("pg_connection")} == {
        f"pg_connection_stats_{name}{{{WHERE}}}": value for name, value in told.items()
    }


def test_a_port_in_use_is_said_with_the_key_and_taken_when_it_is_free(monkeypatch, caplog):
    monkeypatch.setattr(prometheus, "LISTEN_AGAIN", 0.05)
    first = PrometheusExposition(KEY, "127.0.0.1:0")
    port = first.port
    second = PrometheusExposition("service.telemetry.metrics.endpoint", f"127.0.0.1:{port}")
    second.export(BATCH)
    was = second.port, second.stats.failing_since is not None, second.stats.last_error
    first.close(5)
    deadline = time.monotonic() + 10
    while second.port is None and time.monotonic() < deadline:
        time.sleep(0.01)
    text = scrape(port)[2]
    second.close(5)

    assert was == (None, True, f"cannot listen at 127.0.0.1:{port}: address already in use")
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [f"{was[2]} (set service.telemetry.metrics.endpoint to another port); it is tried again"]
    assert text == GOLDEN
    assert second.stats.failing_since is None
