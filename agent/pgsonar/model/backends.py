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
    via: Via | None = None  # the pooler it came through
    inner_pid: int = 0  # its number in its own pid namespace, which is what the server calls it
    inodes: tuple[int, ...] | None = None  # None: not read, or not readable
    local_client: ClientProcess | None = None  # at the other end of its unix socket, once looked for and found
    looked_for_client_at: int | None = None

    @property
    def kind_may_have_socket(self) -> bool:
        return self.title.kind is not BackendKind.WORKER

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
