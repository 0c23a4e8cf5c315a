"""Which sessions came through PgBouncer, and whose they are: the application's connection, the pooler, the backend.

The rule: the pooler's end of a server connection is the client's end in the database's eyes, so the address and port
join the two; over a unix socket the backend's pid does. A pooler is named, and never taken for the culprit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import product

from pgsonar.model import (
    LOCAL_HOST,
    SECOND,
    Backend,
    ClientProcess,
    Connection,
    Endpoint,
    Pool,
    Pooler,
    PoolerClient,
    PoolerEnds,
    PoolerReading,
    PoolerServer,
    PoolerSight,
    Server,
    TcpState,
    Via,
)
from pgsonar.tracking.backends import note_way
from pgsonar.tracking.earlier import EarlierRun

LONG_WAIT = 5.0  # seconds of the oldest waiting client: below, a pool is merely in use

_LOOPBACKS = {"localhost", "127.0.0.1", "::1"}
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared with


class PoolerTable:
    """The poolers of this host, and what consoles told last, also those of poolers elsewhere."""

    def __init__(self, earlier: EarlierRun) -> None:
        self._earlier = earlier
        self.poolers: dict[str, Pooler] = {}
        self.ends: dict[str, PoolerEnds] = {}  # by pooler: its ends of connections to databases
        self.ends_at = 0  # when these were read
        self._readings: dict[Endpoint, tuple[PoolerReading, int]] = {}
        self._processes: dict[tuple[Endpoint, str, Endpoint], ClientProcess | None] = {}
        self._waiting: dict[Endpoint, dict[tuple[str, str], int]] = {}
        self._held: dict[Endpoint, dict[tuple[str, str, str], int]] = {}  # by (ptr, link, last request) of clients

    def take(self, reading: PoolerReading, holds: int) -> None:
        """Notes a reading, which holds for so many ns."""
        self._note_since(reading)
        self._readings[reading.endpoint] = reading, holds
        there = {(c.ptr, Endpoint(c.address, c.port)) for c in reading.clients if c.address and c.port}
        self._processes = {
            key: client
            for key, client in self._processes.items()
            if key[0] != reading.endpoint or (key[1], key[2]) in there
        }

    def _note_since(self, reading: PoolerReading) -> None:
        """Since when clients of each pool wait, and since when each client that holds a server asks for nothing."""
        waiting, held = self._waiting.get(reading.endpoint, {}), self._held.get(reading.endpoint, {})
        self._waiting[reading.endpoint] = {
            (pool.database, pool.user): waiting.get(
                (pool.database, pool.user), reading.at - round(pool.max_wait * SECOND)
            )
            for pool in reading.pools
            if pool.clients_waiting and pool.max_wait >= LONG_WAIT and not pool.paused
        }
        there = [(client.ptr, client.link, client.request) for client in reading.clients]
        self._held[reading.endpoint] = {
            (ptr, link, request): held.get((ptr, link, request), reading.at)
            for ptr, link, request in there
            if link is not None and request is not None
        }

    def sights(self, at: int) -> list[PoolerSight]:
        """What each console told last, as the detectors look at it; also of poolers elsewhere."""
        sights = []
        for reading in self.readings(at):
            pooler = next((p for p in self.poolers.values() if _is_of(reading, p)), None)
            server = Server(
                id=pooler.id if pooler is not None else f"pgbouncer@{reading.endpoint}",
                pid=pooler.pid if pooler is not None else 0,
                started=0,
                netns=pooler.netns if pooler is not None else 0,
                port=reading.endpoint.port,
                address=pooler.address if pooler is not None else reading.endpoint.address,
                version=reading.version,
                what="pgbouncer",
            )
            quiet = {ptr: since for (ptr, _, _), since in self._held[reading.endpoint].items()}
            sights.append(PoolerSight(server, reading, at, self._waiting[reading.endpoint], quiet))
        return sights

    def readings(self, at: int) -> list[PoolerReading]:
        """Those that hold still."""
        return [reading for reading, holds in self._readings.values() if at - reading.at < holds]

    def of(self, pooler: Pooler, at: int) -> PoolerReading | None:
        """What the consoles of a pooler of this host told: processes that share a port have one each."""
        there = [reading for reading in self.readings(at) if _is_of(reading, pooler)]
        # Over TCP any of several processes may have answered; a unix socket is one's own.
        own = [reading for reading in there if reading.endpoint.address.startswith("/")]
        return _together(own if len(pooler.pids) > 1 and own else there[:1]) if there else None

    def ends_of(self, pooler: Pooler) -> PoolerEnds:
        """Its ends, as they were read last."""
        return self.ends.get(pooler.id, PoolerEnds({}))

    def join(self, server: Server, backends: Collection[Backend], at: int) -> None:
        """Tells each backend the way its session came."""
        by_end: dict[Endpoint, tuple[PoolerReading, PoolerServer]] = {}
        by_pid: dict[int, tuple[PoolerReading, PoolerServer]] = {}
        clients: dict[tuple[Endpoint, str], PoolerClient] = {}
        for reading in self.readings(at):
            clients |= {(reading.endpoint, client.ptr): client for client in reading.clients}
            for one in reading.servers:
                if one.local is not None and one.remote is not None and one.remote.port == server.port:
                    by_end[one.local] = reading, one
                elif one.local is None and one.backend_pid is not None:
                    by_pid[one.backend_pid] = reading, one
        self._recall(server, backends)
        owner = {end: pooler for pooler, ends in self.ends.items() for end in ends.tcp}
        local_owner = {inode: pooler for pooler, ends in self.ends.items() for inode in ends.unix}
        if not (by_end or by_pid or self.poolers) and all(backend.via is None for backend in backends):
            return
        for backend in backends:
            if closed_at(backend):
                continue  # the way it came is known from before
            end = _client_end(backend)
            known = by_end.get(end) if end is not None else by_pid.get(backend.inner_pid)
            if known is not None and (end is not None or known[1].user == backend.user):
                reading, one = known
                client = clients.get((reading.endpoint, one.link)) if one.link else None
                note_way(backend, Via(self._label(reading), client, self._process(reading.endpoint, client)))
            elif near := next((local_owner[i] for i in backend.inodes or () if i in local_owner), None):
                note_way(backend, Via(self.poolers[near].label))
            elif end in owner:
                note_way(backend, Via(self.poolers[owner[end]].label))
            elif backend.via is not None:  # who holds it now, nobody tells
                note_way(backend, Via(backend.via.pooler))

    def _recall(self, server: Server, backends: Iterable[Backend]) -> None:
        if self._earlier.is_over:
            return
        for backend in backends:
            if backend.via is None and _is_closed(backend):
                label = self._earlier.forgetful_pooler(server.id, backend.pid)
                note_way(backend, Via(label, has_forgotten=True) if label is not None else None)

    def judge(self, backends: Iterable[Backend], at: int) -> None:
        """Marks sessions whose pooler has closed the connection and owns no end of it any more."""
        live = {end for ends in self.ends.values() for end in ends.tcp}
        listed = {(server.local, reading.at) for reading in self.readings(at) for server in reading.servers}
        for backend in backends:
            since = closed_at(backend)
            if not since or backend.via is None or backend.connection is None:
                continue
            end = backend.connection.socket.remote
            is_held = end in live or any(one == end and told_at > since for one, told_at in listed)
            note_way(backend, backend.via._replace(has_forgotten=not is_held))

    def hops(self, backend: Backend, at: int) -> tuple[int, Endpoint, Endpoint] | None:
        """The application's connection behind a backend (namespace, pooler's end, application's end), to look for."""
        client = backend.via.client if backend.via is not None else None
        if client is None or client.local is None or client.address is None or client.port is None:
            return None
        for pooler, reading in product(self.poolers.values(), self.readings(at)):
            if _is_of(reading, pooler) and client in reading.clients:
                key = reading.endpoint, client.ptr, Endpoint(client.address, client.port)
                return None if key in self._processes else (pooler.netns, client.local, key[2])
        return None

    def note_process(self, backend: Backend, process: ClientProcess | None, at: int) -> None:
        """Remembers who the application is, for as long as its connection stands."""
        client = backend.via.client if backend.via is not None else None
        if backend.via is None or client is None or client.address is None or client.port is None:
            return
        for reading in self.readings(at):
            if client in reading.clients:
                self._processes[reading.endpoint, client.ptr, Endpoint(client.address, client.port)] = process
        note_way(backend, backend.via._replace(process=process))

    def _process(self, endpoint: Endpoint, client: PoolerClient | None) -> ClientProcess | None:
        if client is None or client.address is None or client.port is None:
            return None
        return self._processes.get((endpoint, client.ptr, Endpoint(client.address, client.port)))

    def _label(self, reading: PoolerReading) -> str:
        here = next((p for p in self.poolers.values() if _is_of(reading, p)), None)
        return here.label if here is not None else str(reading.endpoint)


