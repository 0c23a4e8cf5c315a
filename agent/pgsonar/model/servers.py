"""A running postmaster, how many slots it has, and what its log told."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

_LISTS_LOGINS = 18


@dataclass(frozen=True, slots=True)
class Limits:
    """How many slots a server has, and how that is known."""

    max_connections: int | None = None
    reserved: int | None = None  # superuser_reserved_connections + reserved_connections (16 and later)
    source: str = "unknown"  # pg_control, command line, configuration file, configured, unknown
    guessed: bool = False
    children: int | None = None  # processes the postmaster has at most, those without a slot included

    @property
    def ceiling(self) -> int | None:
        """Slots ordinary clients can have."""
        if self.max_connections is None:
            return None
        return self.max_connections - (self.reserved or 0)


@dataclass(frozen=True, slots=True)
class Server:
    """One running postmaster. `id` is its key: it outlives a restart, a change of role and of address."""

    id: str
    pid: int  # 0: no process of it can be seen, its sockets or its login alone tell of it
    started: int
    netns: int  # 0: it does not run here; else its network namespace, by inode or, unreadable, by a number of ours
    port: int | None
    address: str
    listens_on: tuple[str, ...] | None = None  # the addresses of its own listeners on its port; None: unknown
    system_identifier: str | None = None  # of pg_control; a primary and its standbys have the same
    name: str | None = None  # targets[].name
    port_guessed: bool = False
    data_directory: str | None = None
    version: str | None = None
    role: str | None = None  # primary, standby
    cluster_name: str = ""  # as it stands in the titles
    uid: int = 0
    limits: Limits = field(default_factory=Limits)
    attributes: tuple[tuple[str, str], ...] = ()  # targets[].cluster, .env
    missing: tuple[str, ...] = ()  # what could not be read, each with the privilege that would help
    notes: tuple[str, ...] = ()  # what was seen and could be mistaken; nothing is missing for it
    what: str = "postgresql"  # pgbouncer, or client: a database that clients of this host lead to

    @property
    def major(self) -> int | None:
        """Of `18.1`, `18` or `19devel`."""
        found = re.match(r"\d+", self.version or "")
        return int(found[0]) if found else None

    @property
    def lists_logins(self) -> bool:
        """Whether its pg_stat_activity shows logins under way, as starting."""
        return self.major is not None and self.major >= _LISTS_LOGINS

    @property
    def seen_by(self) -> str:
        """For people: what tells of it."""
        if self.pid:
            return f"pid {self.pid}"
        return "by its sockets alone" if self.netns else "by its login alone"

    @property
    def label(self) -> str:
        """What people call it: the target's name, else host:port."""
        return self.name or f"{self.address}:{self.port if self.port is not None else '?'}"


REFUSALS_OF_SLOTS = frozenset({"reserved", "all_slots"})  # classes of lines


@dataclass(slots=True)
class LogCounts:
    """What a server's log has told since it is followed."""

    by_class: Counter[str] = field(default_factory=Counter)  # sources.serverlog.CLASSES
    last_line: dict[str, str] = field(default_factory=dict)
    skipped_bytes: int = 0
    by_name: Counter[tuple[str, str]] = field(default_factory=Counter)  # refusals by (role or database, its name)

    def add(self, other: LogCounts) -> None:
        self.by_class.update(other.by_class)
        self.by_name.update(other.by_name)
        self.last_line |= other.last_line
        self.skipped_bytes += other.skipped_bytes
