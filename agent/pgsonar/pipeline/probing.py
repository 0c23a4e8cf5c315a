"""Clients of idle sessions are asked whether they are still there, where something speaks against it already.

The rule: who is not suspected is not asked; a socket that has fallen silent by itself needs no question.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pgsonar.episodes.causes import suspects
from pgsonar.model import Episode, Sight
from pgsonar.pipeline.world import ClientProbe


def ask_suspects(probe: ClientProbe, sights: Collection[Sight], episodes: Iterable[Episode], at: int) -> None:
    """Asks the clients that are suspected, and tells the probe which connections are silent."""
    for sight in sights:
        for backend in suspects(sight, episodes):
            probe.ask(backend.pid, backend.connection.socket.inode if backend.connection else 0, at)
    backends = (backend for sight in sights for backend in sight.backends)
    probe.settle(at, {b.pid for b in backends if b.connection and b.connection.silent_since is not None})
