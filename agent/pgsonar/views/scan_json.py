"""`pgsonar scan --format json`: one look as an object for machines.

The rule: unknown is null, never 0 and never left out; sessions without a socket row are there with null endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from pgsonar.detectors.evidence import common_client, connection_key
from pgsonar.episodes.verdicts import Look, Verdict
from pgsonar.model import Backend, Connection, Destination, Pooling, Sight, Socket, TcpState, Via
from pgsonar.signals.advice import next_step

Json = dict[str, object]


def scan_object(look: Look) -> Json:
    """`{time, servers, connections, ledgers, missing, verdicts}`, and `poolers` where PgBouncer runs here."""
    sights = [seen.sight for seen in look.servers]
    time = datetime.fromtimestamp(look.moment.unix / 1e9, UTC).isoformat(timespec="milliseconds")
    told: Json = {
        "time": time.replace("+00:00", "Z"),
        "servers": [_server(sight) for sight in sights],
        "connections": [row for sight in sights for row in _connections(sight)]
        + [row for one in look.poolings for row in _hops(one)]
        + [row for place, there in look.destinations for row in _outgoing(place, there)],
        "ledgers": [_ledger(sight) for sight in sights],
        "verdicts": [_verdict(seen.sight, verdict) for seen in look.servers for verdict in seen.found],
        "missing": [
            *look.missing,
            *(f"{s.server.label}: {sentence}" for s in sights for sentence in s.server.missing),
            *(
                f"{seen.sight.server.label}: {kind} cannot be told: {reason}"
                for seen in look.servers
                for kind, reason in seen.untold.items()
            ),
            *(sentence for one in look.poolings for sentence in one.pooler.missing),
        ],
    }
    return told | ({"poolers": [_pooler(one) for one in look.poolings]} if look.poolings else {})


def _verdict(sight: Sight, verdict: Verdict) -> Json:
    oldest = verdict.findings[0]
    client = common_client(verdict.findings)
    step = next_step(sight.server, sight.ledger.used, verdict.kind, oldest)
    return {
        "server": sight.server.id,
        "kind": verdict.kind,
        "identity": verdict.identity or None,
        "severity": verdict.severity.word,
        "confidence": oldest.confidence,
        "age_seconds": None if verdict.onset is None else round((sight.at - verdict.onset) / 1e9, 3),
        "backend_pids": [finding.pid for finding in verdict.findings if finding.pid is not None],
        "client": client._asdict() if client is not None else None,
        "evidence": oldest.evidence,
        "next_command": step.command,
        "next_effect": step.effect,
    }


def _server(sight: Sight) -> Json:
    server, limits = sight.server, sight.server.limits
    return {
        "id": server.id,
        "address": server.address,
        "port": server.port,
        "pid": server.pid or None,
        "version": server.version,
        "role": server.role,
        "data_directory": server.data_directory,
        "limit": limits.max_connections,
        "reserved": limits.reserved,
        "ceiling": limits.ceiling,
        "limit_source": limits.source,
        "guessed": limits.guessed,
        "child_limit": limits.children,
        "notes": list(server.notes),
    }


def _pooler(pooling: Pooling) -> Json:
    pooler = pooling.pooler
    return {
        "id": pooler.id,
        "address": pooler.address,
        "port": pooler.port,
        "pids": list(pooler.pids),
        "config_file": pooler.config_file,
        "settings": pooling.reading.settings if pooling.reading is not None else dict(pooler.settings),
        "pools": [pool._asdict() for pool in pooling.reading.pools] if pooling.reading is not None else None,
    }


def _hops(pooling: Pooling) -> Iterable[Json]:
    """Connections of applications to the pooler, and its own to databases."""
    told = {(c.address, c.port): c for c in pooling.reading.clients} if pooling.reading is not None else {}
    for connection in pooling.clients:
        socket = connection.socket
        client = told.get((socket.remote.address, socket.remote.port))
        yield _row(
            server=pooling.pooler.id,
            side="pooler_client",
            **_tcp(socket),
            key=connection_key(socket.remote, socket.local),
            user=client.user if client is not None else None,
            database=client.database if client is not None else None,
            activity=client.state if client is not None else None,
        )
    for end, state in pooling.ends.tcp.items():
        yield _row(
            server=pooling.pooler.id,
            side="pooler_server",
            state=state.spelling,
            local_address=end.address,
            local_port=end.port,
        )


def _outgoing(place: Destination, connections: Iterable[Connection]) -> Iterable[Json]:
    """The client's ends of connections to a database, which may run anywhere."""
    for connection in connections:
        yield _row(
            server=place.label,
            side="client",
            **_tcp(connection.socket),
            key=connection_key(connection.socket.local, connection.socket.remote),
            state_seconds=_state_seconds(connection),
            client=connection.client._asdict() if connection.client else None,
        )


_COLUMNS = (
    *("server", "side", "state", "local_address", "local_port", "remote_address", "remote_port", "inode"),
    *("backend_pid", "user", "database", "activity", "age_seconds", "state_seconds", "client", "via", "key"),
)


def _row(**known: object) -> Json:
    """A connection with every column; what is not given is unknown."""
    return dict.fromkeys(_COLUMNS) | known


def _tcp(socket: Socket | None) -> Json:
    if socket is None:
        return {}
    return {
        "state": socket.state.spelling,
        "local_address": socket.local.address,
        "local_port": socket.local.port,
        "remote_address": socket.remote.address,
        "remote_port": socket.remote.port,
        "inode": socket.inode,
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
    return _row(
        server=sight.server.id,
        side="server",
        **_tcp(socket),
        key=connection_key(socket.remote, socket.local) if socket is not None else None,
        backend_pid=backend.pid if backend else None,
        user=backend.user if backend else None,
        database=backend.database if backend else None,
        activity=activity,
        age_seconds=round((sight.at - backend.started) / 1e9, 3) if backend else None,
        state_seconds=_state_seconds(connection) if connection else None,
        client=_process(connection, backend),
        via=_via(backend.via) if backend and backend.via else None,
    )


def _process(connection: Connection | None, backend: Backend | None) -> Json | None:
    """Who holds the other end of the server's socket; behind a pooler that is the pooler."""
    client = connection.client if connection is not None else backend.local_client if backend is not None else None
    return client._asdict() if client is not None else None


def _via(via: Via) -> Json:
    """The way through a pooler: its name and, while one holds the session, the application."""
    client = via.client
    return {
        "pooler": via.pooler,
        "address": client.address if client is not None else None,
        "port": client.port if client is not None else None,
        "application": client.application if client is not None else None,
        "client": via.process._asdict() if via.process is not None else None,
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
        "used": ledger.used if ledger.is_told else None,
        "holders": ledger.holders if ledger.is_told else None,
        "unix": ledger.unix if ledger.is_told else None,
        "database_sees": ledger.database_sees,
        "gap": ledger.gap,
        "cause": ledger.cause,
    }
