"""The network namespaces that servers live in: how each is read, and how well.

The rule: a namespace is scanned once, however many servers live in it; and what is said of a server's sockets is as
good as the last complete scan of its namespace.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pgsonar.errors import ScanError
from pgsonar.model import SECOND, ClientSide, Pooler, ScanStats, Server
from pgsonar.pipeline.world import SocketSource
from pgsonar.sources.privileges import ENTERS_NAMESPACES
from pgsonar.sources.sockets import source_name

log = logging.getLogger("pgsonar")

Place = Server | Pooler | ClientSide  # what ports are watched for

OVERFLOW_STANDS = 10 * SECOND  # SYNs of clients that were dropped come again after 1, 2 and 4 s


class Ports(NamedTuple):
    """What is watched in a namespace."""

    numbers: frozenset[int]
    remote_too: bool  # a port may also be at the far end


class _Namespace:
    """What is remembered of one watched network namespace."""

    def __init__(self, net_directory: str, ports: Ports, at: int) -> None:
        self.net_directory = net_directory
        self.ports = ports
        self.watched_at = at
        self.stats: ScanStats | None = None
        self.max_gap = 0
        self.exported: tuple[int, int] = (at, 0)  # instant and number of scans at the last export
        self.overflows: int | None = None
        self.new_overflows: int | None = None  # since the read before; 0 at the first
        self.overflowed_at: int | None = None

    def read_overflows(self, now: int | None, at: int) -> None:
        self.new_overflows = None if now is None else max(0, now - self.overflows) if self.overflows is not None else 0
        if self.new_overflows:
            self.overflowed_at = at
        self.overflows = now


class Namespaces:
    """Those watched by one sampler, by their number."""

    def __init__(
        self,
        sampler: SocketSource,
        listen_overflows: Callable[[str], int | None],
        *,
        source: str,
        destroy_events: str,
        proc: str,
    ) -> None:
        self._sampler = sampler
        self._listen_overflows = listen_overflows
        self._source = source
        self._destroy_events = destroy_events
        self._proc = proc
        self._namespaces: dict[int, _Namespace] = {}
        self._refused: set[int] = set()  # told once

    def watch(self, places: Iterable[Place], at: int) -> list[int]:
        """Watches the namespaces and ports of these and no others; returns the namespaces that are given up."""
        by_namespace: dict[int, list[Place]] = {}
        for place in places:
            if place.port is not None or isinstance(place, ClientSide):
                by_namespace.setdefault(place.netns, []).append(place)
        self._refused &= by_namespace.keys()
        given_up = [netns for netns in self._namespaces if netns not in by_namespace]
        for netns in given_up:
            self._sampler.unwatch(netns)
            del self._namespaces[netns]
        for netns, there in by_namespace.items():
            far = [place.ports for place in there if isinstance(place, ClientSide)]
            near = frozenset(place.port for place in there if place.port is not None)
            ports = Ports(near.union(*far), bool(far))
            known = self._namespaces.get(netns)
            if known is None:
                self._begin(netns, there[0], ports, at)
                continue
            known.net_directory = self._directory(there[0])  # the process it was met by may have ended
            if known.ports != ports:
                self._sampler.set_ports(netns, ports.numbers, remote_too=ports.remote_too)
                known.ports = ports
        return given_up

    def _begin(self, netns: int, place: Place, ports: Ports, at: int) -> None:
        process = f"{self._proc}/{place.pid or 'self'}"
        directory = self._directory(place)
        try:
            self._sampler.watch(
                netns,
                directory,
                ports.numbers,
                remote_too=ports.remote_too,
                netns_file=f"{process}/ns/net",
                source=self._source,
                events=self._destroy_events,
            )
        except ScanError as error:
            if netns not in self._refused:
                self._refused.add(netns)
                log.warning("cannot scan the sockets of %s: %s (%s)", place.label, error, error.hint)
            return
        self._namespaces[netns] = _Namespace(directory, ports, at)
        stats = self._sampler.stats(netns)
        log.info("sockets of %s are read by %s%s", place.label, source_name(stats.source), _why_not(stats))

    def _directory(self, place: Place) -> str:
        return f"{self._proc}/{place.pid or 'self'}/net"

    def use(self, *, source: str, destroy_events: str) -> list[int]:
        """Goes on as another configuration has it; returns the namespaces that are given up until they are watched."""
        if (source, destroy_events) == (self._source, self._destroy_events):
            return []
        self._source, self._destroy_events = source, destroy_events
        self._refused.clear()
        return self.watch((), 0)

    def read(self, at: int) -> list[int]:
        """Reads how the scanning goes; returns the namespaces of which changes were lost since the last time."""
        lost = []
        for netns, namespace in self._namespaces.items():
            before, stats = namespace.stats, self._sampler.stats(netns)
            namespace.stats = stats
            if before is not None and before.source != stats.source:
                name = source_name(stats.source)
                log.warning("network namespace %d is read by %s now%s", netns, name, _why_not(stats))
            namespace.max_gap = max(namespace.max_gap, stats.max_gap)
            if stats.lost_changes != (before.lost_changes if before is not None else 0):
                lost.append(netns)
            namespace.read_overflows(self._listen_overflows(namespace.net_directory), at)
        return lost

    def watched(self) -> list[int]:
        """Those that are scanned."""
        return list(self._namespaces)

    def is_fresh(self, netns: int, at: int, patience: int) -> bool:
        """Whether its last complete scan is less than `patience` ns old."""
        namespace = self._namespaces.get(netns)
        return namespace is not None and namespace.stats is not None and at - namespace.stats.last_at < patience

    def is_stale(self, netns: int, at: int, patience: int) -> bool:
        """Whether it is watched, and was not scanned completely for so long."""
        namespace = self._namespaces.get(netns)
        if namespace is None:
            return False
        return at - max(namespace.watched_at, namespace.stats.last_at if namespace.stats else 0) >= patience

    def is_overflowing(self, netns: int, at: int) -> bool:
        """Whether the kernel has dropped clients of a full accept queue lately."""
        namespace = self._namespaces.get(netns)
        overflowed = namespace.overflowed_at if namespace is not None else None
        return overflowed is not None and at - overflowed < OVERFLOW_STANDS

    def new_overflows(self, netns: int) -> int | None:
        """How much ListenOverflows grew between the last two reads; None when it cannot be read."""
        namespace = self._namespaces.get(netns)
        return namespace.new_overflows if namespace is not None else None

    def take_rates(self, at: int) -> tuple[dict[int, ScanStats], dict[int, float]]:
        """The totals with the longest gap, and complete scans a second, both since the last call."""
        scans, rates = {}, {}
        for netns, namespace in self._namespaces.items():
            if namespace.stats is None:
                continue
            scans[netns] = namespace.stats._replace(max_gap=namespace.max_gap)
            before, number = namespace.exported
            rates[netns] = (namespace.stats.scans - number) * SECOND / max(at - before, 1)
            namespace.exported, namespace.max_gap = (at, namespace.stats.scans), 0
        return scans, rates

    def cpu(self) -> int:
        """CPU time of the scanning thread so far, ns."""
        return sum(namespace.stats.cpu for namespace in self._namespaces.values() if namespace.stats)

    def report(self) -> list[dict[str, object]]:
        """How each is read, for the health answer."""
        return [
            {
                "netns": netns,
                "source": source_name(stats.source),
                "reason": _why_not(stats).removeprefix(": ") or None,
                "unseen": stats.unseen,
                "ends_told": bool(stats.events_on),
                "ends_refused": os.strerror(stats.events_refusal) if stats.events_refusal else None,
            }
            for netns, namespace in list(self._namespaces.items())
            if (stats := namespace.stats)
        ]


def _why_not(stats: ScanStats) -> str:
    """What keeps a namespace from sock_diag, which costs less; empty when nothing does."""
    if not stats.refusal:
        return ""
    hint = f" ({ENTERS_NAMESPACES} enters another namespace)" if stats.refusal in {errno.EPERM, errno.EACCES} else ""
    return f": sock_diag is refused, {os.strerror(stats.refusal)}{hint}"
