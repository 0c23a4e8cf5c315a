"""Clients that the kernel has connected and the postmaster does not accept.

They stand in the listener's backlog (its rx_queue) as rows without an inode: no process, no slot, no log line. A queue
that is merely busy also shows a backlog in every sample, so what counts is a connection that itself keeps waiting.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import Evidence
from pgsonar.detectors.seeing import no_sockets
from pgsonar.model import Connection, Finding, Severity, Sight, TcpState

_WAITING = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)  # CLOSE_WAIT: the client has given up, the row still waits


class AcceptQueue:
    """Finds connections that wait to be accepted."""

    kind = "accept_queue"
    after = 2.0
    minimum = 1.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        if not sight.backlog:
            return
        evidence: Evidence = {"pgsonar.listener.backlog": sight.backlog}
        if sight.backlog_limit is not None:
            evidence["pgsonar.listener.backlog.limit"] = sight.backlog_limit
        phase = "overflow" if sight.overflowing else "backlog"
        for connection in sight.connections:
            if not _waits(connection):
                continue
            remote = connection.socket.remote
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity="",
                address=remote.address,
                port=remote.port,
                onset=connection.opened_at,
                severity=Severity.CRITICAL,
                evidence=evidence | {"pgsonar.leak.phase": phase},
            )


def _waits(connection: Connection) -> bool:
    return connection.socket.state in _WAITING and connection.socket.inode == 0
