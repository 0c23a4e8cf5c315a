"""`pgsonar scan --format json`: one look as an object for machines.

The rule: unknown is null, never 0 and never left out; sessions without a socket row are there with null endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.model import Backend, Connection, Sight, TcpState

Json = dict[str, object]


def scan_object(sights: Iterable[Sight], time: str, missing: Iterable[str]) -> Json:
    """`{time, servers, connections, ledgers, missing}`."""
    sights = list(sights)
    return {
        "time": time,
        "servers": [_server(sight) for sight in sights],
        "connections": [row for sight in sights for row in _connections(sight)],
        "ledgers": [_ledger(sight) for sight in sights],
        "missing": [*missing, *(f"{s.server.label}: {sentence}" for s in sights for sentence in s.server.missing)],
    }


def _server(sight: Sight) -> Json:
    server, limits = sight.server, sight.server.limits
    return {
        "id": server.id,
        "address": server.address,
        "port": server.port,
        "pid": server.pid,
        "version": server.version,
        "role": server.role,
        "data_directory": server.data_directory,
        "limit": limits.max_connections,
        "reserved": limits.reserved,
        "ceiling": limits.ceiling,
        "limit_source": limits.source,
        "guessed": limits.guessed,
    }


def _connections(sight: Sight) -> Iterable[Json]:
    for connection in sight.connections:
        yield _connection(sight, connection, sight.backend_of.get(connection.id))
    shown = {connection.id for connection in sight.connections}
    for backend in sight.backends:
        if backend.title.host is not None and (backend.connection is None or backend.connection.id not in shown):
            yield _connection(sight, None, backend)


def _connection(sight: Sight, connection: Connection | None, backend: Backend | None) -> Json:
    socket = connection.socket if connection else None
    title = backend.title if backend else None
    activity = title.activity if title else None
    if title and activity and title.waiting:
        activity = f"{activity} waiting"
    return {
        "server": sight.server.id,
        "side": "server",
        "state": socket.state.spelling if socket else None,
        "local_address": socket.local.address if socket else None,
        "local_port": socket.local.port if socket else None,
        "remote_address": socket.remote.address if socket else None,
        "remote_port": socket.remote.port if socket else None,
        "inode": socket.inode if socket else None,
        "backend_pid": backend.pid if backend else None,
        "user": title.user if title else None,
        "database": title.database if title else None,
        "activity": activity,
        "age_seconds": round((sight.at - backend.started) / 1e9, 3) if backend else None,
        "state_seconds": _state_seconds(connection) if connection else None,
        "client": connection.client._asdict() if connection and connection.client else None,
    }


def _state_seconds(connection: Connection) -> float | None:
    """Since when the client has closed: its last acknowledgement came with its FIN. No other state tells it."""
    if connection.details is None or connection.socket.state != TcpState.CLOSE_WAIT:
        return None
    return connection.details.last_ack / 1000


def _ledger(sight: Sight) -> Json:
    ledger, limits = sight.ledger, sight.ledger.limits
    return {
        "server": ledger.server,
        "limit": limits.max_connections,
        "reserved": limits.reserved,
        "ceiling": limits.ceiling,
        "used": ledger.used,
        "holders": ledger.holders,
        "unix": ledger.unix,
        "database_sees": ledger.database_sees,
        "gap": ledger.gap,
        "cause": ledger.cause,
    }
