"""A backend that works on for a client that is gone.

The client's FIN has arrived (CLOSE_WAIT) and a process still owns the socket. An idle backend notices within
milliseconds; one that runs a statement or waits for a lock notices when it next reads or writes, which may be never. A
row without an inode is a client that gave up in the accept queue, and no backend at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import Evidence, believed_until, client_of, seen_to_begin, slot_evidence, tcp_text, who
from pgsonar.detectors.seeing import no_sockets
from pgsonar.model import LOGIN_ACTIVITIES, Backend, Connection, Finding, Severity, Sight, TcpState

# How a client leaves, by what lies unread when its FIN (which counts as one byte) has come.
_DEPARTURES = {
    1: "client died or closed without a Terminate message",
    6: "clean close by libpq (Terminate message and FIN unread)",
    52: "clean close over TLS (encrypted Terminate message and FIN unread)",
}


class OrphanedBackend:
    """Finds backends whose client has closed.

    High; critical when one waits for a lock.
    """

    kind = "orphaned_backend"
    after = 2.0
    minimum = 1.0  # seconds: normal closes show CLOSE_WAIT for moments

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for connection in sight.connections:
            if connection.socket.state != TcpState.CLOSE_WAIT or not connection.socket.inode or connection.is_left:
                continue
            backend = sight.backend_of.get(connection.id)
            if backend is not None and not backend.is_client:
                continue
            if backend is not None and backend.title.activity in LOGIN_ACTIVITIES:
                continue  # it is auth_stuck, and no statement runs
            yield self._finding(sight, connection, backend)

    def _finding(self, sight: Sight, connection: Connection, backend: Backend | None) -> Finding:
        unread = connection.socket.rx_queue
        evidence: Evidence = {
            "pgsonar.evidence.departure": _DEPARTURES.get(unread, f"client closed with {unread - 1} bytes unread here"),
        }
        remote = connection.socket.remote
        if backend is None:
            return Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=f"?@{remote.address}",
                address=remote.address,
                port=remote.port,
                onset=connection.state_since,
                onset_source=seen_to_begin(connection.state_since, connection),
                severity=Severity.HIGH,
                evidence=evidence | {"pgsonar.evidence.tcp": tcp_text(connection)},
            )
        return Finding(
            kind=self.kind,
            server=sight.server.id,
            identity=who(backend),
            **client_of(backend),
            onset=connection.state_since,
            counts_until=believed_until(backend, sight.at),
            onset_source=seen_to_begin(connection.state_since, connection),
            severity=Severity.CRITICAL if backend.title.waiting else Severity.HIGH,
            evidence=evidence | slot_evidence(backend, sight) | {"pgsonar.leak.waits_for_lock": backend.title.waiting},
            alternative="the client may have closed only its sending side and still wait for the reply",
        )
