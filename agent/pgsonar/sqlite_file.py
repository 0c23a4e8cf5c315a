"""A SQLite file of the state directory: private, brought up to date, set aside when it is damaged.

The rule: what an agent wrote, a later version reads; what a later one wrote is refused and left as it is. A file that
cannot be read is set aside, never overwritten.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pgsonar.errors import ConfigError

log = logging.getLogger("pgsonar")

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
HINT = "set extensions.file_storage.directory to a directory that the agent may write"


def open_file(path: Path, migrations: Sequence[str], lost: str) -> sqlite3.Connection:
    """The file at its newest version, each migration being a statement that brings it from the version before.

    `lost` says what is forgotten with a damaged file. Raises ConfigError where it cannot be opened or is of a later
    version.
    """
    try:
        return _opened(path, migrations)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in DAMAGED:
            raise ConfigError(f"{path} cannot be opened: {error}", HINT) from None
        set_aside(path, error, lost)
        return _opened(path, migrations)


def set_aside(path: Path, error: Exception, lost: str) -> None:
    """Renames a damaged file, so that a person may look at it and a new one takes its place."""
    aside = path.with_suffix(f".damaged-{path.stat().st_mtime_ns}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    log.warning("%s cannot be read (%s): set aside as %s, %s", path, error, aside.name, lost)


def _opened(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    # Nobody else may read what it tells of clients.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    database = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    try:
        database.execute("pragma auto_vacuum = incremental")  # before the first table, so that the file can shrink
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        _bring_up_to_date(database, path, migrations)
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_to_date(database: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    (version,) = database.execute("pragma user_version").fetchone()
    if version > len(migrations):
        raise ConfigError(
            f"{path} is of version {version}, and this pgsonar knows {len(migrations)}",
            "a later pgsonar wrote it: run that one, or move the file away (what it holds is then forgotten)",
        )
    for number, statement in enumerate(migrations[version:], version + 1):
        with database:
            database.execute(statement)
            database.execute(f"pragma user_version = {number}")
