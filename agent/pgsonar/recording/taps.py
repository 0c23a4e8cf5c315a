"""Sources as the pipeline has them, overheard: what differs from the last answer is told to somebody else as well.

The rule: an answer is passed on as it came. What does not differ costs a comparison and nothing more: titles are read
four times a second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from pgsonar.model import (
    BackendSighting,
    ClientProcess,
    ClientSide,
    DatabaseReading,
    Details,
    LogCounts,
    Pooler,
    PoolerEnds,
    PoolerReading,
    ScanStats,
    Server,
)
from pgsonar.pipeline.world import (
    AnswerSource,
    BackendSource,
    ClientSource,
    InodeSource,
    LogSource,
    Pace,
    PoolerSource,
    ServerSource,
    SideSource,
    SocketSource,
    Sources,
)
from pgsonar.sources import entries
from pgsonar.sources.answers import MILLISECOND, Answers, aged
from pgsonar.sources.clients import Hop, LocalEnd
from pgsonar.sources.entries import AnyFact, LogFigures
from pgsonar.sources.sockets import SocketChange

Answer = TypeVar("Answer")
Source = TypeVar("Source")
Put = Callable[[AnyFact], None]

# Of model.Details: all but its instant and its ages.
_BYTES = slice(1, Details._fields.index("last_sent"))
_REST = slice(Details._fields.index("last_ack") + 1, None)
AS_OLD = 20_000_000  # ns: ages in TCP_INFO are as exact as two of the kernel's clock ticks


def tapped(sources: Sources, put: Put, told: Answers) -> Sources:
    """The same sources; `told` is what was put so far."""
    applications, names, logs = sources.applications, sources.names, sources.logs

    def listen_overflows(directory: str) -> int | None:
        count = sources.listen_overflows(directory)
        if directory not in told.overflows or told.overflows[directory] != count:
            put(entries.Overflows(directory, count))
        return count

    return replace(
        Sources(**vars(sources)),
        sampler=_Sampler(sources.sampler, put, told),
        finder=_Finder(sources.finder, put, told),
        backends=_Backends(sources.backends, put, told),
        owners=_Owners(sources.owners, put, told),
        clients=_Clients(sources.clients, put, told),
        listen_overflows=listen_overflows,
        budget=_Pace(sources.budget, put, told),
        poolers=_Poolers(sources.poolers, put, told),
        databases=[
            _Poller(poller, partial(_put_database, put, index)) for index, poller in enumerate(sources.databases)
        ],
        consoles=[_Poller(poller, partial(_put_console, put, index)) for index, poller in enumerate(sources.consoles)],
        applications=_Sides(applications, put, told) if applications is not None else None,
        names=_Poller(names, partial(_put_names, put)) if names is not None else None,
        logs=_Logs(logs, put, told) if logs is not None else None,
    )


def _put_database(put: Put, index: int, reading: DatabaseReading, holds: int) -> None:
    put(entries.Database(index, holds, reading))


def _put_console(put: Put, index: int, reading: PoolerReading, holds: int) -> None:
    put(entries.Console(index, holds, reading))


def _put_names(put: Put, names: dict[str, str], holds: int) -> None:
    _ = holds
    put(entries.Names(names))


class _Tap(Generic[Source]):
    def __init__(self, of: Source, put: Put, told: Answers) -> None:
        self._of = of
        self._put = put
        self._told = told


class _Sampler(_Tap[SocketSource]):
    def __init__(self, of: SocketSource, put: Put, told: Answers) -> None:
        super().__init__(of, put, told)
        self.watch = of.watch
        self.set_ports = of.set_ports

    def unwatch(self, netns: int) -> None:
        self._of.unwatch(netns)
        self._told.forget(netns)

    def changes(self) -> list[SocketChange]:
        changes = list(self._of.changes())
        if changes:
            self._put(entries.Changes(changes))
        return changes

    def open_connections(self, netns: int) -> list[SocketChange]:
        present = list(self._of.open_connections(netns))
        known = self._told.connections.get(netns, {})
        new = [change for change in present if known.get(change[0]) != (change[1], change[5])]
        gone = list(known.keys() - {change[0] for change in present}) if len(known) + len(new) != len(present) else []
        if new or gone:
            self._put(entries.Present(netns, new, gone))
        return present

    def details(self, netns: int) -> Mapping[int, Details]:
        details = self._of.details(netns)
        known = self._told.details.get(netns, {})
        at = max((told.at for told in details.values()), default=0)
        moved = {n: told for n, told in details.items() if n not in known or not _stands(known[n], told, at)}
        gone = [number for number in known if number not in details]
        if moved or gone or at != self._told.details_at.get(netns, 0):
            self._put(entries.Told(netns, at, moved, gone))
        return details

    def stats(self, netns: int) -> ScanStats:
        stats = self._of.stats(netns)
        if self._told.stats.get(netns) != stats:
            self._put(entries.Scan(netns, stats))
        return stats


def _stands(before: Details, now: Details, at: int) -> bool:
    """Whether nothing has happened on a connection: what was told of it has aged until `at`, and no more."""
    if before[_BYTES] != now[_BYTES] or before[_REST] != now[_REST]:
        return False
    then = aged(before, at)
    ages = (then.last_sent - now.last_sent, then.last_received - now.last_received, then.last_ack - now.last_ack)
    return all(abs(age) * MILLISECOND <= AS_OLD for age in ages) and abs(then.at - now.at) <= AS_OLD


class _Finder(_Tap[ServerSource]):
    def find(self) -> list[Server]:
        servers = self._of.find()
        if servers != self._told.servers:
            self._put(entries.Servers(list(servers)))
        return servers


class _Backends(_Tap[BackendSource]):
    def forget(self, server: Server) -> None:
        self._of.forget(server)

    def read(self, server: Server, *, at: int) -> list[BackendSighting]:
        sightings = self._of.read(server, at=at)
        known = self._told.looks.get(server.id, {})
        seen: list[BackendSighting] = []
        moved: list[tuple[int, int | None]] = []
        new = 0
        for sighting in sightings:
            before = known.get(sighting.pid)
            if before is None:
                new += 1
                seen.append(sighting)
            elif before.title is not sighting.title or before.started != sighting.started:
                seen.append(sighting)
            elif before.switches != sighting.switches:
                moved.append((sighting.pid, sighting.switches))
        gone: list[int] = []
        if len(known) + new != len(sightings):
            present = {sighting.pid for sighting in sightings}
            gone = [pid for pid in known if pid not in present]
        if seen or moved or gone:
            self._put(entries.Look(server.id, seen, moved, gone))
        return sightings


class _Owners(_Tap[InodeSource]):
    def forget(self, postmaster: int) -> None:
        self._of.forget(postmaster)

    def inodes(self, pid: int, *, postmaster: int) -> tuple[int, ...] | None:
        inodes = self._of.inodes(pid, postmaster=postmaster)
        if pid not in self._told.inodes or self._told.inodes[pid] != inodes:
            self._put(entries.Inodes(pid, inodes))
        return inodes


class _Clients(_Tap[ClientSource]):
    @property
    def astray(self) -> Collection[Hop]:
        return self._of.astray

    def find(self, hops: Iterable[Hop], *, in_place: bool = False) -> dict[Hop, ClientProcess | None]:
        found = self._of.find(hops, in_place=in_place)
        known, astray = self._told.clients, self._of.astray
        new = [(h, c, h in astray) for h, c in found.items() if known.get(h, _UNKNOWN) != (c, h in astray)]
        if new:
            self._put(entries.Clients(new))
        return found

    def find_local(self, ends: Iterable[LocalEnd]) -> dict[LocalEnd, ClientProcess | None]:
        found = self._of.find_local(ends)
        known = self._told.local_clients
        new = [(end, client) for end, client in found.items() if end not in known or known[end] != client]
        if new:
            self._put(entries.LocalClients(new))
        return found


_UNKNOWN = object()


class _Poolers(_Tap[PoolerSource]):
    def find(self) -> list[Pooler]:
        poolers = self._of.find()
        if poolers != self._told.poolers:
            self._put(entries.Poolers(list(poolers)))
        return poolers

    def ends(self, pooler: Pooler, ports: Sequence[int]) -> PoolerEnds:
        ends = self._of.ends(pooler, ports)
        if self._told.ends.get(pooler.id) != ends:
            self._put(entries.Ends(pooler.id, ends))
        return ends


class _Sides(_Tap[SideSource]):
    def find(self) -> list[ClientSide]:
        sides = self._of.find()
        if sides != self._told.sides:
            self._put(entries.Sides(list(sides)))
        return sides


class _Poller(Generic[Answer]):
    """Answers are told as they come."""

    def __init__(self, of: AnswerSource[Answer], put: Callable[[Answer, int], None]) -> None:
        self._of = of
        self._put = put

    @property
    def holds(self) -> int:
        return self._of.holds

    @property
    def problem(self) -> str | None:
        return self._of.problem

    def take(self) -> Answer | None:
        answer = self._of.take()
        if answer is not None:
            self._put(answer, self._of.holds)
        return answer


class _Logs(_Tap[LogSource]):
    def problems(self) -> list[str]:
        return self._of.problems()

    def read(self, servers: Sequence[Server]) -> dict[str, LogCounts]:
        logs = self._of.read(servers)
        figures = {
            server: LogFigures(dict(log.by_class), log.skipped_bytes, dict(log.by_name)) for server, log in logs.items()
        }
        if figures != self._told.logs:
            self._put(entries.Logs(figures))
        return logs


class _Pace(_Tap[Pace]):
    @property
    def interval(self) -> float:
        return self._of.interval

    @property
    def patience(self) -> int:
        now = entries.PaceKept(self._of.interval, self._of.patience, self._of.reason)
        if now != self._told.pace:
            self._put(now)
        return self._of.patience

    @property
    def reason(self) -> str:
        return self._of.reason
