"""What `pgsonar doctor --send-test` sends: one metric, one event and one span that nobody takes for a leak.

The rule: all three carry one name, and event and span one trace id, by which they are found at the backend. The metric
is a gauge, which every temporality allows.
"""

from __future__ import annotations

from pgsonar.model import Resource
from pgsonar.signals.metric import Metric
from pgsonar.signals.rows import Attributes, Batch, EventRow, MetricRow, Point, Row, Signal, SpanRow

TEST = "pgsonar.test"
SENTENCE = "Sent by `pgsonar doctor --send-test`, and by nothing else."
TEST_METRIC: Metric[None] = Metric(TEST, "gauge", "1", (), f"{SENTENCE} Always 1.", lambda _: [({}, 1)], lean=())

_INFO = 9  # OpenTelemetry's severity number
_LASTED = 1_000_000  # ns: some backends drop spans of no length


def marked(resource: Resource, unix: int, trace_id: int, span_id: int) -> dict[Signal, Batch]:
    """The three, at one instant (ns since the epoch)."""
    mark: Attributes = {f"{TEST}.id": f"{trace_id:032x}"}
    points = [Point(attributes, value, unix, unix) for attributes, value in TEST_METRIC.read(None)]
    metric = MetricRow(TEST, TEST_METRIC.kind, TEST_METRIC.unit, TEST_METRIC.sentence, points, TEST_METRIC.folded)
    event = EventRow(TEST, unix, _INFO, "info", "A test of pgsonar: no leak.", mark, trace_id, span_id)
    span = SpanRow(TEST, trace_id, span_id, unix - _LASTED, unix, mark, error=False)
    rows: dict[Signal, Row] = {"metrics": metric, "logs": event, "traces": span}
    return {signal: Batch(signal, [(resource, [row])]) for signal, row in rows.items()}
