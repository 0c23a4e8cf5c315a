"""All that is known of one server at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pgsonar.model.backends import Backend
from pgsonar.model.connections import Connection
from pgsonar.model.poolers import PoolerReading
from pgsonar.model.servers import Limits, Server
from pgsonar.model.sessions import DatabaseReading


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who holds the slots of one server, without asking it. `holders` is disjoint and sums to `used`."""

    server: str
    limits: Limits
    holders: dict[str, int]  # session, authenticating, starting, orphan, unaccounted
    by_transport: dict[tuple[str, str], int]  # (holder, tcp or unix)
    no_slot: dict[str, int]  # walsender, worker, prestartup: children that hold none
    is_told: bool = True  # False: neither processes nor a login tell who holds slots
    database_sees: int | None = None  # client sessions in pg_stat_activity; None without a login
    gap: int | None = None  # slots it does not list, in two readings in a row
    cause: str | None = None  # of the gap

    @property
    def used(self) -> int:
        return sum(self.holders.values())

    @property
    def unix(self) -> int:
        return sum(count for (_, transport), count in self.by_transport.items() if transport == "unix")

    @property
    def utilization(self) -> float | None:
        """Used / ceiling, which may pass 1; None while one of them is unknown."""
        return self.used / self.limits.ceiling if self.limits.ceiling and self.is_told else None


Process = tuple[int, int]  # pid, start: pids return


class Growth(NamedTuple):
    """The idle connections of one user from one address, growing in number."""

    onset: int  # the first window of growth began
    members: frozenset[Process]  # backends on whose connection no byte moved for long
    all: int  # connections of that user from there, members included
    normal: int  # members before they grew
    opened: int  # connections since the onset
    closed: int


class Thrash(NamedTuple):
    """A client that opens a connection for each thing it does."""

    client: str  # address
    since: int
    rate: float  # short connections a second


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is known of one server at one instant: what the detectors look at."""

    server: Server
    backends: list[Backend]
    connections: list[Connection]  # on the server's port, not LISTEN
    listeners: list[Connection]
    ledger: Ledger
    at: int
    backend_of: dict[int, Backend]  # by connection id
    overflowing: bool = False  # the kernel dropped clients of a full accept queue within the last ten seconds
    reading: DatabaseReading | None = None  # what its login told last
    refused: int = 0  # clients refused for want of a slot within the last minute, as its log tells
    refused_by: Mapping[tuple[str, str], int] = field(default_factory=dict)  # the same by ("role" or "database", name)
    growth: Mapping[str, Growth] = field(default_factory=dict)  # by user@address
    opened: Mapping[str, int] = field(default_factory=dict)  # by user@address: sessions within the last minute
    thrash: tuple[Thrash, ...] = ()
    unlisted: Mapping[Process, int] = field(default_factory=dict)  # slots its login does not list, and since when

    @property
    def backlog(self) -> int:
        """Connections that wait to be accepted."""
        return sum(listener.socket.rx_queue for listener in self.listeners)

    @property
    def backlog_limit(self) -> int | None:
        """How many may wait on each address; only sock_diag tells."""
        limits = [listener.socket.tx_queue for listener in self.listeners if listener.socket.tx_queue]
        return min(limits) if limits else None


@dataclass(frozen=True, slots=True)
class PoolerSight:
    """What one console of a PgBouncer told last, and since when that is so."""

    server: Server  # the pooler, as what leaks are told of
    reading: PoolerReading
    at: int
    waiting_since: Mapping[tuple[str, str], int]  # by database and user: clients of a pool have waited long
    quiet_since: Mapping[str, int]  # by a client's ptr: it holds the same server connection and has asked for nothing


@dataclass(frozen=True, slots=True)
class ClientSight:
    """This host's connections to one database elsewhere."""

    server: Server  # the database, as what leaks are told of
    connections: list[Connection]
    at: int