def _together(readings: list[PoolerReading]) -> PoolerReading:
    """The pools of all processes as one: each has its own share of the clients and of the server connections."""
    first, *others = readings
    if not others:
        return first
    pools: dict[tuple[str, str], list[Pool]] = {}
    waited: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    for reading in readings:
        waited.update(reading.wait_time)
        waits.update(reading.waits)
        for pool in reading.pools:
            pools.setdefault((pool.database, pool.user), []).append(pool)
    return replace(
        first,
        pools=tuple(_sum(same) for same in pools.values()),
        clients=tuple(client for reading in readings for client in reading.clients),
        servers=tuple(server for reading in readings for server in reading.servers),
        wait_time=dict(waited),
        waits=dict(waits),
        missing=tuple(sentence for reading in readings for sentence in reading.missing),
    )


def _sum(pools: list[Pool]) -> Pool:
    sizes = [pool.size for pool in pools if pool.size is not None]
    return pools[0]._replace(
        clients_active=sum(pool.clients_active for pool in pools),
        clients_waiting=sum(pool.clients_waiting for pool in pools),
        servers_active=sum(pool.servers_active for pool in pools),
        servers_idle=sum(pool.servers_idle for pool in pools),
        servers_other=sum(pool.servers_other for pool in pools),
        max_wait=max(pool.max_wait for pool in pools),
        size=sum(sizes) if sizes else None,
        paused=all(pool.paused for pool in pools),
    )


