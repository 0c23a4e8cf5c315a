"""The metrics of leak episodes, of whatever they were found on: a server, a pooler, a database elsewhere.

The rule: a count falls with no episode that ends, and the exemplar of one leads to its span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgsonar.model import Server, Severity
from pgsonar.signals.metric import Metric, Reading


@dataclass(slots=True)
class LeakReading:
    """The episodes of one server, pooler or database."""

    server: Server
    open: Mapping[tuple[str, Severity], int] = field(default_factory=dict)  # by kind and severity, now
    ever: Mapping[tuple[str, Severity], int] = field(default_factory=dict)  # the same at opening, ever
    flaps: Mapping[str, int] = field(default_factory=dict)  # by kind, ever
    silenced: Mapping[str, int] = field(default_factory=dict)  # by kind, findings held back now


def _leaks(counts: Mapping[tuple[str, Severity], int]) -> Reading:
    for (kind, severity), number in counts.items():
        yield {"pgsonar.leak.kind": kind, "pgsonar.leak.severity": severity.word}, number


def _by_kind(counts: Mapping[str, int]) -> Reading:
    return (({"pgsonar.leak.kind": kind}, number) for kind, number in counts.items())


LEAK_METRICS: tuple[Metric[LeakReading], ...] = (
    Metric(
        "pgsonar.leak.open",
        "updowncounter",
        "{leak}",
        ("pgsonar.leak.kind", "pgsonar.leak.severity"),
        "Leak episodes open now.",
        lambda reading: _leaks(reading.open),
        lean=("pgsonar.leak.severity",),
    ),
    Metric(
        "pgsonar.leak.count",
        "counter",
        "{leak}",
        ("pgsonar.leak.kind", "pgsonar.leak.severity"),
        "Leak episodes opened since pgsonar started, by their severity at opening.",
        lambda reading: _leaks(reading.ever),
        lean=("pgsonar.leak.severity",),
    ),
    Metric(
        "pgsonar.leak.flaps",
        "counter",
        "{leak}",
        ("pgsonar.leak.kind",),
        "Times an episode that kept ending and coming back was held open instead.",
        lambda reading: _by_kind(reading.flaps),
    ),
    Metric(
        "pgsonar.leak.silenced",
        "gauge",
        "{connection}",
        ("pgsonar.leak.kind",),
        "Findings that are held back now by a silence of processors.leaks.overrides.",
        lambda reading: _by_kind(reading.silenced),
    ),
)
