"""Builds the nouns for tests, with as little said as possible."""

from __future__ import annotations

from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import rules
from pgsonar.episodes.overrides import Overrides
from pgsonar.model import (
    SECOND,
    Backend,
    BackendKind,
    Connection,
    DatabaseReading,
    Endpoint,
    Finding,
    Limits,
    Server,
    Session,
    Sight,
    Socket,
    TcpState,
    Title,
)
from pgsonar.tracking.correlation import owners
from pgsonar.tracking.ledger import slot_ledger

PORT = 5432
NETNS = 4026531840
START = 1_000 * SECOND  # the boot clock when the tests begin


def server(**changes) -> Server:
    known = {
        "id": "s1",
        "pid": 100,
        "started": 0,
        "netns": NETNS,
        "port": PORT,
        "address": "db-1",
        "system_identifier": "7",
        "limits": Limits(30, 3, "pg_control"),
    }
    return Server(**(known | changes))


def tcp(
    port: int,
    state: TcpState = TcpState.ESTABLISHED,
    *,
    address: str = "10.0.0.7",
    rx: int = 0,
    tx: int = 0,
    inode: int = 77,
    local: int = PORT,
) -> Socket:
    remote = Endpoint("0.0.0.0", 0) if state == TcpState.LISTEN else Endpoint(address, port)
    return Socket(Endpoint("10.0.0.1", local), remote, state, 2, tx, rx, 0, 0, 26, inode)


_numbers = iter(range(1, 1 << 30))


def connection(socket: Socket, *, opened: int = START, state_since: int | None = None) -> Connection:
    since = opened if state_since is None else state_since
    return Connection(next(_numbers), NETNS, socket, opened_at=opened, state_since=since, moved_at=opened)


def title(
    activity: str | None = "idle",
    *,
    user: str | None = "app",
    database: str | None = "shop",
    host: str | None = "10.0.0.7",
    port: int | None = 40000,
    waiting: bool = False,
    kind: BackendKind = BackendKind.CLIENT,
) -> Title:
    return Title(kind, user, database, host, port, activity, waiting, f"postgres: {user} {database} {activity}")


def backend(
    what: Title,
    *,
    pid: int = 4711,
    started: int = START,
    since: int = START,
    still: int | None = None,
    first_seen: int | None = None,
    switches: int | None = 10,
    bound: Connection | None = None,
    lost: int | None = None,
    seen_at: int | None = None,
) -> Backend:
    return Backend(
        server="s1",
        pid=pid,
        started=started,
        title=what,
        first_seen=started if first_seen is None else first_seen,
        activity_since=since,
        still_since=since if still is None else still,
        seen_at=START + 3600 * SECOND if seen_at is None else seen_at,
        switches=switches,
        connection=bound,
        socket_lost_at=lost,
        inner_pid=pid,
    )


def settled(seen: Sight, leaks: LeaksProcessor | None = None) -> list[Finding]:
    """What the detectors say of a server, as configured."""
    leaks = leaks or LeaksProcessor()
    chosen = rules(leaks)
    unix = 1_700_000_000 * SECOND
    return Overrides(chosen, leaks).settle(chosen.examine([seen]), {seen.server.id: seen.server}, unix)


def sight(backends=(), connections=(), *, at: int, of: Server | None = None, **changes) -> Sight:
    backends, connections = list(backends), list(connections)
    of = of or server()
    return Sight(
        server=of,
        backends=backends,
        connections=[c for c in connections if c.socket.state != TcpState.LISTEN],
        listeners=[c for c in connections if c.socket.state == TcpState.LISTEN],
        ledger=slot_ledger(of, backends),
        at=at,
        backend_of=owners(backends),
        **changes,
    )


def database_reading(*sessions: Session, **changes) -> DatabaseReading:
    """What a login told at START."""
    known = {
        "begun": START,
        "at": START,
        "endpoint": Endpoint("localhost", PORT),
        "own_pid": 1,
        "started": 0,
        "port": PORT,
        "system_identifier": "7",
        "version": "16.4",
        "role": "primary",
        "limits": Limits(30, 3, "login"),
        "sessions": sessions,
    }
    return DatabaseReading(**(known | changes))
