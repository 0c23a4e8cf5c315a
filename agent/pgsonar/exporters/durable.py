"""`queue.sqlite`: where the requests of all exporters survive the agent.

The rule: nothing here raises and nothing blocks for long. What cannot be written is said once and stays in memory
(queue.py). A put takes some 40 us, and a write-ahead log without a sync at each commit survives a kill, though not a
loss of power.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pgsonar.exporters.queue import SIGNALS, Entry
from pgsonar.sqlite_file import SqliteFile

log = logging.getLogger("pgsonar")

NAME = "queue.sqlite"
MIGRATIONS = (
    """create table request (
        exporter text, number integer, signal text, items integer, size integer, since real, body blob,
        primary key (exporter, number)
    )""",
)
STEP = 256  # pages given back to the disk at once, which takes some ms
PAUSE = 0.001  # seconds between two steps, for those who wait for the file


class QueueFile(SqliteFile):
    """The file. Raises ConfigError where it may not be opened at the start."""

    def __init__(self, directory: Path) -> None:
        instead = "what is to be sent waits in memory"
        super().__init__(directory / NAME, MIGRATIONS, lost="what waited in it is lost", instead=instead)

    def of(self, exporter: str) -> ExporterStore:
        """The part of one exporter."""
        return ExporterStore(self, exporter)

    def forget_others(self, exporters: Collection[str]) -> None:
        """Drops what waits for exporters that are configured no more, or keep their queue in memory now."""
        marks = ", ".join("?" * len(exporters))
        sql = f"select exporter, sum(items) from request where exporter not in ({marks}) group by 1"  # noqa: S608
        rows: list[tuple[str, int]] = self.run(lambda database: database.execute(sql, [*exporters]).fetchall(), [])
        for name, items in rows:
            log.warning(
                "%d items wait in %s for %s, which is configured no more or not to wait there: dropped",
                items,
                self.path,
                name,
            )
        sql = f"delete from request where exporter not in ({marks})"  # noqa: S608
        self.run(lambda database: database.execute(sql, [*exporters]) is not None, otherwise=False)

    def shrink(self) -> None:
        """Gives the room of what was sent back to the disk, some at a time: others use the file meanwhile."""
        before, left = None, self.run(_free_pages, 0)
        while left and left != before:
            time.sleep(PAUSE)
            before, left = left, self.run(_free_some, 0)


def _free_pages(database: sqlite3.Connection) -> int:
    (pages,) = database.execute("pragma freelist_count").fetchone()
    return int(pages)


def _free_some(database: sqlite3.Connection) -> int:
    """Returns how many are left."""
    database.executescript(f"pragma incremental_vacuum({STEP})")  # a script is stepped to its end, a page a step
    return _free_pages(database)


class ExporterStore:
    """The requests of one exporter in the file; see queue.Store."""

    def __init__(self, file: QueueFile, exporter: str) -> None:
        self._file = file
        self._exporter = exporter
        self._dealt_with: list[int] = []  # and still in the file, because a full disk lets nothing be removed either

    def load(self) -> list[Entry] | None:
        """What an earlier run left, the oldest first, without bodies; None while the file cannot be read."""
        sql = "select number, signal, items, size, since from request where exporter = ? order by number"
        rows: list[tuple[Any, ...]] | None = self._file.run(
            lambda database: database.execute(sql, [self._exporter]).fetchall(), None
        )
        return None if rows is None else [Entry(*row) for row in rows if row[1] in SIGNALS]

    def put(self, entries: Collection[Entry]) -> bool:
        """Writes requests; False where that cannot be done now."""
        sql = "insert into request values (?, ?, ?, ?, ?, ?, ?)"
        rows = [(self._exporter, e.number, e.signal, e.items, e.size, e.since, e.body) for e in entries]
        return self._file.run(
            lambda database: database.executemany(sql, rows) is not None, otherwise=False, writes=True
        )

    def body(self, number: int) -> bytes | None:
        """A request's body; None where it was lost."""
        sql = "select body from request where exporter = ? and number = ?"
        row = self._file.run(lambda database: database.execute(sql, [self._exporter, number]).fetchone(), None)
        return None if row is None else row[0]

    def remove(self, number: int) -> None:
        """Forgets a request."""
        self._dealt_with.append(number)
        sql = "delete from request where exporter = ? and number = ?"
        rows = [(self._exporter, dealt_with) for dealt_with in self._dealt_with]
        if self._file.run(lambda database: database.executemany(sql, rows) is not None, otherwise=False):
            self._dealt_with.clear()

    def shrink(self) -> None:
        """Gives the room of what was removed back to the disk. Takes its time."""
        self._file.shrink()
