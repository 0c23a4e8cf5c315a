"""The exporters as configured, from batches of rows to backends: their queues, the one encoder before them, their end.

The rule: one exporter never waits for another. What the file of the state directory holds for an exporter is its own;
all have the same few seconds in the end.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgsonar.config.schema import IN_MEMORY, Config, OtlpExporter, PrometheusExporter, Section
from pgsonar.errors import PgsonarError
from pgsonar.exporters import Exporter, Outbox, Way, build, form_of, way_of
from pgsonar.exporters.forms import Form
from pgsonar.signals.rows import Batch, Signal

if TYPE_CHECKING:
    from pgsonar.exporters.durable import QueueFile
    from pgsonar.exporters.queue import Store

log = logging.getLogger("pgsonar")

SIGNALS: tuple[Signal, ...] = ("metrics", "logs", "traces")
ENCODE_WITHIN = 2.0  # seconds in the end
GONE_WITHIN = 4.0  # seconds that an exporter has which is configured no more


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
        self._outbox = Outbox(self._routes(config))

    def prepare(self, config: Config) -> dict[str, Way]:
        """How the exporters that another configuration has changed send. Raises ConfigError where one cannot."""
        changed = {n: section for n, section in _pushing(config).items() if self._config.exporters.get(n) != section}
        return {name: way_of(name, section) for name, section in changed.items()}

    def apply(self, config: Config, ways: dict[str, Way]) -> None:
        """Goes on as another configuration has it, with what was prepared. What waits is sent the new way."""
        gone = [self.exporters[name] for name in self.exporters if name not in config.exporters]
        exporters = {name: exporter for name, exporter in self.exporters.items() if name in config.exporters}
        for name, way in ways.items():
            if name in exporters:
                exporters[name].configure(*way)
            else:
                exporters[name] = build(name, way, self._store(name, config))
        self.exporters, self._config = exporters, config
        self._outbox.route(self._routes(config))
        for exporter in gone:
            threading.Thread(target=_close, args=(exporter, GONE_WITHIN), daemon=True).start()

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
        """Gives every exporter the same few seconds to send what waits."""
        self._outbox.close(ENCODE_WITHIN)
        threads = [
            threading.Thread(target=_close, args=(exporter, seconds), daemon=True)
            for exporter in self.exporters.values()
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds + 0.5
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._file is not None:
            self._file.close()

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


def _close(exporter: Exporter, seconds: float) -> None:
    try:
        unsent = exporter.close(seconds)
    except PgsonarError as error:
        log.warning("exporter %s did not close: %s", exporter.name, error)
        return
    if unsent:
        log.warning("exporter %s: %d items could not be sent before the end", exporter.name, unsent)
