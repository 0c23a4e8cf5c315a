"""What there is to look at on this host: servers, poolers, and the namespaces of applications.

The rule: what is found is replaced as a whole, so that another thread that reads it sees one look or the next. A server
is said once when it is met, and once when it is gone; the identity it was told by stays its own for as long as its
postmaster runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from pgsonar.model import SECOND, ClientSide, Process, Server
from pgsonar.pipeline.namespaces import Place
from pgsonar.pipeline.world import Sources
from pgsonar.tracking.listening import Listener, Listening
from pgsonar.tracking.poolers import PoolerTable
from pgsonar.tracking.readings import Readings, improved

log = logging.getLogger("pgsonar")

LIMIT_HINT = (
    "set receivers.sockets.targets[].max_connections, or run as the postgres user so that pg_control is readable"
)
SETTLED = 60 * SECOND  # after its start, what cannot be read of a server will not be
POOLER_ENDS = 5 * SECOND  # between two looks at the connections of poolers to databases


class Discovery:
    """Those that were found last."""

    def __init__(self, sources: Sources, readings: Readings, poolers: PoolerTable) -> None:
        self.servers: dict[str, Server] = {}
        self.sides: list[ClientSide] = []
        self._sources = sources
        self._readings = readings
        self._poolers = poolers
        self._told: dict[Process, str] = {}  # by postmaster: its identity
        self._warned: set[str] = set()  # of an unknown limit, by server

    def use(self, sources: Sources) -> None:
        """Goes on with others."""
        if sources.backends is not self._sources.backends:
            for server in self.servers.values():
                self._sources.backends.forget(server)
        self._sources = sources

    def find_servers(self, at: int) -> list[Server]:
        """Finds the servers that run now; returns those that are gone."""
        here = self._as_told(self._sources.finder.find(), at) if self._sources.sees_servers else []
        self._readings.settle(here)
        found = {server.id: self._with_login(server, at) for server in here}
        found |= {server.id: server for server in self._readings.remote(at)}
        for known in self.servers.values():
            now_there = found.get(known.id)
            if now_there is None or now_there.pid != known.pid:
                self._sources.backends.forget(known)
                self._sources.owners.forget(known.pid)
            if now_there is None:
                log.info("server %s is gone", known.label)
        for server in found.values():
            if server.id not in self.servers:
                _announce(server)
            if server.limits.ceiling is None and server.id not in self._warned:
                self._warned.add(server.id)
                log.warning("slots of %s are not judged: its limit is unknown (%s)", server.label, LIMIT_HINT)
        gone = [known for known in self.servers.values() if known.id not in found]
        self.servers = found
        return gone

    def _as_told(self, servers: Iterable[Server], at: int) -> list[Server]:
        """The servers by the identities they were told by, whatever one look may read; a target's name comes first.

        A file that is being written, or another server of the same key, makes no other server of one that runs. What
        one is called before it has a port and its identifier was read is no identity yet.
        """
        servers = list(servers)
        told = {key: self._told[key] for server in servers if (key := (server.pid, server.started)) in self._told}
        taken = set(told.values())
        as_told = []
        for server in servers:
            key = server.pid, server.started
            if not server.pid or server.name is not None:
                as_told.append(server)
                continue
            known = told.get(key) or (f"{server.id}#{server.pid}" if server.id in taken else server.id)
            is_read = server.system_identifier is not None or at - server.started >= SETTLED
            if is_read and server.port is not None:
                told[key] = known
            as_told.append(replace(server, id=known))
        self._told = told
        return as_told

    def _with_login(self, server: Server, at: int) -> Server:
        reading = self._readings.of(server.id, at)
        return server if reading is None else improved(server, reading)

    def find_poolers(self, at: int) -> None:
        """Finds the poolers that run now, and now and then the databases they are connected to."""
        if not self._sources.sees_servers:
            return
        table = self._poolers
        found = {pooler.id: pooler for pooler in self._sources.poolers.find()}
        for key, pooler in found.items():
            if key not in table.poolers:
                log.info("found PgBouncer at %s, pid %s", pooler.label, ", ".join(map(str, pooler.pids)))
        table.poolers = found
        if at - table.ends_at >= POOLER_ENDS or table.ends.keys() != found.keys():
            self.read_pooler_ends(at)

    def read_pooler_ends(self, at: int) -> None:
        """Reads which connections to databases each pooler has now."""
        ports = sorted({server.port for server in self.servers.values() if server.port is not None})
        poolers = self._poolers.poolers.items()
        self._poolers.ends_at = at
        self._poolers.ends = {key: self._sources.poolers.ends(pooler, ports) for key, pooler in poolers}

    def find_sides(self) -> None:
        """Finds the namespaces of applications, where they are watched."""
        self.sides = self._sources.applications.find() if self._sources.applications is not None else []

    def places(self) -> list[Place]:
        """Where sockets are watched."""
        return [*self._serving(), *self.sides]

    def served(self) -> dict[int, set[int]]:
        """By namespace of applications: the ports that servers and poolers there have."""
        serving = self._serving()
        return {
            side.netns: {place.port for place in serving if place.netns == side.netns and place.port}
            for side in self.sides
        }

    def listening(self) -> Listening:
        """Which servers and poolers listen where."""
        servers = [
            Listener(s.id, s.netns, s.port, None if s.listens_on is None else frozenset(s.listens_on))
            for s in self.servers.values()
            if s.netns and s.port is not None
        ]
        poolers = [
            Listener(p.id, p.netns, p.port, p.addresses or None, is_server=False)
            for p in self._poolers.poolers.values()
            if p.port is not None
        ]
        return Listening(servers + poolers)

    def _serving(self) -> list[Place]:
        return [*(s for s in self.servers.values() if s.netns), *self._poolers.poolers.values()]


def _announce(server: Server) -> None:
    limits = server.limits
    ceiling = (
        f"{limits.ceiling} slots for applications ({limits.source}{', a guess' if limits.guessed else ''})"
        if limits.ceiling is not None
        else "limit unknown"
    )
    log.info("found PostgreSQL %s at %s, %s, %s", server.version or "?", server.label, server.seen_by, ceiling)
