"""The metrics of the agent as a sender: what its exporters did, what it takes, that it runs, and what it lacks.

The rule: names carry the Collector's stems (`otelcol_exporter_sent_metric_points` is `pgsonar_exporter_...` here), so
that its dashboards need their prefix changed and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgsonar.model import Lack
from pgsonar.signals.metric import Metric, Reading
from pgsonar.signals.rows import Kind, Signal


@dataclass(slots=True)
class ExporterReading:
    """What one exporter has done since the start: points, records and spans by signal."""

    name: str
    sent: Mapping[str, int]
    failed: Mapping[str, int]
    dropped: Mapping[str, int]
    waiting: Mapping[Signal, int]
    retries: int
    queue_size: int
    queue_bytes: int
    queue_capacity: int | None  # None: it has no queue

    @property
    def signals(self) -> set[str]:
        """Those that it has dealt with: all their counters are told then, also those at 0."""
        return {*self.sent, *self.failed, *self.dropped, *self.waiting}


@dataclass(slots=True)
class OwnReading:
    """What the agent tells of itself."""

    version: str
    config_hash: str
    cpu: float  # seconds
    memory: int  # bytes that are resident
    uptime: float  # seconds
    exporters: Sequence[ExporterReading] = ()
    lacks: Sequence[Lack] = field(default_factory=list)


_OF_SIGNAL = {
    "metrics": ("metric_points", "{datapoint}", "Metric points"),
    "logs": ("log_records", "{record}", "Log records"),
    "traces": ("spans", "{span}", "Spans"),
}
_EXPORTER = ("exporter",)


def _items(
    stem: str, fate: str, counts: Callable[[ExporterReading], Mapping[Any, int] | None], kind: Kind = "counter"
) -> tuple[Metric[OwnReading], ...]:
    """A metric for each signal, as the Collector has it."""

    def read(signal: str) -> Callable[[OwnReading], Reading]:
        return lambda own: (
            ({"exporter": exporter.name}, figures.get(signal, 0))
            for exporter in own.exporters
            if signal in exporter.signals and (figures := counts(exporter)) is not None
        )

    return tuple(
        Metric(f"pgsonar.exporter.{stem}_{noun}", kind, unit, _EXPORTER, f"{things} {fate}.", read(signal))
        for signal, (noun, unit, things) in _OF_SIGNAL.items()
    )


def _of_exporters(value: Callable[[ExporterReading], int | None]) -> Callable[[OwnReading], Reading]:
    return lambda own: (
        ({"exporter": exporter.name}, number) for exporter in own.exporters if (number := value(exporter)) is not None
    )


def _queue(value: Callable[[ExporterReading], int]) -> Callable[[OwnReading], Reading]:
    return _of_exporters(lambda exporter: None if exporter.queue_capacity is None else value(exporter))


def _up(own: OwnReading) -> Reading:
    yield {"pgsonar.version": own.version, "pgsonar.config.hash": own.config_hash}, 1


def _lacks(own: OwnReading) -> Reading:
    for (part, name), number in Counter((lack.part, lack.name) for lack in own.lacks).items():
        yield {"pgsonar.degraded.part": part, "pgsonar.degraded.name": name}, number


OWN_METRICS: tuple[Metric[OwnReading], ...] = (
    Metric(
        "pgsonar.up",
        "gauge",
        "{agent}",
        ("pgsonar.version", "pgsonar.config.hash"),
        "1 with each export: the agent runs, in this version and with this configuration (secrets left out).",
        _up,
        lean=("pgsonar.version", "pgsonar.config.hash"),
    ),
    Metric(
        "pgsonar.degraded",
        "updowncounter",
        "{reason}",
        ("pgsonar.degraded.part", "pgsonar.degraded.name"),
        "What is missing or does not work, by part (capability, source, login, log, exporter, state): how often. The "
        "health answer says what is lost by it.",
        _lacks,
        lean=("pgsonar.degraded.part",),
    ),
    *_items("sent", "that arrived", lambda exporter: exporter.sent),
    *_items("send_failed", "that the other side refused", lambda exporter: exporter.failed),
    *_items("enqueue_failed", "dropped from a full queue, the oldest first", lambda exporter: exporter.dropped),
    *_items(
        "waiting",
        "that wait to be sent",
        lambda exporter: None if exporter.queue_capacity is None else exporter.waiting,
        "updowncounter",
    ),
    Metric(
        "pgsonar.exporter.retries",
        "counter",
        "{retry}",
        _EXPORTER,
        "Attempts that came to nothing and were made again.",
        _of_exporters(lambda exporter: exporter.retries),
    ),
    Metric(
        "pgsonar.exporter.queue_size",
        "gauge",
        "{request}",
        _EXPORTER,
        "Requests that wait to be sent.",
        _queue(lambda exporter: exporter.queue_size),
    ),
    Metric(
        "pgsonar.exporter.queue_capacity",
        "gauge",
        "{request}",
        _EXPORTER,
        "Requests that may wait.",
        _of_exporters(lambda exporter: exporter.queue_capacity),
    ),
    Metric(
        "pgsonar.exporter.queue_bytes",
        "gauge",
        "By",
        _EXPORTER,
        "What waits to be sent.",
        _queue(lambda exporter: exporter.queue_bytes),
    ),
    Metric(
        "pgsonar.process.cpu_seconds",
        "counter",
        "s",
        (),
        "CPU time of the agent, user and system.",
        lambda own: [({}, own.cpu)],
    ),
    Metric(
        "pgsonar.process.memory_rss",
        "gauge",
        "By",
        (),
        "Resident memory of the agent.",
        lambda own: [({}, own.memory)],
    ),
    Metric(
        "pgsonar.process.uptime",
        "counter",
        "s",
        (),
        "Time since the agent started.",
        lambda own: [({}, own.uptime)],
    ),
)
