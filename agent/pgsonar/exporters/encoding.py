"""Rows become OTLP requests, through the SDK's own data model and the official encoder.

The rule: nothing but this file knows the SDK's objects. Its log modules are still underscored upstream, so the minor
version is pinned in pyproject.toml. Sums are cumulative.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

from google.protobuf.message import Message
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk import metrics as sdk_metrics
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import export as sdk_export
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from pgsonar import __version__
from pgsonar.exporters.forms import Form
from pgsonar.exporters.splitting import cut
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow, MetricRow, Point, Signal, SpanRow, Spread

_SCOPE = InstrumentationScope("pgsonar", __version__)
_REQUESTS: dict[str, Any] = {
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
_CUMULATIVE = sdk_export.AggregationTemporality.CUMULATIVE


class Encoded(NamedTuple):
    """A serialized OTLP export request, and how many points, records or spans are in it."""

    signal: Signal
    body: bytes
    items: int


class Encoder:
    """Encodes batches for one form."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def encode(self, batch: Batch) -> list[Encoded]:
        """The requests that carry a batch."""
        message, items = _message(batch)
        return [Encoded(batch.signal, message.SerializeToString(), items)]


def parse(encoded: Encoded) -> Message:
    """The request as an object."""
    return _REQUESTS[encoded.signal].FromString(encoded.body)


def halves(encoded: Encoded) -> tuple[Encoded, Encoded] | None:
    """The same in two requests; None where there is but one item in it."""
    if encoded.items < 2:
        return None
    at = encoded.items // 2
    first, second = (part.SerializeToString() for part in cut(parse(encoded), encoded.signal, at))
    return Encoded(encoded.signal, first, at), Encoded(encoded.signal, second, encoded.items - at)


def _message(batch: Batch) -> tuple[Message, int]:
    if batch.signal == "metrics":
        metrics = [(r, [row for row in rows if isinstance(row, MetricRow)]) for r, rows in batch.resources]
        message = encode_metrics(sdk_export.MetricsData([_resource_metrics(r, rows) for r, rows in metrics]))
        return message, sum(len(row.points) for _, rows in metrics for row in rows)
    if batch.signal == "logs":
        events = [_event(row, r) for r, rows in batch.resources for row in rows if isinstance(row, EventRow)]
        return encode_logs(events), len(events)
    spans = [_span(row, r) for r, rows in batch.resources for row in rows if isinstance(row, SpanRow)]
    return encode_spans(spans), len(spans)


@functools.lru_cache(maxsize=256)
def _resource(resource: Resource) -> SdkResource:
    return SdkResource(dict(resource.attributes))


def _resource_metrics(resource: Resource, rows: list[MetricRow]) -> sdk_export.ResourceMetrics:
    metrics = [_metric(row) for row in rows]
    return sdk_export.ResourceMetrics(_resource(resource), [sdk_export.ScopeMetrics(_SCOPE, metrics, "")], "")


def _metric(row: MetricRow) -> sdk_export.Metric:
    if row.kind == "histogram":
        spreads = sdk_export.Histogram([_spread(point) for point in row.points], _CUMULATIVE)
        return sdk_export.Metric(row.name, row.description, row.unit, spreads)
    points = [_point(point, gauge=row.kind == "gauge") for point in row.points]
    if row.kind == "gauge":
        return sdk_export.Metric(row.name, row.description, row.unit, sdk_export.Gauge(points))
    total = sdk_export.Sum(points, _CUMULATIVE, row.kind == "counter")
    return sdk_export.Metric(row.name, row.description, row.unit, total)


def _point(point: Point, *, gauge: bool) -> sdk_export.NumberDataPoint:
    exemplars = [sdk_metrics.Exemplar({}, e.value, e.time_unix, e.span_id, e.trace_id) for e in point.exemplars]
    start = None if gauge else point.start_unix
    return sdk_export.NumberDataPoint(point.attributes, start, point.time_unix, point.value, exemplars)  # type: ignore[arg-type]


def _spread(point: Point) -> sdk_export.HistogramDataPoint:
    """One bucket for everything; the least and the most are not known, and then left out."""
    count, total = cast("Spread", point.value)
    unknown = cast("float", None)
    return sdk_export.HistogramDataPoint(
        attributes=point.attributes,
        start_time_unix_nano=point.start_unix,
        time_unix_nano=point.time_unix,
        count=count,
        sum=total,
        bucket_counts=[count],
        explicit_bounds=[],
        min=unknown,
        max=unknown,
    )


def _event(row: EventRow, resource: Resource) -> ReadableLogRecord:
    # The declared overload for ids of our own forgets event_name.
    record = LogRecord(  # type: ignore[call-overload]
        timestamp=row.time_unix,
        observed_timestamp=row.time_unix,
        trace_id=row.trace_id,
        span_id=row.span_id,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        severity_text=row.severity_text,
        severity_number=SeverityNumber(row.severity_number),
        body=row.body,
        # Several backends drop or hide the field, so the name stands among the attributes as well.
        attributes={**row.attributes, "event.name": row.event_name},
        event_name=row.event_name,
    )
    return ReadableLogRecord(record, _resource(resource), _SCOPE)


def _span(row: SpanRow, resource: Resource) -> ReadableSpan:
    return ReadableSpan(
        row.name,
        context=_context(row.trace_id, row.span_id),
        resource=_resource(resource),
        attributes=row.attributes,
        links=[Link(_context(trace, span)) for trace, span in row.links],
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR) if row.error else Status(),
        start_time=row.start_unix,
        end_time=row.end_unix,
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
