"""How old what one look finds is: TCP_INFO and a login remember what happened before anybody looked.

The rule: never older than is certain. A transaction idles at least since the last byte went either way; a client's FIN
is at least as old as its last acknowledgement; a connection began no later than anything that was heard on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.model import Backend, Connection, Details, TcpState

MILLISECOND = 1_000_000  # ns


def is_dated(backend: Backend) -> bool:
    """Whether it is known since when it does what it does: it was seen to begin, or something told."""
    return backend.activity_since != backend.first_seen or backend.first_seen == backend.started


def date_back(connections: Iterable[Connection], backends: Iterable[Backend]) -> None:
    """Gives what stood already at first sight the age that its details, or its session, tell."""
    for backend in backends:
        since = _since(backend)
        if since is not None:
            _date_backend(backend, max(since, backend.started))
    for connection in connections:
        if connection.details is not None:
            _date_connection(connection, connection.details)


def _date_backend(backend: Backend, since: int) -> None:
    """What was seen to move since the first sight of process and socket is no older for what they tell."""
    first_seen = backend.first_seen
    if backend.connection is not None:
        first_seen = max(first_seen, backend.connection.opened_at)
    if backend.activity_since == backend.first_seen:
        backend.activity_since = min(backend.activity_since, since)
    if backend.still_since <= first_seen:
        backend.still_since = max(backend.activity_since, min(backend.still_since, since))


def _date_connection(connection: Connection, told: Details) -> None:
    heard = told.at - max(told.last_sent, told.last_received, told.last_ack) * MILLISECOND
    connection.opened_at = min(connection.opened_at, heard)
    if connection.socket.state == TcpState.CLOSE_WAIT:
        connection.state_since = min(connection.state_since, told.at - told.last_ack * MILLISECOND)


def _since(backend: Backend) -> int | None:
    """Since when it has done what it does, by its session or else by its socket."""
    session, connection = backend.session, backend.connection
    if session is not None and session.state == backend.title.activity and session.state_since is not None:
        return session.state_since
    if connection is None or connection.details is None:
        return None
    told = connection.details
    return told.at - min(told.last_sent, told.last_received) * MILLISECOND
