"""Readings become metric rows, by resource: one per database server and one for the agent.

The rule: rows are built anew at each export from our own tables, so a series ends when its subject does.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from pgsonar.model import Connection, Destination, Moment, Pooler, Pooling, Resource, Server
from pgsonar.signals.catalog import (
    AGENT_METRICS,
    CLIENT_METRICS,
    POOLER_METRICS,
    SERVER_METRICS,
    AgentReading,
    Metric,
    Read,
    ServerReading,
)
from pgsonar.signals.rows import Exemplar, MetricRow, Point

# OpenTelemetry's namespace for deterministic service.instance.id (semantic conventions, service).
INSTANCE_NAMESPACE = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")


class Identity:
    """What every resource carries: the host, the agent's name and version, and what the user adds."""

    def __init__(self, *, host: str, host_id: str | None, version: str, extra: Mapping[str, str]) -> None:
        self._host: dict[str, str | int] = {"host.name": host}
        if host_id:
            self._host["host.id"] = host_id
        self._version = version
        self._extra: dict[str, str | int] = dict(extra)
        self._agent_id = str(uuid.uuid5(INSTANCE_NAMESPACE, f"pgsonar@{host_id or host}"))

    def agent(self) -> Resource:
        """The agent's own resource."""
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": self._agent_id,
        }
        return _resource(own | self._host | self._extra)

    def server(self, server: Server) -> Resource:
        """The resource of one database server."""
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": str(uuid.uuid5(INSTANCE_NAMESPACE, server.id)),
            "db.system.name": "postgresql",
            "server.address": server.address,
        }
        known = {
            "server.port": server.port,
            "pgsonar.server.name": server.name,
            "pgsonar.server.role": server.role,
            "pgsonar.server.version": server.version,
        }
        own |= {key: value for key, value in known.items() if value is not None}
        own |= {f"pgsonar.server.{key}": value for key, value in server.attributes}
        return _resource(own | self._host | self._extra)

    def destination(self, destination: Destination) -> Resource:
        """The resource of a database as this host's clients see it."""
        host = self._host.get("host.id") or self._host["host.name"]
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": str(uuid.uuid5(INSTANCE_NAMESPACE, f"{host} to {destination.label}")),
            "db.system.name": "postgresql",
            "server.address": destination.address,
            "server.port": destination.port,
        }
        return _resource(own | self._host | self._extra)

    def pooler(self, pooler: Pooler) -> Resource:
        """The resource of one PgBouncer."""
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": str(uuid.uuid5(INSTANCE_NAMESPACE, pooler.id)),
            "db.system.name": "postgresql",
            "server.address": pooler.address,
            "pgsonar.pooler": "pgbouncer",
        }
        if pooler.port is not None:
            own["server.port"] = pooler.port
        return _resource(own | self._host | self._extra)


def _resource(attributes: dict[str, str | int]) -> Resource:
    return Resource(tuple(sorted(attributes.items())))


def server_rows(
    reading: ServerReading, start_unix: int, now: Moment, exemplars: dict[tuple[str, str], tuple[Exemplar, ...]]
) -> list[MetricRow]:
    """The metrics of one server. `exemplars` are by (kind, severity) of the leak counter."""
    server = reading.sight.server
    common: dict[str, str | int] = {"server.address": server.address}
    if server.port is not None:
        common["server.port"] = server.port
    rows = [_row(metric, reading, common, start_unix, now) for metric in SERVER_METRICS]
    for row in rows:
        if row.name == "pgsonar.leak.count":
            row.points[:] = [
                point._replace(exemplars=exemplars.get(_leak_key(point), ())) if exemplars else point
                for point in row.points
            ]
    return [row for row in rows if row.points]


def pooler_rows(reading: Pooling, start_unix: int, now: Moment) -> list[MetricRow]:
    """The metrics of one pooler."""
    common: dict[str, str | int] = {"server.address": reading.pooler.address}
    if reading.pooler.port is not None:
        common["server.port"] = reading.pooler.port
    rows = [_row(metric, reading, common, start_unix, now) for metric in POOLER_METRICS]
    return [row for row in rows if row.points]


def client_rows(
    destination: Destination, connections: list[Connection], start_unix: int, now: Moment
) -> list[MetricRow]:
    """The metrics of the client's side of a database."""
    common: dict[str, str | int] = {"server.address": destination.address, "server.port": destination.port}
    return [_row(metric, connections, common, start_unix, now) for metric in CLIENT_METRICS]


def _leak_key(point: Point) -> tuple[str, str]:
    return str(point.attributes["pgsonar.leak.kind"]), str(point.attributes["pgsonar.leak.severity"])


def agent_rows(reading: AgentReading, start_unix: int, now: Moment) -> list[MetricRow]:
    """The agent's own metrics."""
    rows = [_row(metric, reading, {}, start_unix, now) for metric in AGENT_METRICS]
    return [row for row in rows if row.points]


def _row(metric: Metric[Read], reading: Read, common: dict[str, str | int], start_unix: int, now: Moment) -> MetricRow:
    points = [
        Point({**common, **attributes}, value, start_unix, now.unix) for attributes, value in metric.read(reading)
    ]
    return MetricRow(metric.name, metric.kind, metric.unit, metric.sentence, points)
