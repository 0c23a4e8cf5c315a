"""Plain rows of the three signals, before they become OpenTelemetry's objects.

The rule: pipeline and tests deal in these; only `exporters` turns them into protobuf. Times are ns since the epoch.
Trace ids are 128-bit and span ids 64-bit non-zero integers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pgsonar.model import Resource

AttributeValue = str | int | float | bool | tuple[str, ...]
Attributes = dict[str, AttributeValue]
Kind = Literal["gauge", "counter", "updowncounter", "histogram"]


class Exemplar(NamedTuple):
    """The episode behind a count."""

    time_unix: int
    value: int
    trace_id: int
    span_id: int


class Spread(NamedTuple):
    """What a histogram without buckets tells: how many measurements there were, and their sum."""

    measurements: int
    total: float


Value = int | float | Spread


class Point(NamedTuple):
    """One value of one series. `start_unix` is when the sum began (ignored for gauges); 0 where that is not known."""

    attributes: Attributes
    value: Value
    start_unix: int
    time_unix: int
    exemplars: tuple[Exemplar, ...] = ()


class MetricRow(NamedTuple):
    """One metric of one resource. A counter is a monotonic sum, an updowncounter one that may fall.

    The values of a histogram are Spreads, those of all others numbers. `folded` are the attributes over which the lean
    profile sums; None: it leaves the metric out, and so does the standard one what is `only_full`.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    points: list[Point]
    folded: tuple[str, ...] | None = None
    only_full: bool = False


class EventRow(NamedTuple):
    """A log record with an event name; the body is a plain sentence."""

    event_name: str
    time_unix: int
    severity_number: int  # OpenTelemetry's: 9 info, 13 warning, 17 high, 21 critical
    severity_text: str
    body: str
    attributes: Attributes
    trace_id: int
    span_id: int


class SpanRow(NamedTuple):
    """An ended span of kind INTERNAL. `error` sets the status to ERROR."""

    name: str
    trace_id: int
    span_id: int
    start_unix: int
    end_unix: int
    attributes: Attributes
    error: bool
    links: tuple[tuple[int, int], ...] = ()  # (trace id, span id)


Row = MetricRow | EventRow | SpanRow
Signal = Literal["metrics", "logs", "traces"]


class Batch(NamedTuple):
    """What one tick hands to the exporters: rows of one signal, by resource."""

    signal: Signal
    resources: list[tuple[Resource, list[Row]]]
