"""Sessions as the database tells of them through a login."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pgsonar.model.servers import Limits
from pgsonar.model.sockets import Endpoint


@dataclass(frozen=True, slots=True)
class Session:
    """A row of pg_stat_activity. None is unknown, or not for our role to see."""

    pid: int  # as the server counts: in its own pid namespace
    kind: str  # backend_type
    started: int
    user: str | None = None
    database: str | None = None
    application: str | None = None
    client_address: str | None = None
    client_port: int | None = None  # None: over a unix socket, or unknown
    state: str | None = None
    state_since: int | None = None  # state_change: the clock of idleness
    transaction_since: int | None = None  # xact_start: the clock of locks and of the vacuum horizon
    wait_event_type: str | None = None
    wait_event: str | None = None
    blocked_by: tuple[int, ...] = ()  # pids, as the server counts
    locks: int | None = None  # held by a transaction that idles; None: not asked
    query_text: str | None = None  # a traceparent, or text without literals, when asked for
    is_superuser: bool = False

    @property
    def holds_a_slot(self) -> bool:
        return self.kind == "client backend"


class SessionCounts(NamedTuple):
    """How sessions of a database ended since its statistics began (PostgreSQL 14 and later)."""

    sessions: int
    abandoned: int
    fatal: int
    killed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReading:
    """What one look through a login told of a server."""

    begun: int
    at: int  # the answer was complete
    endpoint: Endpoint
    own_pid: int
    started: int  # of the postmaster
    port: int | None
    system_identifier: str | None
    version: str
    role: str
    limits: Limits
    sessions: tuple[Session, ...]
    sees_all: bool = True  # False: rows of other roles are hidden from ours
    settings: dict[str, str] = field(default_factory=dict)  # with their units
    role_limits: dict[str, int] = field(default_factory=dict)
    database_limits: dict[str, int] = field(default_factory=dict)
    counts: dict[str, SessionCounts] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def seen(self) -> dict[int, Session]:
        """The client sessions the database would count, by pid. Logins under way are listed since PostgreSQL 18."""
        return {s.pid: s for s in self.sessions if s.holds_a_slot and s.state != "starting"}
