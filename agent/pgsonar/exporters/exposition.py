"""Metric rows as the text that Prometheus scrapes, in its own format or in OpenMetrics.

The rule: names are those that OpenTelemetry's rules make of ours (specification, Prometheus compatibility), so that a
dashboard works for what was scraped and for what came over OTLP. Each series says whose it is by `server_address`,
`server_port` and `service_instance_id`; what else is known of a resource stands once, in `target_info`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

# 0.6 MB over what the agent has loaded without it.
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Exemplar

from pgsonar.model import Resource
from pgsonar.signals.rows import Attributes, AttributeValue, Kind, MetricRow, Point, Spread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_IDENTITY = ("server.address", "server.port", "service.instance.id")
_UNITS = {"s": "seconds", "By": "bytes", "1": "ratio", "": ""}
_PER = {"s": "second"}
_TYPES = {"gauge": "gauge", "counter": "counter", "updowncounter": "gauge", "histogram": "histogram"}

Labels = dict[str, str]
Resources = list[tuple[Resource, list[MetricRow]]]


class Rendered(NamedTuple):
    """What is sent to a scraper."""

    content_type: str
    body: bytes


def render(resources: Resources, *, openmetrics: bool) -> Rendered:
    """All series; exemplars are told in OpenMetrics alone, because the other format has none."""
    families = _Families()
    for resource, rows in resources:
        families.add(resource, rows)
    if openmetrics:
        return Rendered(CONTENT_TYPE_LATEST, generate_openmetrics(families))  # type: ignore[no-untyped-call]
    return Rendered(CONTENT_TYPE, generate_latest(families))


def family_name(name: str, kind: Kind, unit: str) -> tuple[str, str]:
    """The name of a metric without `_total`, and the unit that it ends with."""
    plain, suffix = _plain(name), _unit(kind, unit)
    if suffix and f"_{suffix}_" not in f"_{plain}_":
        plain += f"_{suffix}"
    return plain, suffix if plain.endswith(f"_{suffix}") else ""


def _unit(kind: Kind, unit: str) -> str:
    """What is in braces is a remark and no unit; a ratio is a gauge's alone."""
    above, slash, below = re.sub(r"\{[^}]*\}", "", unit).partition("/")
    if above == "1" and kind != "gauge":
        return ""
    return f"{_UNITS[above]}{f'_per_{_PER[below]}' if slash else ''}".lstrip("_")


@lru_cache(maxsize=1024)  # names of attributes and metrics are few
def _plain(name: str) -> str:
    plain = re.sub(r"[^a-zA-Z0-9]+", "_", name)
    return f"key_{plain}" if plain[:1].isdigit() else plain


def _labels(attributes: Iterable[tuple[str, AttributeValue]]) -> Labels:
    """Names that become the same share a label, as the rules want it."""
    labels: Labels = {}
    for name, value in sorted(attributes):
        plain, text = _plain(name), value if isinstance(value, str) else json.dumps(value)
        labels[plain] = f"{labels[plain]};{text}" if plain in labels else text
    return labels


class _Families:
    """Series by the name of their metric, over all resources: what the client library calls a registry."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def collect(self) -> Iterable[Metric]:
        return self._families.values()

    def add(self, resource: Resource, rows: list[MetricRow]) -> None:
        """All that is told of one resource."""
        identity: Attributes = {name: value for name, value in resource.attributes if name in _IDENTITY}
        target = self._family("target", "info", "Whom the series with the same server and instance are of.")
        target.add_sample("target_info", _labels(resource.attributes), 1)
        for row in rows:
            self._add_row(row, identity)
        self._add_connection_stats(rows, _labels(identity.items()))

    def _family(self, name: str, metric_type: str, description: str, unit: str = "") -> Metric:
        if name not in self._families:
            self._families[name] = Metric(name, description, metric_type, unit)
        return self._families[name]

    def _add_row(self, row: MetricRow, identity: Attributes) -> None:
        name, unit = family_name(row.name, row.kind, row.unit)
        family = self._family(name, _TYPES[row.kind], row.description, unit)
        for point in row.points:
            labels = _labels((identity | point.attributes).items())
            if isinstance(point.value, Spread):
                count, total = point.value
                family.add_sample(f"{name}_bucket", {**labels, "le": "+Inf"}, count)
                family.add_sample(f"{name}_count", labels, count)
                family.add_sample(f"{name}_sum", labels, total)
            elif row.kind == "counter":
                family.add_sample(f"{name}_total", labels, point.value, exemplar=_exemplar(point))
            else:
                family.add_sample(name, labels, point.value)

    def _add_connection_stats(self, rows: list[MetricRow], labels: Labels) -> None:
        for name, (value, sentence) in connection_stats(rows).items():
            self._family(f"pg_connection_stats_{name}", "gauge", sentence).add_sample(
                f"pg_connection_stats_{name}", labels, value
            )


def _exemplar(point: Point) -> Exemplar | None:
    if not point.exemplars:
        return None
    exemplar = point.exemplars[-1]
    ids = {"trace_id": f"{exemplar.trace_id:032x}", "span_id": f"{exemplar.span_id:016x}"}
    return Exemplar(ids, exemplar.value, exemplar.time_unix / 1e9)


def connection_stats(rows: Iterable[MetricRow]) -> dict[str, tuple[float, str]]:
    """The figures that dashboards for postgres_exporter's `pg_connection_stats` ask for, of one server.

    They are counted from process titles, without a login; states are left out where titles do not tell them.
    """
    points = {row.name: row.points for row in rows}
    told: dict[str, tuple[float, str]] = {}
    if limit := points.get("pgsonar.slot.limit"):
        told["max_connections"] = _number(limit[0]), "Maximum allowed connections"
    if "pgsonar.slot.used" not in points:  # its processes are not seen
        return told
    backends = points.get("pgsonar.backend.count", [])
    told["total"] = sum(map(_number, backends)), "Total client connections, logins under way included"
    if any(point.attributes["postgresql.state"] == "unknown" for point in backends):
        return told
    for state in ("active", "idle", "idle in transaction"):
        number = sum(_number(point) for point in backends if point.attributes["postgresql.state"] == state)
        told[state.replace(" ", "_")] = number, f"Number of {state} connections"
    return told


def _number(point: Point) -> float:
    return 0 if isinstance(point.value, Spread) else point.value
