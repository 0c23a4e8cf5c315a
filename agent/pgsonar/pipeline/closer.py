"""A closer look at connections: whether what waits in a queue moves, and what a session that stirred has moved for.

The rule: changes tell when a queue fills or empties; whether one that stays full moves takes a look at each connection,
so it is taken where bytes wait or a session is in doubt, and otherwise seldom; the more connections, the seldomer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from pgsonar.model import SECOND, Backend, Connection, TcpState
from pgsonar.pipeline.world import SocketSource
from pgsonar.tracking.connections import ConnectionTable
from pgsonar.tracking.stillness import is_doubted, settle_doubt

OFTEN = 2 * SECOND  # between two looks while bytes wait, or a session is in doubt
SELDOM = 3 * SECOND
STANDS = SECOND  # for which bytes wait: on a busy server some always do for a moment
EACH = 1_000_000  # ns more for each connection: ten thousand take 80 ms


class Sessions(NamedTuple):
    """The backends of one server."""

    netns: int
    backends: list[Backend]
    told_at: int | None  # when a login has told of them last


class CloserLook:
    """Looks at the connections of one sampler."""

    def __init__(self, sampler: SocketSource, connections: ConnectionTable) -> None:
        self._sampler = sampler
        self._connections = connections
        self._looked_at: dict[int, int] = {}  # by namespace

    def look(self, namespaces: Iterable[int], sessions: Collection[Sessions], at: int) -> None:
        """Looks where it is due, and settles what is in doubt."""
        doubted = {one.netns for one in sessions if any(map(is_doubted, one.backends))}
        for netns in namespaces:
            self._look_at(netns, at, is_doubted=netns in doubted)
        for one in sessions:
            for backend in one.backends:
                settle_doubt(backend, at, told_at=one.told_at)

    def _look_at(self, netns: int, at: int, *, is_doubted: bool) -> None:
        there = self._connections.of_namespace(netns)
        waits = any(_waits(connection, at) for connection in there)
        period = max(OFTEN if waits or is_doubted else SELDOM, len(there) * EACH)
        if at - self._looked_at.get(netns, 0) < period:
            return
        self._looked_at[netns] = at
        self._connections.note(self._sampler.details(netns))
        if waits:
            self._connections.resync(netns, self._sampler.open_connections(netns), at)


def _waits(connection: Connection, at: int) -> bool:
    since = connection.unsent_since or connection.unread_since
    return since is not None and at - since >= STANDS and connection.socket.state != TcpState.LISTEN
