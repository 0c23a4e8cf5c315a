"""PgBouncer: its processes, what its console tells, and how a session came through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pgsonar.model.connections import ClientProcess, Connection
from pgsonar.model.sockets import Endpoint, TcpState


@dataclass(frozen=True, slots=True)
class Pooler:
    """PgBouncer on one port of one network namespace; several processes share a port by so_reuseport."""

    id: str
    pids: tuple[int, ...]
    netns: int
    port: int | None  # None: it listens on unix sockets alone, or cannot be told
    address: str
    addresses: frozenset[str] = frozenset()  # it listens on; empty: unknown
    socket_directories: frozenset[str] = frozenset()  # one for each process, where these share a port
    config_file: str | None = None
    settings: tuple[tuple[str, str], ...] = ()  # of its configuration, without secrets
    missing: tuple[str, ...] = ()
    is_here: bool = True  # in our own network namespace, as far as can be told

    @property
    def pid(self) -> int:
        return self.pids[0]

    @property
    def label(self) -> str:
        return f"{self.address}:{self.port if self.port is not None else '?'}"


class PoolerClient(NamedTuple):
    """A row of SHOW CLIENTS: an application's connection to PgBouncer. None is: over a unix socket, or unknown."""

    ptr: str
    link: str | None  # of the server connection it holds now
    user: str
    database: str
    state: str
    application: str | None
    address: str | None
    port: int | None
    local: Endpoint | None  # PgBouncer's end
    wait: float  # seconds it has waited for a server connection
    request: str | None = None  # when it asked for something last, as the console writes that


class PoolerServer(NamedTuple):
    """A row of SHOW SERVERS: a connection of PgBouncer's to a database."""

    ptr: str
    link: str | None
    user: str
    database: str
    state: str
    remote: Endpoint | None  # the database's end
    local: Endpoint | None  # PgBouncer's end, which is the client in the database's eyes
    backend_pid: int | None  # as the database counts


class Pool(NamedTuple):
    """A row of SHOW POOLS."""

    database: str
    user: str
    clients_active: int
    clients_waiting: int
    servers_active: int
    servers_idle: int  # idle and used: what a client could have at once
    servers_other: int  # tested, logging in
    max_wait: float  # seconds the oldest waiting client has waited
    mode: str
    size: int | None
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerReading:
    """What one look at a PgBouncer console told."""

    at: int
    endpoint: Endpoint
    version: str
    pools: tuple[Pool, ...]
    clients: tuple[PoolerClient, ...]
    servers: tuple[PoolerServer, ...]
    settings: dict[str, str] = field(default_factory=dict)
    wait_time: dict[str, int] = field(default_factory=dict)  # us clients have waited in all, by database
    waits: dict[str, int] = field(default_factory=dict)  # how many times one was given a server; absent where not told
    missing: tuple[str, ...] = ()


class PoolerEnds(NamedTuple):
    """A pooler's own ends of its connections, told without its console. A unix socket has no address but its inode."""

    tcp: dict[Endpoint, TcpState]  # to databases
    unix: frozenset[int] = frozenset()  # of backends, at the far ends of its connections to databases
    unix_clients: int = 0  # of applications, on its unix socket


@dataclass(frozen=True, slots=True)
class Pooling:
    """All that is known of one pooler at one instant."""

    pooler: Pooler
    clients: list[Connection]  # of applications, over TCP
    ends: PoolerEnds
    reading: PoolerReading | None  # what its console told last


class Via(NamedTuple):
    """How a session came through a pooler."""

    pooler: str  # what people call it
    client: PoolerClient | None = None  # the application's connection, while one holds the session
    process: ClientProcess | None = None  # the application, where it runs on this host or node
    has_forgotten: bool = False  # the pooler has closed the connection while the session runs on
