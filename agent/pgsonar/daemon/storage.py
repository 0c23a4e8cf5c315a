"""The state directory: who uses it, and what is kept over a restart in its `state.sqlite`.

The rule: one agent uses a directory, told by a lock that ends with the process. What an agent wrote, a later version
reads (MIGRATIONS); what a later one wrote is refused. A file that cannot be read is set aside, never overwritten. Times
are stored with the distance of the two clocks, because the clock they are taken from begins anew with each boot.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pgsonar.errors import ConfigError
from pgsonar.model import Episode, EpisodeEvent, Member, Moment
from pgsonar.sqlite_file import HINT, SqliteFile

log = logging.getLogger("pgsonar")

NAME = "state.sqlite"
# Each brings a file from the version before it to its own, which is its place in the list and PRAGMA user_version.
MIGRATIONS = (
    "create table episode (id text primary key, distance integer not null, body text not null)",
    "create table ended (server text, kind text, identity text, unix integer)",
    "create table telling (distance integer not null, name text, because text, unix integer, body text not null)",
)

Read = TypeVar("Read")


class StateDirectory:
    """A directory of one agent. Raises ConfigError where another agent or a later version uses it."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"extensions.file_storage.directory: {self.path}: {error.strerror}", HINT) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            hint = "each agent needs a directory of its own: set extensions.file_storage.directory"
            raise ConfigError(f"another pgsonar uses {self.path}", hint) from None
        try:
            self._file = SqliteFile(
                self.path / NAME,
                MIGRATIONS,
                lost="what was open is forgotten",
                instead="what is open would not survive the agent",
            )
        except ConfigError:
            os.close(self._lock)
            raise

    def load(self, now: Moment) -> list[Episode]:
        """The episodes that were open when the agent ended, dated by today's clocks."""

        def read(distance: int, body: str) -> Episode:
            return _moved(_decode(body), distance - (now.unix - now.at))

        return list(self._read("select id, distance, body from episode", "episode", read))

    def untold(self, now: Moment) -> list[EpisodeEvent]:
        """What was about to be told when the agent ended, and may not have been; the oldest first."""

        def read(distance: int, body: str, name: str, because: str, unix: int) -> EpisodeEvent:
            episode = _moved(_decode(body), distance - (now.unix - now.at))
            return EpisodeEvent(name, episode, because, Moment(unix - (now.unix - now.at), unix))

        sql = "select rowid, distance, body, name, because, unix from telling order by rowid"
        return list(self._read(sql, "event", read))

    def _read(self, sql: str, what: str, read: Callable[..., Read]) -> Iterator[Read]:
        """What can be read of the rows, the first column being what a row is named by."""
        rows: list[tuple[Any, ...]] = self._file.run(lambda database: database.execute(sql).fetchall(), [])
        for number, *row in rows:
            try:
                yield read(*row)
            except (ValueError, TypeError, msgspec.ValidationError) as error:
                log.warning("the %s %s of %s cannot be read: %s", what, number, self._file.path, error)

    def save(self, episodes: Iterable[Episode], now: Moment, telling: Iterable[EpisodeEvent] | None = None) -> bool:
        """Puts what is open now in the place of what was; False where that cannot be written, which is said once.

        `telling` is added to what is about to be told; without it everything has been.
        """
        distance = now.unix - now.at
        rows = [(episode.id, distance, _encode(episode)) for episode in episodes]
        steps = [(distance, e.name, e.because, e.moment.unix, _encode(e.episode)) for e in telling or ()]

        def write(database: sqlite3.Connection) -> bool:
            database.execute("delete from episode")
            database.executemany("insert into episode values (?, ?, ?)", rows)
            if telling is None:
                database.execute("delete from telling")
            database.executemany("insert into telling values (?, ?, ?, ?, ?)", steps)
            return True

        return self._file.run(write, otherwise=False, writes=True)

    @property
    def problem(self) -> str | None:
        """What keeps state from being written; None while it is."""
        return self._file.problem

    def close(self) -> None:
        """Lets the next agent in."""
        self._file.close()
        os.close(self._lock)


def _encode(episode: Episode) -> str:
    """As JSON of the standard library, which writes numbers of any length: a trace id has 128 bits."""
    return json.dumps(msgspec.to_builtins(episode))


def _decode(body: str) -> Episode:
    told: dict[str, Any] = json.loads(body)
    return msgspec.convert(told, Episode, strict=False)


def _moved(episode: Episode, by: int) -> Episode:
    """The same with all that the boot clock told moved by so many ns."""

    def at(instant: int | None) -> int | None:
        return None if instant is None else instant + by

    return replace(
        episode,
        is_restored=True,
        onset=episode.onset + by,
        seen_at=episode.seen_at + by,
        updated_at=episode.updated_at + by,
        opened_at=at(episode.opened_at),
        members=[Member(m.pid, m.address, m.port, m.onset + by) for m in episode.members],
        findings=[replace(f, onset=at(f.onset), counts_until=at(f.counts_until)) for f in episode.findings],
    )
