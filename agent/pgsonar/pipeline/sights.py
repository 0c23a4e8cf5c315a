"""What is known of one server or pooler now, drawn together from the tables that remember it.

The rule: a sight is made for one instant and kept by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgsonar.model import Pooler, Pooling, Server, Sight, TcpState
from pgsonar.pipeline.closer import Sessions
from pgsonar.pipeline.namespaces import Namespaces
from pgsonar.tracking.backends import BackendTable
from pgsonar.tracking.connections import ConnectionTable
from pgsonar.tracking.correlation import owners
from pgsonar.tracking.growth import IdleGrowth
from pgsonar.tracking.ledger import slot_ledger
from pgsonar.tracking.poolers import PoolerTable, is_on
from pgsonar.tracking.readings import Readings
from pgsonar.tracking.refusals import SLOTS, Refusals


@dataclass(frozen=True)
class Sights:
    """The tables it takes."""

    connections: ConnectionTable
    backends: BackendTable
    readings: Readings
    poolers: PoolerTable
    refusals: Refusals
    growth: IdleGrowth
    namespaces: Namespaces

    def fresh(self, servers: Iterable[Server], at: int, patience: int) -> list[Sight]:
        """Of the servers whose last complete scan is less than `patience` ns old."""
        return [
            self.of_server(server, at)
            for server in servers
            if server.port is None or not server.netns or self.namespaces.is_fresh(server.netns, at, patience)
        ]

    def of_server(self, server: Server, at: int) -> Sight:
        """All that is known of one server."""
        backends = self.backends.of_server(server.id)
        reading = self.readings.of(server.id, at)
        own = self.connections.of_server(server.id)
        refused = self.refusals.lately(server.id)
        reconciliation = self.readings.reconciliations.get(server.id) if reading else None
        return Sight(
            server=server,
            backends=backends,
            connections=[c for c in own if c.socket.state != TcpState.LISTEN],
            listeners=[c for c in own if c.socket.state == TcpState.LISTEN],
            ledger=slot_ledger(server, backends, reconciliation),
            at=at,
            backend_of=owners(backends),
            overflowing=self.namespaces.is_overflowing(server.netns, at),
            reading=reading,
            refused=refused.pop(SLOTS, 0),
            refused_by=refused,
            growth=self.growth.observe(server.id, backends, at),
            opened=self.growth.opened_lately(server.id),
            thrash=tuple(self.connections.churn.thrashing(server.id, at)),
            unlisted=reconciliation.standing if reconciliation is not None else {},
        )

    def of_pooler(self, pooler: Pooler, at: int) -> Pooling:
        """All that is known of one pooler."""
        clients = [c for c in self.connections.of_namespace(pooler.netns) if is_on(c, pooler)]
        return Pooling(pooler, clients, self.poolers.ends_of(pooler), self.poolers.of(pooler, at))

    def sessions(self, servers: Iterable[Server], at: int) -> list[Sessions]:
        """Every server's backends, and when its login has told of them last."""
        sessions = []
        for server in servers:
            reading = self.readings.of(server.id, at)
            told_at = reading.at if reading is not None else None
            sessions.append(Sessions(server.netns, self.backends.of_server(server.id), told_at))
        return sessions
