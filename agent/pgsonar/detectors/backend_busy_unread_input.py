"""A client that has sent more while its backend still works: a pipeline, or an application that does not wait.

What was sent lies unread in the kernel, so the backend sees neither it nor a close behind it until its statement ends.
A backend that reads, as COPY does, moves the queue and is none of these.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import client_of, seen_to_begin, slot_evidence, who
from pgsonar.detectors.seeing import no_activities, no_sockets
from pgsonar.model import (
    LOGIN_ACTIVITIES,
    Activity,
    Backend,
    BackendKind,
    Connection,
    Finding,
    Severity,
    Sight,
    TcpState,
)

_AT_REST = LOGIN_ACTIVITIES | {Activity.IDLE, Activity.IN_TRANSACTION, Activity.ABORTED, None}


class BackendBusyUnreadInput:
    """Finds busy backends that leave their client unread."""

    kind = "backend_busy_unread_input"
    after = 30.0
    minimum = 1.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight) or no_activities(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for connection in sight.connections:
            backend = sight.backend_of.get(connection.id) if connection.unread_since is not None else None
            if backend is None or not _waits(connection, backend):
                continue
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=who(backend),
                **client_of(backend),
                onset=max(connection.unread_since or 0, backend.activity_since),
                onset_source=seen_to_begin(connection.unread_since, connection),
                counts_until=connection.compared_at,
                severity=Severity.INFO,
                evidence=slot_evidence(backend, sight) | {"pgsonar.queue.receive": connection.socket.rx_queue},
                alternative="the client sends statements ahead, as pipelining drivers do",
            )


def _waits(connection: Connection, backend: Backend) -> bool:
    return (
        connection.socket.state == TcpState.ESTABLISHED
        and backend.kind is BackendKind.CLIENT
        and backend.title.activity not in _AT_REST
    )
