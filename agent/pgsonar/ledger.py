"""Who holds the slots of a server, told from its processes alone.

The rule: a slot of max_connections is held from the moment the startup packet is read until the process ends. So
logins under way hold one, and so do backends whose client is gone; walsenders, workers and children that have not read
a startup packet do not (PostgreSQL: InitProcess in proc.c, and the separate pools it draws from).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pgsonar.backends import LOGIN_ACTIVITIES
from pgsonar.model import LOCAL_HOST, Activity, Backend, BackendKind, Ledger, Server, TcpState

HOLDERS = ("session", "authenticating", "starting", "orphan", "unaccounted")


def slot_ledger(server: Server, backends: Iterable[Backend]) -> Ledger:
    """The ledger of one server at this instant."""
    holders = dict.fromkeys(HOLDERS, 0)
    by_transport: Counter[tuple[str, str]] = Counter()
    no_slot: Counter[str] = Counter()
    for backend in backends:
        holder = holder_of(backend)
        if holder is None:
            no_slot[backend.title.kind.value] += 1
            continue
        holders[holder] += 1
        by_transport[holder, "unix" if backend.title.host == LOCAL_HOST else "tcp"] += 1
    return Ledger(server.id, server.limits, holders, dict(by_transport), dict(no_slot))


def holder_of(backend: Backend) -> str | None:
    """What kind of slot holder a child is; None when it holds no slot."""
    title = backend.title
    if title.kind is BackendKind.UNKNOWN:
        return "unaccounted"
    if title.kind is not BackendKind.CLIENT:
        return None
    if title.activity == Activity.AUTHENTICATION:
        return "authenticating"
    if title.activity in LOGIN_ACTIVITIES:
        return "starting"
    return "orphan" if is_orphan(backend) else "session"


def is_orphan(backend: Backend) -> bool:
    """Whether its client has gone: a FIN not answered by a process that owns the socket, or no socket any more."""
    if backend.socket_lost_at is not None:
        return True
    connection = backend.connection
    return connection is not None and connection.socket.state == TcpState.CLOSE_WAIT and connection.socket.inode != 0
