"""The exporters as configured, from batches of rows to backends: their queues, the one encoder before them, their end.

The rule: one exporter never waits for another. What the file of the state directory holds for an exporter is its own,
and there are never two of one name; all have the same few seconds in the end.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgsonar.config.schema import IN_MEMORY, SIGNALS, Config, OtlpExporter, PrometheusExporter, Section
from pgsonar.errors import PgsonarError
from pgsonar.exporters import Exporter, ExporterStats, Outbox, Way, build, form_of, way_of
from pgsonar.exporters.forms import Form
from pgsonar.signals.rows import Batch, Signal

if TYPE_CHECKING:
    from pgsonar.exporters.durable import QueueFile
    from pgsonar.exporters.queue import Store

log = logging.getLogger("pgsonar")

ENCODE_WITHIN = 2.0  # seconds in the end, if there are as many
CLOSE_WITHIN = 0.5  # seconds of those in the end, for what hangs
GONE_WITHIN = 4.0  # seconds that an exporter has which is configured no more
LOOK = 0.05  # seconds between two looks at whether it has sent everything


class Exporting:
    """Everything that sends. `directory` is where queues survive the agent; None: they do not.

    Raises ConfigError where an exporter or the file cannot be opened.
    """

    def __init__(self, config: Config, directory: Path | None) -> None:
        ways = {name: way_of(name, section) for name, section in _pushing(config).items()}
        self._config = config
        self.refuses_metrics = False
        self._file = self._open_file(config, directory)
        self.exporters: dict[str, Exporter] = {
            name: build(name, way, self._store(name, config)) for name, way in ways.items()
        }
        self._gone: dict[str, Exporter] = {}  # configured no more, and still sending what waits
        self._former: dict[str, ExporterStats] = {}  # of those that are closed: their counters go on if they come back
        self._turn = threading.Lock()
        self._outbox = Outbox(self._routes(config))

    def prepare(self, config: Config) -> dict[str, Way]:
        """How the exporters that another configuration has changed send. Raises ConfigError where one cannot."""
        changed = {n: section for n, section in _pushing(config).items() if self._config.exporters.get(n) != section}
        return {name: way_of(name, section) for name, section in changed.items()}

    def apply(self, config: Config, ways: dict[str, Way]) -> None:
        """Goes on as another configuration has it, with what was prepared. What waits is sent the new way."""
        gone = {name: exporter for name, exporter in self.exporters.items() if name not in config.exporters}
        exporters = {name: exporter for name, exporter in self.exporters.items() if name in config.exporters}
        with self._turn:
            for name, way in ways.items():
                known = exporters.get(name) or self._gone.pop(name, None)
                if known is None:
                    known = build(name, way, self._store(name, config), self._former.pop(name, None))
                else:
                    known.configure(*way)
                exporters[name] = known
            self._gone |= gone
        self.exporters, self._config = exporters, config
        self._outbox.route(self._routes(config))
        for one in gone.items():
            threading.Thread(target=self._end, args=one, daemon=True).start()

    def export(self, batch: Batch) -> None:
        """Takes a batch for the exporters of its signal; never waits."""
        if self.refuses_metrics and batch.signal == "metrics":
            self._outbox.lose(batch, "the agent has come near its memory limit")
        else:
            self._outbox.export(batch)

    def shed(self) -> None:
        """Gives up half of what waits in memory only, the oldest first."""
        for exporter in self.exporters.values():
            exporter.shed()

    def settle(self, seconds: float) -> bool:
        """Waits until all that was taken is in the queues; False when that takes longer."""
        return self._outbox.settle(seconds)

    @property
    def problem(self) -> str | None:
        """What keeps the queues from being written; None while they are."""
        return self._file.problem if self._file is not None else None

    def close(self, seconds: float) -> None:
        """Gives every exporter the same time to send what waits, and returns within so many seconds."""
        deadline = time.monotonic() + seconds
        self._outbox.close(min(ENCODE_WITHIN, seconds / 2))
        with self._turn:
            gone, self._gone = self._gone, {}
        within = max(0.0, deadline - CLOSE_WITHIN - time.monotonic())
        exporters = [*((exporter, True) for exporter in self.exporters.values()), *((e, False) for e in gone.values())]
        threads = [threading.Thread(target=_close, args=(one, within, keeps), daemon=True) for one, keeps in exporters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._file is not None:
            self._file.close()

    def _end(self, name: str, exporter: Exporter) -> None:
        """Gives an exporter that is configured no more some time to send what waits, unless it comes back meanwhile."""
        deadline = time.monotonic() + GONE_WITHIN
        self._outbox.settle(GONE_WITHIN)
        while exporter.stats.queue_requests and self._gone.get(name) is exporter and time.monotonic() < deadline:
            time.sleep(LOOK)
        with self._turn:
            if self._gone.get(name) is not exporter:
                return
            _close(exporter, 0, keeps=False)
            del self._gone[name]
            self._former[name] = replace(exporter.stats, failing_since=None, last_error="")

    def _open_file(self, config: Config, directory: Path | None) -> QueueFile | None:
        if directory is None:
            return None
        from pgsonar.exporters.durable import QueueFile  # noqa: PLC0415 - SQLite, for those who keep state

        file = QueueFile(directory)
        file.forget_others([name for name, section in config.exporters.items() if not _is_in_memory(section)])
        return file

    def _store(self, name: str, config: Config) -> Store | None:
        return None if self._file is None or _is_in_memory(config.exporters[name]) else self._file.of(name)

    def _routes(self, config: Config) -> dict[Signal, list[tuple[Exporter, Form]]]:
        return {
            signal: [
                (self.exporters[name], form_of(config.exporters[name]))
                for name in pipeline.exporters
                if name in self.exporters
            ]
            for signal in SIGNALS
            if (pipeline := getattr(config.pipelines, signal)) is not None
        }


def _pushing(config: Config) -> dict[str, Section]:
    """The exporters that send, which leaves out those that are scraped."""
    return {n: section for n, section in config.exporters.items() if not isinstance(section, PrometheusExporter)}


def _is_in_memory(section: Section) -> bool:
    """Whether what waits for an exporter is not to survive the agent."""
    return isinstance(section, OtlpExporter) and section.sending_queue.storage == IN_MEMORY


def _close(exporter: Exporter, seconds: float, keeps: bool) -> None:  # noqa: FBT001 - for Thread
    try:
        unsent = exporter.close(seconds, keeps=keeps)
    except PgsonarError as error:
        log.warning("exporter %s did not close: %s", exporter.name, error)
        return
    if unsent:
        log.warning("exporter %s: %d items could not be sent before the end", exporter.name, unsent)
