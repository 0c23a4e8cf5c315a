"""The metrics of the agent itself: how well it scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgsonar.model import ScanStats
from pgsonar.signals.metric import Metric, Reading
from pgsonar.signals.rows import Attributes


@dataclass(slots=True)
class AgentReading:
    """What the metrics of the agent itself are read from: the scanning of each namespace, by its number."""

    scans: dict[int, ScanStats]
    rates: dict[int, float]  # complete scans a second since the last export
    servers: int
    sources: dict[int, str]  # the source in use by namespace
    interval: float  # seconds between two scans now
    reason: str  # configured, or max_cpu: why it is what it is


def _scans(value: Callable[[ScanStats], int | float]) -> Callable[[AgentReading], Reading]:
    def read(reading: AgentReading) -> Reading:
        for netns, stats in reading.scans.items():
            yield _scan_attributes(reading, netns), value(stats)

    return read


def _scan_attributes(reading: AgentReading, netns: int) -> Attributes:
    return {"pgsonar.source": reading.sources[netns], "pgsonar.netns": netns}


_SCAN = ("pgsonar.source", "pgsonar.netns")


AGENT_METRICS: tuple[Metric[AgentReading], ...] = (
    Metric(
        "pgsonar.server.count",
        "updowncounter",
        "{server}",
        (),
        "Database servers that are watched.",
        lambda reading: [({}, reading.servers)],
        lean=(),
    ),
    Metric(
        "pgsonar.scan.duration",
        "gauge",
        "s",
        _SCAN,
        "Wall time of the last scan.",
        _scans(lambda stats: stats.last_cost / 1e9),
    ),
    Metric(
        "pgsonar.scan.rate",
        "gauge",
        "{scan}/s",
        _SCAN,
        "Complete scans a second since the last export.",
        lambda reading: ((_scan_attributes(reading, n), rate) for n, rate in reading.rates.items()),
    ),
    Metric(
        "pgsonar.scan.interval",
        "gauge",
        "s",
        ("pgsonar.scan.reason",),
        "Time between two scans now: as configured, or stretched to keep within max_cpu.",
        lambda reading: [({"pgsonar.scan.reason": reading.reason}, reading.interval)],
        lean=("pgsonar.scan.reason",),
    ),
    Metric(
        "pgsonar.scan.late",
        "counter",
        "{scan}",
        _SCAN,
        "Scans that began late by more than half an interval, or were dropped from the schedule.",
        _scans(lambda stats: stats.late + stats.missed),
        lean=(),
    ),
    Metric(
        "pgsonar.scan.incomplete",
        "counter",
        "{scan}",
        _SCAN,
        "Scans discarded whole because a read failed or the table was cut.",
        _scans(lambda stats: stats.incomplete),
        lean=(),
    ),
    Metric(
        "pgsonar.scan.malformed",
        "counter",
        "{line}",
        _SCAN,
        "Lines and messages of the kernel that could not be read.",
        _scans(lambda stats: stats.malformed),
    ),
    Metric(
        "pgsonar.scan.blind_window",
        "gauge",
        "s",
        _SCAN,
        "Longest distance between two complete scans since the last export: what lives shorter may go unseen, unless "
        "the kernel tells of every end.",
        _scans(lambda stats: stats.max_gap / 1e9),
    ),
    Metric(
        "pgsonar.scan.unseen",
        "updowncounter",
        "{connection}",
        _SCAN,
        "Connections that came and went between two scans, at most: the kernel's count of opened connections, on all "
        "ports of the network namespace, less those seen.",
        _scans(lambda stats: stats.unseen),
    ),
    Metric(
        "pgsonar.scan.lost_events",
        "counter",
        "{event}",
        _SCAN,
        "Times the kernel had more ends of connections to tell than its queue could hold.",
        _scans(lambda stats: stats.lost_events),
    ),
    Metric(
        "pgsonar.scan.lost_changes",
        "counter",
        "{change}",
        _SCAN,
        "Changes that found the ring full; the table was read anew after them.",
        _scans(lambda stats: stats.lost_changes),
    ),
    Metric(
        "pgsonar.scan.cpu",
        "counter",
        "s",
        _SCAN,
        "CPU time of the scanning thread.",
        _scans(lambda stats: stats.cpu / 1e9),
        lean=(),
    ),
)
