"""Which sockets each backend has open, for binding it to its connection.

The rule: what was learned is not taken on trust for ever: one backend of each server is read a second again, each in
its turn. Where looking is refused, the children of that postmaster are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pgsonar.model import SECOND, Backend, Server
from pgsonar.pipeline.world import InodeSource
from pgsonar.tracking.backends import note_inodes


class Ownership:
    """Reads inodes into the backends."""

    def __init__(self, source: InodeSource) -> None:
        self._source = source
        self._refused: set[int] = set()  # postmasters whose children may not be looked into
        self._verified: dict[str, tuple[int, int]] = {}  # by server: when, and whose turn it was

    def keep(self, servers: Iterable[Server]) -> None:
        """Forgets all other servers."""
        there = {server.id: server.pid for server in servers}
        self._refused &= set(there.values())
        self._verified = {server: last for server, last in self._verified.items() if server in there}

    def read(self, server: Server, backends: Sequence[Backend], at: int) -> None:
        """Reads the sockets of those that are new, and of one that is not."""
        for backend in backends:
            if backend.inodes is None and backend.kind_may_have_socket:
                self._read_one(server, backend)
        self._verify_one(server, backends, at)

    def _read_one(self, server: Server, backend: Backend) -> None:
        if server.pid in self._refused:
            return
        inodes = self._source.inodes(backend.pid, postmaster=server.pid)
        if inodes is None:
            self._refused.add(server.pid)
            return
        note_inodes(backend, inodes)

    def _verify_one(self, server: Server, backends: Sequence[Backend], at: int) -> None:
        last, turn = self._verified.get(server.id, (0, 0))
        if not backends or at - last < SECOND:
            return
        self._verified[server.id] = at, turn + 1
        backend = backends[turn % len(backends)]
        if backend.inodes is not None:
            self._read_one(server, backend)
