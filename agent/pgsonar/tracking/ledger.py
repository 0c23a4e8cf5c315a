"""Who holds the slots of a server, told from its processes; beside it what the database itself lists.

The rule: a slot of max_connections is held from the moment the startup packet is read until the process ends. So
logins under way hold one, and so do backends whose client is gone; walsenders, workers and children that have not read
a startup packet do not (PostgreSQL: InitProcess in proc.c, and the separate pools it draws from).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from pgsonar.model import (
    LOCAL_HOST,
    LOGIN_ACTIVITIES,
    SECOND,
    Activity,
    Backend,
    BackendKind,
    DatabaseReading,
    Ledger,
    Server,
    TcpState,
)

HOLDERS = ("session", "authenticating", "starting", "orphan", "unaccounted")
FORK_SLACK = SECOND // 20  # a start time is known to a clock tick (10 ms), and what has just forked is not listed yet

# Why the database does not list a slot's holder, one or many of them.
_CAUSES = {
    "password": ("1 client never sent its password", "{} clients never sent their password"),
    "lock": ("1 login waits for a lock on a catalog", "{} logins wait for a lock on a catalog"),
    "starting": ("1 login has not finished starting", "{} logins have not finished starting"),
    "unaccounted": ("1 process tells nothing by its title", "{} processes tell nothing by their titles"),
    "session": ("1 session is not listed", "{} sessions are not listed"),
}


class Reconciliation:
    """The slots of one server beside the sessions its database lists, over the last two readings."""

    def __init__(self) -> None:
        self.database_sees = 0
        self._unlisted: dict[tuple[int, int], int] = {}  # of the last reading: (pid, start), and since which reading
        self.standing: dict[tuple[int, int], int] = {}  # of the last two, and since which reading

    def take(self, backends: Iterable[Backend], reading: DatabaseReading) -> None:
        """Compares what holds a slot now, and did so when the reading began, with what the reading lists."""
        listed = reading.seen
        unlisted = {
            (b.pid, b.started): self._unlisted.get((b.pid, b.started), reading.begun)
            for b in backends
            if holder_of(b) is not None and b.started + FORK_SLACK < reading.begun and b.inner_pid not in listed
        }
        self.standing = {who: since for who, since in unlisted.items() if who in self._unlisted}
        self._unlisted = unlisted
        self.database_sees = len(listed)


def slot_ledger(server: Server, backends: Iterable[Backend], reconciliation: Reconciliation | None = None) -> Ledger:
    """The ledger of one server at this instant; with a gap where a login tells what the database lists."""
    backends = list(backends)
    holders = dict.fromkeys(HOLDERS, 0)
    by_transport: Counter[tuple[str, str]] = Counter()
    no_slot: Counter[str] = Counter()
    for backend in backends:
        holder = holder_of(backend)
        if holder is None:
            no_slot[backend.kind.value] += 1
            continue
        holders[holder] += 1
        by_transport[holder, "unix" if backend.title.host == LOCAL_HOST else "tcp"] += 1
    is_told = bool(server.pid or backends)
    ledger = Ledger(server.id, server.limits, holders, dict(by_transport), dict(no_slot), is_told)
    if reconciliation is None:
        return ledger
    unlisted = [b for b in backends if (b.pid, b.started) in reconciliation.standing]
    causes = Counter(_cause(b) for b in unlisted)
    words = [_CAUSES[cause][n > 1].format(n) for cause in _CAUSES if (n := causes[cause])]
    return replace(
        ledger,
        database_sees=reconciliation.database_sees,
        gap=len(unlisted),
        cause=", ".join(words) or None,
    )


def _cause(backend: Backend) -> str:
    holder = holder_of(backend)
    if holder in ("authenticating", "starting"):
        return "lock" if backend.title.waiting else "password" if holder == "authenticating" else "starting"
    return "unaccounted" if holder == "unaccounted" else "session"


def holder_of(backend: Backend) -> str | None:
    """What kind of slot holder a child is; None when it holds no slot."""
    title, kind = backend.title, backend.kind
    if kind is BackendKind.UNKNOWN:
        return "unaccounted"
    if kind is not BackendKind.CLIENT:
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
