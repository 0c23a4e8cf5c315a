"""Since when has a backend not moved for its client? The one place that knows.

The rule: a title alone proves nothing. A transaction of short statements shows `idle in transaction` in every sample,
so a backend stands still only since its title, its voluntary context switches or the bytes on its socket last moved.
And a context switch alone proves little: servers wake sessions that have nothing to do. Such a movement is in doubt
until TCP_INFO or a login tells what it was for.

Of a Backend's fields `activity_since`, `still_since`, `still_before` and `was_woken` are written here alone:

| what is seen                                      | activity_since | still_since       | still_before  |
| ------------------------------------------------- | -------------- | ----------------- | ------------- |
| first look, a login is under way                  | its fork       | its fork          | none          |
| first look, anything else                         | this look      | this look         | none          |
| another title                                     | this look      | this look         | none          |
| it ran; TCP_INFO or a login can tell what for     | -              | this look         | what it was   |
| it ran once, soon after its last statement, and   | -              | -                 | -             |
| nothing can tell: taken for the server's doing    |                |                   |               |
| it ran again, or later, and nothing can tell      | -              | this look         | none          |
| bytes moved on its socket                         | -              | that instant      | -             |
| in doubt; told: nothing was done for the client   | -              | what it was, or   | none          |
|                                                   |                | what was told     |               |
| in doubt; told: something was                     | -              | -                 | none          |
| in doubt for too long (DOUBT, DOUBT_OF_LOGIN)     | -              | -                 | none          |
| one look alone; TCP_INFO or a login told an age   | that age       | that age          | -             |

"-" is: stays as it was. `first_seen` and `seen_at` are instants of looks, and no judgement.
"""

from __future__ import annotations

from typing import NamedTuple

from pgsonar.model import MILLISECOND, SECOND, Activity, Backend, BackendSighting

# TCP_INFO is read every few seconds, a login asked every 15: what neither has told by then has moved.
DOUBT, DOUBT_OF_LOGIN = 10 * SECOND, 60 * SECOND
SLACK = 100 * MILLISECOND  # between bytes and the look that sees the switch they caused
# Since PostgreSQL 15 a session with statistics to flush is woken once, up to 10 s after its last statement
# (PGSTAT_IDLE_INTERVAL, src/backend/utils/activity/pgstat.c).
WOKEN_WITHIN = 11 * SECOND

LOGIN_ACTIVITIES = frozenset({Activity.AUTHENTICATION, Activity.STARTUP, Activity.INITIALIZING})


class Since(NamedTuple):
    """An instant, and whether the movement that ended at it was seen, or happened before anybody looked."""

    at: int
    is_observed: bool


# --- what others ask -------------------------------------------------------------------------------------------------


def unmoved_since(backend: Backend) -> int:
    """The last movement, one that is in doubt included: for whoever must not be wrong that it stands."""
    return backend.still_since


def is_doubted(backend: Backend) -> bool:
    """Whether it has moved and it is not known yet what for."""
    return backend.still_before is not None


def idle_since(backend: Backend, told_at: int | None) -> Since:
    """Since when it idles in what it does: as a login told last, as observed, else since it was first seen.

    `told_at` is when the login did. While it is in doubt whether the backend has moved, it has not.
    """
    still = backend.still_since if backend.still_before is None else backend.still_before
    session = backend.session
    told = session.state_since if session is not None and session.state == backend.title.activity else None
    if told is not None and told_at is not None and (told_at >= still or still <= backend.first_seen):
        return Since(min(told, still) if told_at < still else told, is_observed=True)
    return Since(still, is_observed=still > backend.first_seen)


def quiet_since(backend: Backend) -> int:
    """Since when no byte went either way between a backend and its client, as far as is known.

    TCP_INFO tells that of the socket. Else nothing the process did since is taken for it, though an idle process may
    be woken by others.
    """
    told = backend.connection.details if backend.connection is not None else None
    if told is None:
        return backend.still_since
    # What began after TCP_INFO was read, the title tells.
    return told.moved_at if backend.activity_since <= told.at else max(told.moved_at, backend.activity_since)


def is_dated(backend: Backend) -> bool:
    """Whether it is known since when it does what it does: it was seen to begin, or something told."""
    return backend.activity_since != backend.first_seen or backend.first_seen == backend.started


# --- what is seen ----------------------------------------------------------------------------------------------------


def begun_at(sighting: BackendSighting) -> int:
    """Since when a backend that is met does what it does.

    A login that is under way at first sight has been under way since the fork; any other activity since nobody knows
    when, at the earliest now.
    """
    return sighting.started if sighting.title.activity in LOGIN_ACTIVITIES else sighting.at


def note_activity(backend: Backend, at: int) -> None:
    """Its title is another one."""
    backend.activity_since = backend.still_since = at
    backend.still_before, backend.was_woken = None, False


def note_switches(backend: Backend, switches: int, at: int) -> None:
    """The process has run, so many times: for its client, or because the server woke it."""
    can_be_told = backend.session is not None or (
        backend.connection is not None and backend.connection.details is not None
    )
    if can_be_told:
        backend.still_before = backend.still_since if backend.still_before is None else backend.still_before
    elif switches == 1 and not backend.was_woken and at - backend.activity_since < WOKEN_WITHIN:
        backend.was_woken = True  # nothing tells: once it is taken for the server's doing
        return
    backend.still_since = at


def note_bytes(backend: Backend) -> None:
    """Its connection is followed: what moved there, moved for the client."""
    connection = backend.connection
    if connection is not None and connection.moved_at > connection.opened_at:  # to be met is no movement
        backend.still_since = max(backend.still_since, connection.moved_at)


def settle_doubt(backend: Backend, at: int, *, told_at: int | None) -> None:
    """Decides what a backend has moved for, once that is told. `told_at` is when its session was, by a login."""
    moved, before = backend.still_since, backend.still_before
    if before is None:
        return
    details = backend.connection.details if backend.connection is not None else None
    session = backend.session
    last: int | None = None  # the last time it did something for its client
    if details is not None and details.at >= moved:
        last = details.moved_at
    elif session is not None and session.state_since is not None and told_at is not None and told_at >= moved:
        last = session.state_since
    if last is not None and last < moved - SLACK:
        backend.still_since = max(before, min(last, moved))
    if last is not None or at - moved >= (DOUBT if session is None else DOUBT_OF_LOGIN):
        backend.still_before = None


def note_age(backend: Backend) -> None:
    """Gives what stood already at first sight the age that its session, or else its socket, tells.

    Never older than is certain: what was seen to move since the first sight of process and socket is no older for it.
    """
    session, connection = backend.session, backend.connection
    if session is not None and session.state == backend.title.activity and session.state_since is not None:
        told = session.state_since
    elif connection is not None and connection.details is not None:
        told = connection.details.moved_at
    else:
        return
    since = max(told, backend.started)
    first_seen = backend.first_seen if connection is None else max(backend.first_seen, connection.opened_at)
    if backend.activity_since == backend.first_seen:
        backend.activity_since = min(backend.activity_since, since)
    if backend.still_since <= first_seen:
        backend.still_since = max(backend.activity_since, min(backend.still_since, since))
