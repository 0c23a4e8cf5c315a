"""Readings become metric rows, by resource: servers, poolers, databases elsewhere, and the agent.

The rule: rows are built anew at each export from our own tables, so a series ends when its subject does.
"""

from __future__ import annotations

from pgsonar.model import Connection, Destination, Moment, Pooling
from pgsonar.signals.agent_metrics import AGENT_METRICS, AgentReading
from pgsonar.signals.hop_metrics import CLIENT_METRICS, POOLER_METRICS
from pgsonar.signals.leak_metrics import LEAK_METRICS, LeakReading
from pgsonar.signals.login_metrics import LOGIN_METRICS
from pgsonar.signals.metric import Metric, Read
from pgsonar.signals.own_metrics import OWN_METRICS, OwnReading
from pgsonar.signals.receiver_metrics import RECEIVER_METRICS
from pgsonar.signals.rows import Attributes, Exemplar, MetricRow, Point
from pgsonar.signals.server_metrics import SERVER_METRICS, ServerReading


def server_rows(reading: ServerReading, start_unix: int, now: Moment) -> list[MetricRow]:
    """The metrics of one server."""
    common = _place(reading.sight.server.address, reading.sight.server.port)
    rows = [
        _row(metric, reading, common, start_unix, now)
        for metric in (*SERVER_METRICS, *LOGIN_METRICS, *RECEIVER_METRICS)
    ]
    return [row for row in rows if row.points]


def leak_rows(
    reading: LeakReading, start_unix: int, now: Moment, exemplars: dict[tuple[str, str], tuple[Exemplar, ...]]
) -> list[MetricRow]:
    """The metrics of episodes. `exemplars` are by (kind, severity) of the leak counter."""
    common = _place(reading.server.address, reading.server.port)
    rows = [_row(metric, reading, common, start_unix, now) for metric in LEAK_METRICS]
    for row in rows:
        if row.name == "pgsonar.leak.count" and exemplars:
            row.points[:] = [point._replace(exemplars=exemplars.get(_leak_key(point), ())) for point in row.points]
    return [row for row in rows if row.points]


def _place(address: str, port: int | None) -> Attributes:
    where: Attributes = {"server.address": address}
    return where if port is None else where | {"server.port": port}


def pooler_rows(reading: Pooling, start_unix: int, now: Moment) -> list[MetricRow]:
    """The metrics of one pooler."""
    common = _place(reading.pooler.address, reading.pooler.port)
    rows = [_row(metric, reading, common, start_unix, now) for metric in POOLER_METRICS]
    return [row for row in rows if row.points]


def client_rows(
    destination: Destination, connections: list[Connection], start_unix: int, now: Moment
) -> list[MetricRow]:
    """The metrics of the client's side of a database."""
    common = _place(destination.address, destination.port)
    return [_row(metric, connections, common, start_unix, now) for metric in CLIENT_METRICS]


def _leak_key(point: Point) -> tuple[str, str]:
    return str(point.attributes["pgsonar.leak.kind"]), str(point.attributes["pgsonar.leak.severity"])


def agent_rows(reading: AgentReading, start_unix: int, now: Moment) -> list[MetricRow]:
    """The agent's own metrics."""
    rows = [_row(metric, reading, {}, start_unix, now) for metric in AGENT_METRICS]
    return [row for row in rows if row.points]


def own_rows(reading: OwnReading, start_unix: int, now: Moment) -> list[MetricRow]:
    """What the agent tells of itself as a sender."""
    rows = [_row(metric, reading, {}, start_unix, now) for metric in OWN_METRICS]
    return [row for row in rows if row.points]


def _row(metric: Metric[Read], reading: Read, common: Attributes, start_unix: int, now: Moment) -> MetricRow:
    start = start_unix if metric.since_start else 0
    points = [Point({**common, **attributes}, value, start, now.unix) for attributes, value in metric.read(reading)]
    return MetricRow(metric.name, metric.kind, metric.unit, metric.sentence, points, metric.folded, metric.only_full)
