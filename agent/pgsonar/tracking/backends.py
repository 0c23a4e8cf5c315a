"""The children of the postmasters followed in time.

The rule: this module alone changes a Backend. Others find out (which socket is its, what a login says of it, whether a
pooler stands before it, who its client is) and say so here; since when it stands still is for `stillness` to tell.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.model import (
    Backend,
    BackendKind,
    BackendSighting,
    ClientProcess,
    Connection,
    DatabaseReading,
    Session,
    Via,
)
from pgsonar.tracking import stillness


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
    since = stillness.begun_at(sighting)
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
        stillness.note_activity(backend, sighting.at)
        backend.title = sighting.title
        backend.switches = sighting.switches
    elif sighting.switches is not None:  # they are not read at every look
        if backend.switches is not None and backend.switches != sighting.switches:
            stillness.note_switches(backend, sighting.switches - backend.switches, sighting.at)
        backend.switches = sighting.switches
    backend.seen_at = sighting.at
    return backend


# --- what others find out --------------------------------------------------------------------------------------------


def bind(backend: Backend, connection: Connection | None) -> None:
    """This is its connection; None: it is met anew, under another number."""
    backend.connection = connection


def follow(backend: Backend) -> None:
    """Takes in what has become of its connection."""
    stillness.note_bytes(backend)
    if backend.connection is not None and backend.connection.closed_at is not None:
        note_lost(backend, backend.connection.closed_at)


def note_lost(backend: Backend, at: int | None) -> None:
    """Its connection has left the kernel's tables; None: it is not known to have."""
    if backend.socket_lost_at is None:
        backend.socket_lost_at = at


def attach(backends: Iterable[Backend], reading: DatabaseReading | None) -> None:
    """Gives each backend its session, or takes an old one away.

    What began before the reading, by our clock, and has the number of a session is that session: the server's own clock
    may have been set since.
    """
    sessions = {session.pid: session for session in reading.sessions} if reading is not None else {}
    for backend in backends:
        session = sessions.get(backend.inner_pid)
        is_listed = reading is not None and backend.started <= reading.at and _may_be(backend, session)
        backend.session = session if is_listed else None
        if session is not None and is_listed and (session.user is not None or backend.identified is None):
            backend.identified = session


def _may_be(backend: Backend, session: Session | None) -> bool:
    """Whether nothing speaks against it: a user who is another one, as far as both tell for certain."""
    title = backend.title
    if session is None or session.user is None or title.user is None:
        return True
    return session.user == title.user or title.is_cut or title.kind is not BackendKind.CLIENT


def note_way(backend: Backend, via: Via | None) -> None:
    """The pooler it came through; None: no pooler."""
    backend.via = via


def note_inodes(backend: Backend, inodes: tuple[int, ...]) -> None:
    """The sockets it has open."""
    backend.inodes = inodes


def note_local_client(backend: Backend, client: ClientProcess | None, at: int) -> None:
    """Who is at the other end of its unix socket; None: nobody was found."""
    backend.local_client, backend.looked_for_client_at = client, at
