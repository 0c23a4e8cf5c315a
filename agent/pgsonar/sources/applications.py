"""The network namespaces of this host or node in which applications talk to databases.

The rule: our own is always one; any other from the first connection that is met there, for as long as it has a process.
Looking through them takes a bounded time of each call and goes on in the next, and no more than MOST are followed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from pgsonar.model import ClientSide, TcpState
from pgsonar.sources.clients import ReadConnections
from pgsonar.sources.hostnamespaces import HostNamespaces, pause
from pgsonar.sources.processes import Processes

BUDGET = 0.01  # seconds of one call
MOST = 100  # namespaces beside our own; each takes five descriptors


class ApplicationFinder:
    """Finds the client's sides of connections to databases."""

    def __init__(
        self,
        processes: Processes,
        namespaces: HostNamespaces,
        read_connections: ReadConnections,
        ports: Collection[int],
    ) -> None:
        self._processes = processes
        self._namespaces = namespaces
        self._read_connections = read_connections
        self.ports = frozenset(ports)  # of databases
        self.own = processes.network_namespace(os.getpid()) or 0
        self._met: set[int] = set()
        self._left: list[int] = []  # to be looked through
        self._due = 0.0
        self._cost = 0.0  # seconds of the look that is under way

    def find(self) -> list[ClientSide]:
        """Those known now, our own first."""
        begun, cpu = time.monotonic(), time.thread_time()
        if not self._left and begun >= self._due:
            self._cost = 0.0
            self._left = [netns for netns, _ in self._namespaces if netns != self.own and netns not in self._met]
        was_looking = self.is_looking
        while self._left and len(self._met) < MOST and time.monotonic() < begun + BUDGET:
            netns = self._left.pop()
            if self._has_clients(netns):
                self._met.add(netns)
        self._cost += time.thread_time() - cpu
        if was_looking and not self.is_looking:
            self._due = time.monotonic() + pause(self._cost)
        there = {netns: pids for netns, pids in self._namespaces if netns in self._met}
        self._met &= there.keys()
        own = ClientSide(netns=self.own, ports=self.ports)
        return [own, *(ClientSide(netns, self.ports, pids[0]) for netns, pids in sorted(there.items()))]

    @property
    def is_looking(self) -> bool:
        """Whether there are namespaces yet that were not looked through."""
        return bool(self._left) and len(self._met) < MOST

    def _has_clients(self, netns: int) -> bool:
        for pid in self._namespaces.pids(netns):
            try:
                rows = self._read_connections(f"{self._processes.root}/{pid}", sorted(self.ports))
            except OSError:  # gone: another process of the namespace will do
                continue
            return any(row.remote.port in self.ports and row.state != TcpState.LISTEN for row in rows)
        return False
