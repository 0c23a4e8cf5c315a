"""What an agent told, as rows that can be compared wherever they were picked up: in its file, behind a Collector.

The rule: nothing is left out. A row holds its resource, its scope and every field of a point, record or span, as
OTLP's own JSON says it, so two rows are equal only when every field is.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS: dict[str, Any] = {
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
# The lists of a request on the way to its rows (opentelemetry/proto/collector/*/v1).
_WAY = {
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
    "traces": ("resource_spans", "scope_spans", "spans"),
}
_SIGNAL_OF = {"resourceMetrics": "metrics", "resourceLogs": "logs", "resourceSpans": "traces"}
DELTA = 1  # opentelemetry/proto/metrics/v1: AGGREGATION_TEMPORALITY_DELTA
_IDS = ("traceId", "spanId", "parentSpanId")


class Row(NamedTuple):
    """One point, record or span: `metric` is what its metric says beside its points. All but the signal are JSON."""

    signal: str
    resource: str
    scope: str
    metric: str
    fields: str


class Series(NamedTuple):
    """A series of a counter."""

    resource: str
    name: str
    attributes: str


def rows_of(signal: str, request: Any) -> Iterator[Row]:
    """The rows of a decoded request."""
    resources, scopes, records = _WAY[signal]
    for resource in getattr(request, resources):
        where = _text(resource.resource) + resource.schema_url
        for scope in getattr(resource, scopes):
            by = _text(scope.scope) + scope.schema_url
            for record in getattr(scope, records):
                if signal != "metrics":
                    yield Row(signal, where, by, "", _text(record))
                    continue
                points = list(getattr(record, record.WhichOneof("data")).data_points)
                getattr(record, record.WhichOneof("data")).ClearField("data_points")
                for point in points:
                    yield Row(signal, where, by, _text(record), _text(point))


def of_file(path: Path) -> list[Row]:
    """The rows of a file of OTLP/JSON, a request a line. A line that is not finished yet is not read."""
    found: list[Row] = []
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if line.endswith("\n"):
            document = json.loads(line)
            ((resources, _),) = document.items()
            _ids_in_base64(document)
            signal = _SIGNAL_OF[resources]
            found.extend(rows_of(signal, ParseDict(document, REQUESTS[signal]())))
    return found


def of_receiver(receiver: Any) -> list[Row]:
    """The rows that a receiver of the tests was sent over HTTP."""
    found: list[Row] = []
    for path, _, body in list(receiver.requests):
        signal = path.rpartition("/")[2]
        found.extend(rows_of(signal, REQUESTS[signal].FromString(body)))
    return found


def attributes(told: str) -> dict[str, Any]:
    """The attributes of a row's fields, or of its resource."""
    return {pair["key"]: next(iter(pair["value"].values())) for pair in json.loads(told).get("attributes", [])}


def totals(rows: set[Row]) -> tuple[dict[Series, float], dict[Series, set[int]]]:
    """What each counter adds up to that ever counted, and when it started.

    A cumulative one adds its last value from each start, a delta one all that it told.
    """
    last: dict[tuple[Series, int], tuple[int, float]] = {}
    added: Counter[Series] = Counter()
    starts: dict[Series, set[int]] = defaultdict(set)
    for row in rows:
        total = json.loads(row.metric).get("sum", {}) if row.metric else {}
        if not total.get("isMonotonic"):
            continue
        point = json.loads(row.fields)
        series = Series(row.resource, json.loads(row.metric)["name"], json.dumps(point.get("attributes")))
        start, at = int(point["startTimeUnixNano"]), int(point["timeUnixNano"])
        value = float(point.get("asInt", point.get("asDouble", 0)))
        if total["aggregationTemporality"] == DELTA:
            added[series] += value
        else:
            last[series, start] = max(last.get((series, start), (0, 0.0)), (at, value))
        starts[series].add(start)
    for (series, _), (_, value) in last.items():
        added[series] += value
    return {series: value for series, value in added.items() if value}, starts


def _text(message: Any) -> str:
    return json.dumps(MessageToDict(message, use_integers_for_enums=True), sort_keys=True)


def _ids_in_base64(node: Any) -> None:
    """OTLP/JSON writes ids in hexadecimal, protobuf's JSON reads base64."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _IDS and isinstance(value, str):
                node[key] = base64.b64encode(bytes.fromhex(value)).decode()
            else:
                _ids_in_base64(value)
    elif isinstance(node, list):
        for item in node:
            _ids_in_base64(item)
