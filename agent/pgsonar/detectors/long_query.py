"""A statement that has run for long. Never a leak by itself: it is told because it explains what others wait for.

A busy title proves nothing, since a session of many short statements shows it in every sample. A login tells when the
statement began; without one TCP_INFO tells since when the client has sent nothing. Copies, DDL and maintenance are long
by nature.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import client_of, is_maintenance, slot_evidence, who
from pgsonar.detectors.seeing import no_activities
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
    TcpTimer,
)

_AT_REST = LOGIN_ACTIVITIES | {Activity.IDLE, Activity.IN_TRANSACTION, Activity.ABORTED, None}


class LongQuery:
    """Finds statements that run for long."""

    kind = "long_query"
    after = 300.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        if missing := no_activities(sight):
            return missing
        busy = [b for b in sight.backends if _is_busy(b)]
        if busy and all(_begun(b, sight) is None for b in busy):
            return "nothing tells when statements began: add receivers.postgresql, or CAP_SYS_ADMIN for TCP_INFO"
        return None

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for backend in sight.backends:
            begun = _begun(backend, sight) if _is_busy(backend) else None
            if begun is None:
                continue
            onset, known_at = begun
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=who(backend),
                **client_of(backend),
                onset=onset,
                counts_until=known_at,
                severity=Severity.INFO,
                evidence=slot_evidence(backend, sight),
            )


def _is_busy(backend: Backend) -> bool:
    title, connection = backend.title, backend.connection
    if title.activity in _AT_REST or backend.kind is not BackendKind.CLIENT or is_maintenance(title.activity):
        return False
    return connection is None or not _says_more(connection)


def _says_more(connection: Connection) -> bool:
    """Whether its client has gone, or keeps it waiting: then the statement is not what takes the time."""
    if connection.closed_at is not None or connection.socket.state != TcpState.ESTABLISHED:
        return True
    return connection.silent_since is not None or connection.socket.timer == TcpTimer.ZERO_WINDOW_PROBE


def _begun(backend: Backend, sight: Sight) -> tuple[int, int] | None:
    """When the statement began, and until when that is known to be so: another may have begun since."""
    session, connection = backend.session, backend.connection
    if sight.reading is not None and session is not None and session.state == "active" and session.state_since:
        return session.state_since, sight.reading.at
    if connection is None or connection.details is None:
        return None
    told = connection.details
    return max(told.received_at, backend.started), told.at
