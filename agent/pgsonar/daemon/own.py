"""What the agent tells of itself at each export: that it runs, what it takes, what its exporters did, what it lacks.

The rule: one place gathers all that is missing, for the metric, and says it once in the log.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from pgsonar import __version__
from pgsonar.model import Lack
from pgsonar.signals.own_metrics import ExporterReading, OwnReading
from pgsonar.signals.rows import Batch, Signal

log = logging.getLogger("pgsonar")

_PAGE = os.sysconf("SC_PAGESIZE")
_SAID_BY_THEMSELVES = {"login", "exporter", "state", "sockets", "limit"}  # parts and names


class Stats(Protocol):
    """What is asked of an exporter; see exporters.sender.ExporterStats."""

    @property
    def sent(self) -> Mapping[str, int]: ...
    @property
    def failed(self) -> Mapping[str, int]: ...
    @property
    def dropped(self) -> Mapping[str, int]: ...
    @property
    def waiting(self) -> Mapping[Signal, int]: ...
    @property
    def retries(self) -> int: ...
    @property
    def queue_requests(self) -> int: ...
    @property
    def queue_bytes(self) -> int: ...
    @property
    def queue_capacity(self) -> int | None: ...
    @property
    def failing_since(self) -> float | None: ...
    @property
    def last_error(self) -> str: ...


class OwnAccount:
    """Reads what is asked anew each time; `export` is told of the agent's own metrics and no others."""

    def __init__(
        self,
        config_hash: str,
        exporters: Callable[[], Mapping[str, Stats]],
        lacks: Callable[[], Iterable[Lack]],
        export: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        self.export = export
        self.config_hash = config_hash
        self._exporters = exporters
        self._lacks = lacks
        self._began = time.monotonic()
        self._said: set[tuple[str, str, str]] = set()

    def read(self) -> OwnReading:
        """All of it now; what is newly missing is logged."""
        exporters = self._exporters()
        lacks = [*self._lacks(), *failing_exporters(exporters)]
        self._say(lacks)
        return OwnReading(
            version=__version__,
            config_hash=self.config_hash,
            cpu=time.process_time(),
            memory=resident(),
            uptime=time.monotonic() - self._began,
            exporters=[_reading(name, stats) for name, stats in exporters.items()],
            lacks=lacks,
        )

    def _say(self, lacks: list[Lack]) -> None:
        """Once for each subject until it is mended: what is said in numbers differs from time to time."""
        self._said &= {(lack.part, lack.name, lack.subject) for lack in lacks}
        new = [lack for lack in lacks if (lack.part, lack.name, lack.subject) not in self._said]
        for lack in new:
            self._said.add((lack.part, lack.name, lack.subject))
            if not {lack.part, lack.name} & _SAID_BY_THEMSELVES:
                log.warning("seeing less: %s", lack.text)


def failing_exporters(exporters: Mapping[str, Stats], for_longer_than: float = 0.0) -> Iterable[Lack]:
    """The exporters that deliver nothing now, and have not for so many seconds."""
    for name, stats in exporters.items():
        since = stats.failing_since  # of another thread: it may be None the next time
        seconds = 0.0 if since is None else time.monotonic() - since
        if since is not None and seconds >= for_longer_than:
            yield Lack("exporter", name, f"exporter {name} has failed for {seconds:.0f} s: {stats.last_error}")


def resident() -> int:
    """Bytes of this process that are in memory (man 5 proc, statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _reading(name: str, stats: Stats) -> ExporterReading:
    return ExporterReading(
        name,
        dict(stats.sent),
        dict(stats.failed),
        dict(stats.dropped),
        dict(stats.waiting),
        stats.retries,
        stats.queue_requests,
        stats.queue_bytes,
        stats.queue_capacity,
    )
