"""The children of the postmasters followed in time.

The rule: a title alone proves nothing. A transaction of short statements shows `idle in transaction` in every sample,
so a backend counts as still only since the last time its title, its voluntary context switches or its queues moved. And
a context switch alone proves little: servers wake sessions that have nothing to do. What moved is in doubt until bytes
on the socket, or a login, tell.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.model import SECOND, Activity, Backend, BackendSighting

MILLISECOND = 1_000_000  # ns
# TCP_INFO is read every few seconds, a login asked every 15: what neither has told by then has moved.
DOUBT, DOUBT_OF_LOGIN = 10 * SECOND, 60 * SECOND
SLACK = 100 * MILLISECOND  # between bytes and the look that sees the switch they caused
# Since PostgreSQL 15 a session with statistics to flush is woken once, up to 10 s after its last statement
# (PGSTAT_IDLE_INTERVAL, src/backend/utils/activity/pgstat.c).
WOKEN_WITHIN = 11 * SECOND

LOGIN_ACTIVITIES = frozenset({Activity.AUTHENTICATION, Activity.STARTUP, Activity.INITIALIZING})


class BackendTable:
    """Backends of every server. Their identity is (server, pid, start time), because pids return."""

    def __init__(self) -> None:
        self._backends: dict[str, dict[tuple[int, int], Backend]] = {}

    def observe(self, server: str, sightings: Iterable[BackendSighting]) -> None:
        """Takes one complete look at the children of a server in; who is not in it has ended."""
        known = self._backends.get(server, {})
        present: dict[tuple[int, int], Backend] = {}
        for sighting in sightings:
            key = sighting.pid, sighting.started
            backend = known.get(key)
            present[key] = _first_sight(server, sighting) if backend is None else _next_sight(backend, sighting)
        self._backends[server] = present

    def recall(self, backends: Iterable[Backend]) -> None:
        """Goes on with what was followed before."""
        for backend in backends:
            self._backends.setdefault(backend.server, {})[backend.pid, backend.started] = backend

    def forget(self, server: str) -> None:
        self._backends.pop(server, None)

    def of_server(self, server: str) -> list[Backend]:
        return list(self._backends.get(server, {}).values())


def _first_sight(server: str, sighting: BackendSighting) -> Backend:
    # A login that is under way at first sight has been under way since the fork; any other activity since nobody knows
    # when, at the earliest now.
    since = sighting.started if sighting.title.activity in LOGIN_ACTIVITIES else sighting.at
    return Backend(
        server=server,
        pid=sighting.pid,
        started=sighting.started,
        title=sighting.title,
        first_seen=sighting.at,
        activity_since=since,
        still_since=since,
        seen_at=sighting.at,
        switches=sighting.switches,
        inner_pid=sighting.inner_pid or sighting.pid,
    )


def _next_sight(backend: Backend, sighting: BackendSighting) -> Backend:
    if sighting.title is not backend.title and sighting.title != backend.title:
        backend.activity_since = backend.still_since = sighting.at
        backend.title = sighting.title
        backend.switches = sighting.switches
        backend.still_before, backend.was_woken = None, False
    elif sighting.switches is not None:  # they are not read at every look
        if backend.switches is not None and backend.switches != sighting.switches:
            _move(backend, sighting.switches - backend.switches, sighting.at)
        backend.switches = sighting.switches
    backend.seen_at = sighting.at
    return backend


def quiet_since(backend: Backend) -> int:
    """Since when no byte went either way between a backend and its client, as far as is known.

    TCP_INFO tells that of the socket. Else nothing the process did since is taken for it, though an idle process may
    be woken by others.
    """
    told = backend.connection.details if backend.connection is not None else None
    if told is None:
        return backend.still_since
    moved = told.at - min(told.last_sent, told.last_received) * MILLISECOND
    # What began after TCP_INFO was read, the title tells.
    return moved if backend.activity_since <= told.at else max(moved, backend.activity_since)


def _move(backend: Backend, switches: int, at: int) -> None:
    """The process has run: for its client, or because the server woke it."""
    can_be_told = backend.session is not None or (
        backend.connection is not None and backend.connection.details is not None
    )
    if can_be_told:
        backend.still_before = backend.still_since if backend.still_before is None else backend.still_before
    elif switches == 1 and not backend.was_woken and at - backend.activity_since < WOKEN_WITHIN:
        backend.was_woken = True  # nothing tells: once it is taken for the server's doing
        return
    backend.still_since = at


def settle_doubt(backend: Backend, at: int, *, told_at: int | None) -> None:
    """Decides what a backend has moved for, once that is told. `told_at` is when its session was, by a login."""
    moved, before = backend.still_since, backend.still_before
    if before is None:
        return
    details = backend.connection.details if backend.connection is not None else None
    session = backend.session
    last: int | None = None  # the last time it did something for its client
    if details is not None and details.at >= moved:
        last = details.at - min(details.last_sent, details.last_received) * MILLISECOND
    elif session is not None and session.state_since is not None and told_at is not None and told_at >= moved:
        last = session.state_since
    if last is not None and last < moved - SLACK:
        backend.still_since = max(before, min(last, moved))
    if last is not None or at - moved >= (DOUBT if session is None else DOUBT_OF_LOGIN):
        backend.still_before = None
