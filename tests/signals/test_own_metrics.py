"""What the agent tells of itself as a sender."""

from collections import Counter

import pytest

from build import START
from pgsonar.model import SECOND, Lack, Moment
from pgsonar.signals.metrics import own_rows
from pgsonar.signals.own_metrics import OWN_METRICS, ExporterReading, OwnReading

NOW = Moment(START + SECOND, 1_700_000_000 * SECOND)
BUSY = ExporterReading(
    "otlp_http/x",
    sent=Counter(metrics=1, logs=2, traces=3),
    failed=Counter(metrics=4, logs=5, traces=6),
    dropped=Counter(metrics=7, logs=8, traces=9),
    waiting={"metrics": 17, "logs": 18, "traces": 19},
    retries=10,
    queue_size=11,
    queue_bytes=12,
    queue_capacity=13,
)
SCRAPED = ExporterReading("prometheus", Counter(metrics=20), Counter(), Counter(), {}, 0, 0, 0, None)
LACKS = [
    Lack("capability", "CAP_SYS_PTRACE", "a", "s1"),
    Lack("capability", "CAP_SYS_PTRACE", "b", "s2"),
    Lack("login", "receivers.postgresql", "c"),
]
READING = OwnReading("1.2", "abc", 14.5, 15, 16.5, [BUSY, SCRAPED], LACKS)


def told(reading=READING):
    return {
        (row.name, *point.attributes.values()): point.value for row in own_rows(reading, 5, NOW) for point in row.points
    }


EXPECTED = {
    ("pgsonar.up", "1.2", "abc"): 1,
    ("pgsonar.degraded", "capability", "CAP_SYS_PTRACE"): 2,
    ("pgsonar.degraded", "login", "receivers.postgresql"): 1,
    ("pgsonar.exporter.sent_metric_points", "otlp_http/x"): 1,
    ("pgsonar.exporter.sent_log_records", "otlp_http/x"): 2,
    ("pgsonar.exporter.sent_spans", "otlp_http/x"): 3,
    ("pgsonar.exporter.send_failed_metric_points", "otlp_http/x"): 4,
    ("pgsonar.exporter.send_failed_log_records", "otlp_http/x"): 5,
    ("pgsonar.exporter.send_failed_spans", "otlp_http/x"): 6,
    ("pgsonar.exporter.enqueue_failed_metric_points", "otlp_http/x"): 7,
    ("pgsonar.exporter.enqueue_failed_log_records", "otlp_http/x"): 8,
    ("pgsonar.exporter.enqueue_failed_spans", "otlp_http/x"): 9,
    ("pgsonar.exporter.waiting_metric_points", "otlp_http/x"): 17,
    ("pgsonar.exporter.waiting_log_records", "otlp_http/x"): 18,
    ("pgsonar.exporter.waiting_spans", "otlp_http/x"): 19,
    ("pgsonar.exporter.retries", "otlp_http/x"): 10,
    ("pgsonar.exporter.queue_size", "otlp_http/x"): 11,
    ("pgsonar.exporter.queue_bytes", "otlp_http/x"): 12,
    ("pgsonar.exporter.queue_capacity", "otlp_http/x"): 13,
    ("pgsonar.exporter.sent_metric_points", "prometheus"): 20,
    ("pgsonar.exporter.send_failed_metric_points", "prometheus"): 0,
    ("pgsonar.exporter.enqueue_failed_metric_points", "prometheus"): 0,
    ("pgsonar.exporter.retries", "prometheus"): 0,
    ("pgsonar.process.cpu_seconds",): 14.5,
    ("pgsonar.process.memory_rss",): 15,
    ("pgsonar.process.uptime",): 16.5,
}


def test_each_metric_reads_its_own_value_and_no_other_is_told():
    assert told() == EXPECTED
    assert {name for name, *_ in EXPECTED} == {metric.name for metric in OWN_METRICS}


@pytest.mark.parametrize("metric", OWN_METRICS, ids=lambda metric: metric.name)
def test_the_table_says_which_attributes_there_are(metric):
    assert {tuple(attributes) for attributes, _ in metric.read(READING)} == {metric.attributes}


def test_an_agent_that_lacks_nothing_has_no_such_series():
    assert not [key for key in told(OwnReading("1", "a", 0, 0, 0)) if key[0] == "pgsonar.degraded"]
