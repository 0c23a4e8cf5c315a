"""A SQLite file of the state directory: private, brought up to date; set aside when damaged, made anew when removed.

The rule: what an agent wrote, a later version reads; what a later one wrote is refused and left as it is. A file that
cannot be read is set aside, never overwritten. Once it runs, nothing here raises: what a full disk does not take now is
said once and may be tried again. One connection, under one lock.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pgsonar.errors import ConfigError

log = logging.getLogger("pgsonar")

# The last is "no such table": whatever that file is, we did not leave it so.
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
# What a full disk answers. It is told from a directory that may not be written by looking at that (_has_no_room).
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
HINT = "set extensions.file_storage.directory to a directory that the agent may write"
LOOK = 1.0  # seconds between two looks whether the file is still there, or can be opened now

Result = TypeVar("Result")


class SqliteFile:
    """The file at its newest version, each migration being a statement that brings it from the version before.

    `lost` says what is forgotten with a damaged file, `instead` what becomes of what cannot be written. Raises
    ConfigError where the directory may not be written, or the file is of a later version; not where the disk is full.
    """

    def __init__(self, path: Path, migrations: Sequence[str], *, lost: str, instead: str) -> None:
        self.path = path
        self.problem: str | None = None  # why nothing can be written now
        self._migrations = migrations
        self._lost = lost
        self._instead = instead
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._identity = (0, 0)  # of the file that is open: device and inode
        self._look_at = 0.0
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            if not _has_no_room(error, path.parent):
                raise ConfigError(f"{path} cannot be opened: {error}", HINT) from None
            self._note(error)

    def run(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result, *, writes: bool = False) -> Result:
        """Does something in one transaction; `otherwise` where the file does not take it.

        With `writes`, that it was done tells that the file can be written.
        """
        with self._lock:
            try:
                database = self._current()
                if database is None:
                    return otherwise
                with database:
                    result = work(database)
            except (sqlite3.Error, OSError, ConfigError) as error:
                self._note(error)
                return otherwise
            if writes and self.problem is not None:
                log.info("%s can be written again", self.path)
                self.problem = None
            return result

    def close(self) -> None:
        """Ends the use of the file."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None

    def _current(self) -> sqlite3.Connection | None:
        """The connection; now and then the file is looked at first."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK
            if self._database is not None and self._was_removed():
                self._carry_over(self._database)
            if self._database is None:
                self._open()
        return self._database

    def _open(self) -> None:
        try:
            self._database = self._opened()
        except sqlite3.DatabaseError as error:
            if _code(error) not in DAMAGED:
                raise
            set_aside(self.path, error, self._lost)
            self._database = self._opened()
        self._identity = _identity(self.path)

    def _opened(self) -> sqlite3.Connection:
        """A connection. A full disk that has no room for the shared index may still let the file be read."""
        try:
            return _opened(self.path, self._migrations)
        except sqlite3.OperationalError as error:
            if _code(error) not in NO_ROOM:
                raise
            return _opened(self.path, self._migrations, mode="exclusive")  # the index is in memory then

    def _was_removed(self) -> bool:
        try:
            return _identity(self.path) != self._identity
        except FileNotFoundError:
            return True

    def _carry_over(self, before: sqlite3.Connection) -> None:
        """A file that was removed is read as long as it is open: what it holds goes into a new one."""
        self._database = None
        copy = self.path.with_name(self.path.name + ".new")
        try:
            _private(copy)
            with contextlib.closing(sqlite3.connect(copy)) as target:
                before.backup(target)
        except (sqlite3.Error, OSError) as error:
            copy.unlink(missing_ok=True)
            log.warning("%s was removed while in use and cannot be copied (%s): %s", self.path, error, self._lost)
        else:
            log.warning("%s was removed while in use: what it held is written into a new one", self.path)
        finally:
            before.close()  # which removes its companions, by name: the new file comes after it
        if self.path.exists():
            set_aside(self.path, "it took the place of the one in use", "it is not used")
        if copy.exists():
            _remove_companions(self.path)
            copy.rename(self.path)

    def _note(self, error: Exception) -> None:
        """Says what the matter is, once; begins anew where the file is damaged."""
        if _code(error) in DAMAGED and self._database is not None:
            self._let_go()
            self._look_at = 0.0
            with contextlib.suppress(OSError):  # then the next use tells
                set_aside(self.path, error, self._lost)
        elif self.problem is None:
            log.warning("%s cannot be written: %s; %s (is the disk full?)", self.path, error, self._instead)
        self.problem = f"{self.path} cannot be written: {error}"


def set_aside(path: Path, error: object, lost: str) -> None:
    """Renames a damaged file, so that a person may look at it and a new one takes its place."""
    aside = path.with_suffix(f".damaged-{path.stat().st_mtime_ns}")
    path.rename(aside)
    _remove_companions(path)
    log.warning("%s cannot be read (%s): set aside as %s, %s", path, error, aside.name, lost)


def _remove_companions(path: Path) -> None:
    """The log and the index of a database that is no more; they would be taken for those of the next."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 for what has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _has_no_room(error: Exception, directory: Path) -> bool:
    """Whether the disk is to blame, which may have room later, and not who may write what."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _code(error) in NO_ROOM and os.access(directory, os.W_OK | os.X_OK)


def _private(path: Path) -> None:
    """Nobody else may read what it tells of clients."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _opened(path: Path, migrations: Sequence[str], mode: str = "normal") -> sqlite3.Connection:
    _private(path)
    database = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    database.text_factory = lambda text: text.decode(errors="replace")  # damage is for the reader of a row to find
    try:
        database.execute(f"pragma locking_mode = {mode}")
        (version,) = database.execute("pragma user_version").fetchone()
        if not version:  # so that the file can shrink; to say it again of one that has tables is a write
            database.execute("pragma auto_vacuum = incremental")
        database.execute("pragma cache_size = -256")  # KB: what is written once and read once needs no 2 MB of it
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        database.execute("pragma journal_size_limit = 1048576")
        _bring_up_to_date(database, version, path, migrations)
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_to_date(database: sqlite3.Connection, version: int, path: Path, migrations: Sequence[str]) -> None:
    if version > len(migrations):
        raise ConfigError(
            f"{path} is of version {version}, and this pgsonar knows {len(migrations)}",
            "a later pgsonar wrote it: run that one, or move the file away (what it holds is then forgotten)",
        )
    for number, statement in enumerate(migrations[version:], version + 1):
        with database:
            database.execute("begin")  # both or neither: a disk may be full after the first
            database.execute(statement)
            database.execute(f"pragma user_version = {number}")
