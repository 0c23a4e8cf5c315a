"""`queue.sqlite`: where the requests of all exporters survive the agent.

The rule: nothing here raises and nothing blocks for long. What cannot be written is said once and stays in memory
(queue.py); a file found damaged is set aside, named, and begun anew. One connection, under one lock: a put takes some
40 us, and a write-ahead log without a sync at each commit survives a kill, though not a loss of power.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from pgsonar.errors import PgsonarError
from pgsonar.exporters.queue import SIGNALS, Entry
from pgsonar.sqlite_file import DAMAGED, open_file, set_aside

log = logging.getLogger("pgsonar")

NAME = "queue.sqlite"
MIGRATIONS = (
    """create table request (
        exporter text, number integer, signal text, items integer, size integer, since real, body blob,
        primary key (exporter, number)
    )""",
)
_LOST = "what waited in it is lost"

Result = TypeVar("Result")


class QueueFile:
    """The file. Raises ConfigError where it cannot be opened at the start."""

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self.path = directory / NAME
        self.problem: str | None = None  # why nothing can be written now
        self._lock = threading.Lock()
        self._fsync = fsync
        self._database = self._open()

    def of(self, exporter: str) -> ExporterStore:
        """The part of one exporter."""
        return ExporterStore(self, exporter)

    def forget_others(self, exporters: Collection[str]) -> None:
        """Drops what waits for exporters that are configured no more."""
        marks = ", ".join("?" * len(exporters))
        sql = f"select exporter, sum(items) from request where exporter not in ({marks}) group by 1"  # noqa: S608
        rows: list[tuple[str, int]] = self.run(lambda database: database.execute(sql, [*exporters]).fetchall(), [])
        for name, items in rows:
            log.warning("%d items wait in %s for %s, which is configured no more: dropped", items, self.path, name)
        sql = f"delete from request where exporter not in ({marks})"  # noqa: S608
        self.run(lambda database: database.execute(sql, [*exporters]) is not None, otherwise=False)

    def run(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """Does something in one transaction; `otherwise` where the file does not take it."""
        with self._lock:
            try:
                with self._database:
                    return work(self._database)
            except sqlite3.Error as error:
                self._note(error)
                return otherwise

    def note_written(self) -> None:
        """It can be written, again or still."""
        if self.problem is not None:
            log.info("%s can be written again", self.path)
            self.problem = None

    def shrink(self) -> None:
        """Gives the room of what was sent back to the disk."""
        # A script is stepped to its end, and each step frees a page.
        self.run(lambda database: database.executescript("pragma incremental_vacuum"), None)

    def close(self) -> None:
        """Ends the use of the file."""
        with self._lock:
            self._database.close()

    def _open(self) -> sqlite3.Connection:
        database = open_file(self.path, MIGRATIONS, _LOST)
        database.execute("pragma journal_size_limit = 1048576")
        if self._fsync:
            database.execute("pragma synchronous = full")
        return database

    def _note(self, error: sqlite3.Error) -> None:
        """Says what the matter is, once; begins anew where the file is damaged."""
        if getattr(error, "sqlite_errorcode", 0) in DAMAGED:
            self._database.close()
            with contextlib.suppress(OSError, sqlite3.Error, PgsonarError):  # then the next use tells
                set_aside(self.path, error, _LOST)
                self._database = self._open()
        elif self.problem is None:
            log.warning(
                "%s cannot be written: %s; what is to be sent waits in memory (is the disk full?)", self.path, error
            )
        self.problem = f"{self.path} cannot be written: {error}"


class ExporterStore:
    """The requests of one exporter in the file; see queue.Store."""

    def __init__(self, file: QueueFile, exporter: str) -> None:
        self._file = file
        self._exporter = exporter
        self._dealt_with: list[int] = []  # and still in the file, because a full disk lets nothing be removed either

    def load(self) -> list[Entry]:
        """What an earlier run left, the oldest first, without bodies."""
        sql = "select number, signal, items, size, since from request where exporter = ? order by number"
        rows: list[tuple[Any, ...]] = self._file.run(lambda d: d.execute(sql, [self._exporter]).fetchall(), [])
        return [Entry(*row) for row in rows if row[1] in SIGNALS]

    def put(self, entries: Collection[Entry]) -> bool:
        """Writes requests; False where that cannot be done now."""
        sql = "insert into request values (?, ?, ?, ?, ?, ?, ?)"
        rows = [(self._exporter, e.number, e.signal, e.items, e.size, e.since, e.body) for e in entries]
        is_written = self._file.run(lambda database: database.executemany(sql, rows) is not None, otherwise=False)
        if is_written:
            self._file.note_written()
        return is_written

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

    def emptied(self) -> None:
        """A queue that had grown large is empty again."""
        self._file.shrink()
