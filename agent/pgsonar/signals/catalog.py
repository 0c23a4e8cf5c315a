"""Everything pgsonar sends: metrics, events and spans, each with its sentence.

The rule: the table of docs/metrics.md is generated from here and checked. Never a pid, a port, an inode or a single
connection's address as an attribute of a metric.
"""

from __future__ import annotations

from typing import Any

from pgsonar.signals.agent_metrics import AGENT_METRICS
from pgsonar.signals.hop_metrics import POOLER_METRICS
from pgsonar.signals.leak_metrics import LEAK_METRICS
from pgsonar.signals.login_metrics import LOGIN_METRICS
from pgsonar.signals.metric import Metric
from pgsonar.signals.own_metrics import OWN_METRICS
from pgsonar.signals.receiver_metrics import RECEIVER_METRICS
from pgsonar.signals.server_metrics import SERVER_METRICS
from pgsonar.signals.trial import SENTENCE, TEST, TEST_METRIC

METRICS: tuple[Metric[Any], ...] = (
    *SERVER_METRICS,
    *LEAK_METRICS,
    *LOGIN_METRICS,
    *POOLER_METRICS[1:],  # the first is a server's as well
    *AGENT_METRICS,
    *OWN_METRICS,
    *RECEIVER_METRICS,
    TEST_METRIC,
)
EVENTS: tuple[tuple[str, str], ...] = (
    ("pgsonar.leak.opened", "A leak episode reached its threshold; carries the ids of the span that will end it."),
    (
        "pgsonar.leak.updated",
        "It grew worse, came to wake somebody, gained members or a cause, or is still open.",
    ),
    ("pgsonar.leak.resolved", "It ended, was lost from sight, or the agent stopped."),
    (TEST, SENTENCE),
)
SPANS: tuple[tuple[str, str], ...] = (
    ("pgsonar.leak", "One ended episode, from the first symptom to the end."),
    (TEST, SENTENCE),
)


def metric_table() -> str:
    """The catalog as the Markdown tables of docs/metrics.md."""
    lines = ["| metric | kind | unit | attributes | profile | what it is |", "| --- | --- | --- | --- | --- | --- |"]
    for metric in METRICS:
        attributes = ", ".join(f"`{name}`" for name in metric.attributes) or "-"
        cells = (f"`{metric.name}`", metric.kind, f"`{metric.unit}`", attributes, metric.profile, metric.sentence)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| event or span | what it is |", "| --- | --- |"]
    lines += [f"| `{name}` (event) | {sentence} |" for name, sentence in EVENTS]
    lines += [f"| `{name}` (span) | {sentence} |" for name, sentence in SPANS]
    return "\n".join(lines)