def _is_of(reading: PoolerReading, pooler: Pooler) -> bool:
    endpoint = reading.endpoint
    if endpoint.port != pooler.port:
        return False
    if endpoint.address.startswith("/"):
        return endpoint.address in pooler.socket_directories
    if endpoint.address in _LOOPBACKS:
        return pooler.is_here
    return endpoint.address == pooler.address or endpoint.address in pooler.addresses


def closed_at(backend: Backend) -> int:
    """When the pooler closed a session's connection; 0 while it has not."""
    if backend.via is None or backend.connection is None or not _is_closed(backend):
        return 0
    return backend.connection.state_since


def _is_closed(backend: Backend) -> bool:
    return backend.connection is not None and backend.connection.socket.state == TcpState.CLOSE_WAIT


def _client_end(backend: Backend) -> Endpoint | None:
    """The client's end of a backend's connection, as the database has it."""
    if backend.connection is not None:
        return backend.connection.socket.remote
    title = backend.title
    if title.host is None or title.host == LOCAL_HOST or title.port is None:
        return None
    return Endpoint(title.host, title.port)


def is_on(connection: Connection, pooler: Pooler) -> bool:
    """Whether a connection is one of an application to a pooler."""
    local = connection.socket.local
    anywhere = not pooler.addresses or pooler.addresses & _WILDCARDS
    return (
        connection.netns == pooler.netns
        and local.port == pooler.port
        and connection.socket.state != TcpState.LISTEN
        and (bool(anywhere) or local.address in pooler.addresses)
    )
