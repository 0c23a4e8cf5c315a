"""Rows become OTLP requests, through the SDK's own data model and the official encoder.

The rule: nothing but this file knows the SDK's objects. Its log modules are still underscored upstream, so the minor
version is pinned in pyproject.toml.
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
from pgsonar.exporters.shaping import Shaper
from pgsonar.exporters.splitting import cut, fits, split
from pgsonar.model import Resource
from pgsonar.signals.rows import Attributes, AttributeValue, Batch, EventRow, MetricRow, Point, Signal, SpanRow, Spread

_SCOPE = InstrumentationScope("pgsonar", __version__)
_REQUESTS: dict[str, Any] = {
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
_CUMULATIVE = sdk_export.AggregationTemporality.CUMULATIVE
_DELTA = sdk_export.AggregationTemporality.DELTA


class Encoded(NamedTuple):
    """A serialized OTLP export request, and how many points, records or spans are in it."""

    signal: Signal
    body: bytes
    items: int


class Encoder:
    """Encodes batches for one form, and remembers of the metrics what the next ones are compared with."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._shaper = Shaper(form)

    def encode(self, batch: Batch) -> list[Encoded]:
        """The requests that carry a batch, none larger than the form allows where that can be."""
        if batch.signal != "metrics":
            return self._requests(batch.signal, *_message(batch, self._form.value_length))
        try:
            requests = self._requests("metrics", *self._metrics(batch))
        except BaseException:
            self._shaper.drop()
            raise
        self._shaper.commit()
        return requests

    def _metrics(self, batch: Batch) -> tuple[Message, int]:
        items, told = 0, []
        for resource, rows in batch.resources:
            shaped = self._shaper.rows(resource, (row for row in rows if isinstance(row, MetricRow)))
            items += sum(len(row.points) for row in shaped)
            if shaped:
                told.append(_resource_metrics(resource, shaped, self._form))
        return encode_metrics(sdk_export.MetricsData(told)), items

    def _requests(self, signal: Signal, message: Message, items: int) -> list[Encoded]:
        if not items:
            return []
        body = message.SerializeToString()
        size = self._form.size(signal)
        if fits(body, size):
            return [Encoded(signal, body, items)]
        return [Encoded(signal, part, number) for part, number in split(message, signal, body, size)]


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


def _message(batch: Batch, value_length: int | None) -> tuple[Message, int]:
    rows = [(resource, row) for resource, of_resource in batch.resources for row in of_resource]
    if batch.signal == "logs":
        events = [_event(row, resource, value_length) for resource, row in rows if isinstance(row, EventRow)]
        return encode_logs(events), len(events)
    spans = [_span(row, resource, value_length) for resource, row in rows if isinstance(row, SpanRow)]
    return encode_spans(spans), len(spans)


@functools.lru_cache(maxsize=256)
def _resource(resource: Resource) -> SdkResource:
    return SdkResource(dict(resource.attributes))


def _resource_metrics(resource: Resource, rows: list[MetricRow], form: Form) -> sdk_export.ResourceMetrics:
    metrics = [_metric(row, _DELTA if form.is_delta(row.kind) else _CUMULATIVE) for row in rows]
    return sdk_export.ResourceMetrics(_resource(resource), [sdk_export.ScopeMetrics(_SCOPE, metrics, "")], "")


def _metric(row: MetricRow, temporality: sdk_export.AggregationTemporality) -> sdk_export.Metric:
    if row.kind == "histogram":
        spreads = sdk_export.Histogram([_spread(point) for point in row.points], temporality)
        return sdk_export.Metric(row.name, row.description, row.unit, spreads)
    points = [_point(point, gauge=row.kind == "gauge") for point in row.points]
    if row.kind == "gauge":
        return sdk_export.Metric(row.name, row.description, row.unit, sdk_export.Gauge(points))
    total = sdk_export.Sum(points, temporality, row.kind == "counter")
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


def _event(row: EventRow, resource: Resource, value_length: int | None) -> ReadableLogRecord:
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
        attributes=_clipped({**row.attributes, "event.name": row.event_name}, value_length),
        event_name=row.event_name,
    )
    return ReadableLogRecord(record, _resource(resource), _SCOPE)


def _span(row: SpanRow, resource: Resource, value_length: int | None) -> ReadableSpan:
    return ReadableSpan(
        row.name,
        context=_context(row.trace_id, row.span_id),
        resource=_resource(resource),
        attributes=_clipped(row.attributes, value_length),
        links=[Link(_context(trace, span)) for trace, span in row.links],
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR) if row.error else Status(),
        start_time=row.start_unix,
        end_time=row.end_unix,
        instrumentation_scope=_SCOPE,
    )


def _clipped(attributes: Attributes, length: int | None) -> Attributes:
    """Attributes without the ends of texts that are longer than allowed; what identifies is never as long."""
    if length is None:
        return attributes
    return {name: _clip(value, length) for name, value in attributes.items()}


def _clip(value: AttributeValue, length: int) -> AttributeValue:
    if isinstance(value, tuple):
        return tuple(str(_clip(item, length)) for item in value)
    return f"{value[: length - 1]}…" if isinstance(value, str) and len(value) > length else value


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
