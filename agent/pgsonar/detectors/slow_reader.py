"""A client that takes no more of its result: its window is closed, and the backend waits to write.

The client's kernel answers every probe of the window, so nothing ever ends it. Slow is fine as long as it moves: what
counts is that no byte was acknowledged. A cancelled statement leaves a session that looks idle, its queue still full.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import client_of, seen_to_begin, slot_evidence, who
from pgsonar.detectors.seeing import no_processes, no_sockets
from pgsonar.model import Connection, Finding, Severity, Sight, TcpState, TcpTimer


class SlowReader:
    """Finds sessions whose client does not read."""

    kind = "slow_reader"
    after = 300.0
    minimum = 2.0  # seconds: a window is closed for a moment wherever a client is a little slower than the server

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight) or no_processes(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for connection in sight.connections:
            if connection.unsent_since is None or not _is_stuck(connection):
                continue
            backend = sight.backend_of.get(connection.id)
            if backend is None or not backend.is_client:
                continue
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=who(backend),
                **client_of(backend),
                onset=connection.unsent_since,
                onset_source=seen_to_begin(connection.unsent_since, connection),
                counts_until=connection.compared_at,
                severity=Severity.WARNING,
                evidence=slot_evidence(backend, sight) | {"pgsonar.queue.send": connection.socket.tx_queue},
                alternative="a person looks at the first page of a large result, or a debugger holds the client",
            )


def _is_stuck(connection: Connection) -> bool:
    socket = connection.socket
    return socket.state == TcpState.ESTABLISHED and socket.timer == TcpTimer.ZERO_WINDOW_PROBE and not socket.probes
