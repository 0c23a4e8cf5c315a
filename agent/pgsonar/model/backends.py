"""The children of a postmaster, as /proc tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pgsonar.model.connections import ClientProcess, Connection
from pgsonar.model.poolers import Via
from pgsonar.model.sessions import Session
from pgsonar.model.sockets import TcpState

LOCAL_HOST = "[local]"  # what a title shows instead of host(port) for a unix socket


class BackendKind(StrEnum):
    """What a child of the postmaster is. Only CLIENT and UNKNOWN hold a slot of max_connections."""

    CLIENT = "client"
    WALSENDER = "walsender"
    WORKER = "worker"  # auxiliary processes, parallel, autovacuum and background workers
    PRESTARTUP = "prestartup"  # forked, has not read a startup packet: still the postmaster's command line
    UNKNOWN = "unknown"  # a title that tells nothing (clipped, or empty)


class Title(NamedTuple):
    """A backend's process title, taken apart. None is unknown; an `activity` of None means titles are not updated."""

    kind: BackendKind
    user: str | None = None
    database: str | None = None
    host: str | None = None  # LOCAL_HOST for a unix socket
    port: int | None = None
    activity: str | None = None  # without " waiting"
    waiting: bool = False
    text: str = ""
    names: str | None = None  # user and database in one, where nobody can tell where the one ends
    is_cut: bool = False  # there was no room for all of it, and what is left tells no more than the fields say


class BackendSighting(NamedTuple):
    """One look at a child of the postmaster."""

    pid: int
    started: int
    title: Title
    switches: int | None = None  # voluntary_ctxt_switches; None when it was not read
    at: int = 0
    inner_pid: int = 0  # in its own pid namespace


class Activity:
    """Activities that mean something to the detectors, as PostgreSQL writes them into titles."""

    IDLE = "idle"
    IN_TRANSACTION = "idle in transaction"
    ABORTED = "idle in transaction (aborted)"
    AUTHENTICATION = "authentication"
    STARTUP = "startup"
    INITIALIZING = "initializing"


# Of pg_stat_activity.backend_type; any other is a worker's.
_TOLD = {"client backend": BackendKind.CLIENT, "walsender": BackendKind.WALSENDER}
LOGIN_ACTIVITIES = frozenset({Activity.AUTHENTICATION, Activity.STARTUP, Activity.INITIALIZING})


@dataclass(slots=True)
class Backend:
    """A child of the postmaster followed in time. Its identity is (pid, started): pids return.

    tracking.backends alone changes one; what the four fields mean that say since when it stands still, and who asks
    for what, is told by tracking.stillness.
    """

    server: str
    pid: int
    started: int
    title: Title
    first_seen: int
    activity_since: int  # the last entry into this activity
    still_since: int  # the last movement of title, process or socket
    seen_at: int
    switches: int | None = None
    still_before: int | None = None  # while the last movement is in doubt: the one before
    was_woken: bool = False  # in this activity the server has woken it once
    connection: Connection | None = None
    socket_lost_at: int | None = None  # its connection left the kernel's tables while it runs on
    session: Session | None = None  # what a login last told of it
    identified: Session | None = None  # what a login has ever told of who it is, which stays
    via: Via | None = None  # the pooler it came through
    inner_pid: int = 0  # its number in its own pid namespace, which is what the server calls it
    inodes: tuple[int, ...] | None = None  # None: not read, or not readable
    local_client: ClientProcess | None = None  # at the other end of its unix socket, once looked for and found
    looked_for_client_at: int | None = None

    @property
    def kind(self) -> BackendKind:
        """By its title; where that may be another's as well (cut, or a role is called walsender), by a login."""
        kind, told = self.title.kind, self.identified
        if told is None or kind not in (BackendKind.UNKNOWN, BackendKind.WALSENDER):
            return kind
        return _TOLD.get(told.kind, kind if told.kind == "unknown" else BackendKind.WORKER)

    @property
    def is_client(self) -> bool:
        """Whether it serves a client, as far as is known: a cut title is a client's before it is a worker's."""
        return self.kind is BackendKind.CLIENT or (self.kind is BackendKind.UNKNOWN and self.title.is_cut)

    @property
    def user(self) -> str | None:
        return self.title.user or (self.identified.user if self.identified is not None else None)

    @property
    def database(self) -> str | None:
        return self.title.database or (self.identified.database if self.identified is not None else None)

    @property
    def kind_may_have_socket(self) -> bool:
        return self.kind is not BackendKind.WORKER

    @property
    def client(self) -> ClientProcess | None:
        """The process it serves, where that runs on this host or node and was looked for: never a pooler we know."""
        if self.via is not None:
            return self.via.process
        return self.connection.client if self.connection is not None else self.local_client

    @property
    def between(self) -> str | None:
        """What hides the client: a proxy, or a translation of addresses that leads nowhere."""
        client = self.client
        if client is not None:
            return f"the proxy {client.label}" if client.is_proxy else None
        near = self.connection
        is_hidden = near is not None and near.is_astray and near.socket.state == TcpState.ESTABLISHED
        return "address translation" if is_hidden else None
