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
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pgsonar.errors import ConfigError
from pgsonar.model import Episode, EpisodeEvent, Member, Moment
from pgsonar.sqlite_file import HINT, open_file

log = logging.getLogger("pgsonar")

NAME = "state.sqlite"
# Each brings a file from the version before it to its own, which is its place in the list and PRAGMA user_version.
MIGRATIONS = (
    "create table episode (id text primary key, distance integer not null, body text not null)",
    "create table ended (server text, kind text, identity text, unix integer)",
    "create table telling (distance integer not null, name text, because text, unix integer, body text not null)",
)


class StateDirectory:
    """A directory of one agent. Raises ConfigError where another agent or a later version uses it."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory)
        self.failures = 0  # writes that could not be done, in a row
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
            self._database = open_file(self.path / NAME, MIGRATIONS, "what was open is forgotten")
        except ConfigError:
            os.close(self._lock)
            raise

    def load(self, now: Moment) -> list[Episode]:
        """The episodes that were open when the agent ended, dated by today's clocks."""
        episodes = []
        for number, distance, body in self._database.execute("select id, distance, body from episode"):
            try:
                episode = _decode(body)
            except (ValueError, msgspec.ValidationError) as error:
                log.warning("the episode %s of %s cannot be read: %s", number, self.path / NAME, error)
                continue
            episodes.append(_moved(episode, distance - (now.unix - now.at)))
        return episodes

    def untold(self, now: Moment) -> list[EpisodeEvent]:
        """What was about to be told when the agent ended, and may not have been; the oldest first."""
        sql = "select distance, name, because, unix, body from telling order by rowid"
        events = []
        for distance, name, because, unix, body in self._database.execute(sql):
            episode = _moved(_decode(body), distance - (now.unix - now.at))
            events.append(EpisodeEvent(name, episode, because, Moment(unix - (now.unix - now.at), unix)))
        return events

    def save(self, episodes: Iterable[Episode], now: Moment, telling: Iterable[EpisodeEvent] | None = None) -> None:
        """Puts what is open now in the place of what was. What cannot be written is counted, and said once.

        `telling` is added to what is about to be told; without it everything has been.
        """
        distance = now.unix - now.at
        rows = [(episode.id, distance, _encode(episode)) for episode in episodes]
        steps = [(distance, e.name, e.because, e.moment.unix, _encode(e.episode)) for e in telling or ()]
        try:
            with self._database:
                self._database.execute("delete from episode")
                self._database.executemany("insert into episode values (?, ?, ?)", rows)
                if telling is None:
                    self._database.execute("delete from telling")
                self._database.executemany("insert into telling values (?, ?, ?, ?, ?)", steps)
        except sqlite3.Error as error:
            self.failures += 1
            if self.failures == 1:
                log.warning("what is open cannot be kept in %s: %s (is the disk full?)", self.path / NAME, error)
        else:
            self.failures = 0

    @property
    def problem(self) -> str | None:
        """What keeps state from being written; None while it is."""
        return f"{self.path / NAME} cannot be written ({self.failures} times)" if self.failures else None

    def close(self) -> None:
        """Lets the next agent in."""
        self._database.close()
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
