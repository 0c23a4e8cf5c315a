"""The newest answer of every source, as facts tell it.

The rule: who writes a recording and who plays it keep the same: the one to know what differs and what a key frame must
say, the other to answer from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pgsonar.model import (
    BackendSighting,
    ChangeKind,
    ClientProcess,
    ClientSide,
    DatabaseReading,
    Details,
    Pooler,
    PoolerEnds,
    PoolerReading,
    ScanStats,
    Server,
    Socket,
)
from pgsonar.sources import entries
from pgsonar.sources.clients import Hop, LocalEnd
from pgsonar.sources.entries import AnyFact, LogFigures

MILLISECOND = 1_000_000  # ns
MOST_CLIENTS = 10_000  # that are remembered; each is asked for once

Key = TypeVar("Key")
Value = TypeVar("Value")


class Answers:
    """Filled by apply(), told by facts()."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.poolers: list[Pooler] = []
        self.ends: dict[str, PoolerEnds] = {}
        self.sides: list[ClientSide] = []
        self.looks: dict[str, dict[int, BackendSighting]] = {}  # by server and pid
        self.inodes: dict[int, tuple[int, ...] | None] = {}
        self.connections: dict[int, dict[int, tuple[int, Socket]]] = {}  # by namespace and number: since when, and what
        self.details: dict[int, dict[int, Details]] = {}
        self.details_at: dict[int, int] = {}  # by namespace: until when its details have aged
        self.stats: dict[int, ScanStats] = {}
        self.overflows: dict[str, int | None] = {}
        self.clients: dict[Hop, tuple[ClientProcess | None, bool]] = {}
        self.local_clients: dict[LocalEnd, ClientProcess | None] = {}
        self.databases: dict[int, tuple[int, DatabaseReading]] = {}
        self.consoles: dict[int, tuple[int, PoolerReading]] = {}
        self.names: dict[str, str] = {}
        self.logs: dict[str, LogFigures] = {}
        self.pace = entries.PaceKept(0.1, 3_000_000_000, "configured")
        self._appliers: dict[type[AnyFact], Callable[[Any], None]] = {
            entries.Servers: self._servers,
            entries.Poolers: self._poolers,
            entries.Ends: lambda fact: self.ends.update({fact.pooler: fact.ends}),
            entries.Sides: lambda fact: setattr(self, "sides", fact.sides),
            entries.Changes: self._changes,
            entries.Present: self._present,
            entries.Told: self._told,
            entries.Scan: lambda fact: self.stats.update({fact.netns: fact.stats}),
            entries.Overflows: lambda fact: self.overflows.update({fact.directory: fact.count}),
            entries.Look: self._look,
            entries.Inodes: lambda fact: self.inodes.update({fact.pid: fact.inodes}),
            entries.Clients: self._clients,
            entries.LocalClients: lambda fact: _remember(self.local_clients, dict(fact.found)),
            entries.Database: lambda fact: self.databases.update({fact.index: (fact.holds, fact.reading)}),
            entries.Console: lambda fact: self.consoles.update({fact.index: (fact.holds, fact.reading)}),
            entries.Names: lambda fact: setattr(self, "names", fact.names),
            entries.Logs: lambda fact: setattr(self, "logs", fact.told),
            entries.PaceKept: lambda fact: setattr(self, "pace", fact),
        }

    def apply(self, fact: AnyFact) -> None:
        """Takes a fact in; ticks pass by."""
        applier = self._appliers.get(type(fact))
        if applier is not None:
            applier(fact)

    def facts(self) -> list[AnyFact]:
        """What brings another one to the same state; of connections a key frame tells more than is known here."""
        told: list[AnyFact] = [entries.Servers(self.servers), entries.Poolers(self.poolers), entries.Sides(self.sides)]
        told += [entries.Ends(pooler, ends) for pooler, ends in self.ends.items()]
        told += [entries.Look(server, list(seen.values()), [], []) for server, seen in self.looks.items()]
        told += [entries.Inodes(pid, inodes) for pid, inodes in self.inodes.items()]
        told += [entries.Told(netns, self.details_at[netns], there, []) for netns, there in self.details.items()]
        told += [entries.Scan(netns, stats) for netns, stats in self.stats.items()]
        told += [entries.Overflows(directory, count) for directory, count in self.overflows.items()]
        told.append(entries.Clients([(hop, *found) for hop, found in self.clients.items()]))
        told.append(entries.LocalClients(list(self.local_clients.items())))
        told += [entries.Database(index, *told_by) for index, told_by in self.databases.items()]
        told += [entries.Console(index, *told_by) for index, told_by in self.consoles.items()]
        return [*told, entries.Names(self.names), entries.Logs(self.logs), self.pace]

    def _servers(self, fact: entries.Servers) -> None:
        self.servers = fact.servers
        for gone in self.looks.keys() - {server.id for server in fact.servers}:
            for pid in self.looks.pop(gone):
                self.inodes.pop(pid, None)

    def _poolers(self, fact: entries.Poolers) -> None:
        self.poolers = fact.poolers
        ids = {pooler.id for pooler in fact.poolers}
        self.ends = {pooler: ends for pooler, ends in self.ends.items() if pooler in ids}

    def forget(self, netns: int) -> None:
        """Drops a namespace that is not watched any more."""
        for known in (self.connections, self.details, self.details_at, self.stats):
            known.pop(netns, None)

    def _changes(self, fact: entries.Changes) -> None:
        for number, at, netns, kind, _, socket, _ in fact.changes:
            there = self.connections.setdefault(netns, {})
            if kind == ChangeKind.CLOSED:
                there.pop(number, None)
            else:
                known = there.get(number)
                there[number] = at if known is None else known[0], socket

    def _present(self, fact: entries.Present) -> None:
        there = self.connections.setdefault(fact.netns, {})
        for number in fact.gone:
            there.pop(number, None)
        there.update({change[0]: (change[1], change[5]) for change in fact.changes})

    def _told(self, fact: entries.Told) -> None:
        known = self.details.setdefault(fact.netns, {})
        self.details_at[fact.netns] = fact.at
        known.update(fact.details)
        for number in fact.gone:
            known.pop(number, None)

    def _look(self, fact: entries.Look) -> None:
        known = self.looks.setdefault(fact.server, {})
        for pid in fact.gone:
            known.pop(pid, None)
            self.inodes.pop(pid, None)
        for sighting in fact.seen:
            known[sighting.pid] = sighting
        for pid, switches in fact.moved:
            known[pid] = known[pid]._replace(switches=switches)

    def _clients(self, fact: entries.Clients) -> None:
        _remember(self.clients, {hop: (client, is_astray) for hop, client, is_astray in fact.found})


def aged(details: Details, at: int) -> Details:
    """What TCP_INFO tells later of a connection on which nothing has happened."""
    passed = max(at - details.at, 0) // MILLISECOND
    return details._replace(
        at=details.at + passed * MILLISECOND,
        last_sent=details.last_sent + passed,
        last_received=details.last_received + passed,
        last_ack=details.last_ack + passed,
    )


def _remember(known: dict[Key, Value], new: dict[Key, Value]) -> None:
    known.update(new)
    while len(known) > MOST_CLIENTS:
        del known[next(iter(known))]
