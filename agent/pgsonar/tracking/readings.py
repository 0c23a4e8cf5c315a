"""What a login adds to what was seen from outside: which server it belongs to, its sessions, its limits.

The rule: a reading adds and never hides. A server that does not run here is known through its login alone; then its
sessions stand in for processes, and what only sockets or processes tell is named as missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pgsonar.model import (
    LOCAL_HOST,
    Activity,
    Backend,
    BackendKind,
    BackendSighting,
    DatabaseReading,
    Endpoint,
    Server,
    Session,
    Title,
)
from pgsonar.tracking.backends import BackendTable
from pgsonar.tracking.ledger import Reconciliation

_REMOTE = (
    "sockets, process titles and logins under way: the server does not run on this host (run pgsonar beside it to see "
    "them)"
)
_HERE = {"localhost", "127.0.0.1", "::1"}
_STATES = {"starting": Activity.AUTHENTICATION}
_KINDS = {"client backend": BackendKind.CLIENT, "walsender": BackendKind.WALSENDER}


class Readings:
    """The newest reading of each server."""

    def __init__(self, backends: BackendTable) -> None:
        self._backends = backends
        self._readings: dict[str, tuple[DatabaseReading, int]] = {}  # by server: and for how long it holds, ns
        self._remote: dict[Endpoint, Server] = {}
        self._unsettled: dict[Endpoint, tuple[DatabaseReading, int]] = {}  # of servers that were not found yet
        self.reconciliations: dict[str, Reconciliation] = {}

    def take(self, reading: DatabaseReading, holds: int, servers: Iterable[Server]) -> Server | None:
        """Notes a reading; returns its server, or None: a restarted one may be read before it is found."""
        server = server_of(reading, servers, self._backends)
        if server is not None:
            self._remote.pop(reading.endpoint, None)
        elif reading.endpoint in self._remote:
            server = self._remote[reading.endpoint] = remote_server(reading)
        else:
            self._unsettled[reading.endpoint] = reading, holds
            return None
        self._readings[server.id] = reading, holds
        return server

    def settle(self, servers: Iterable[Server]) -> None:
        """Gives readings that waited for it what the servers of this host are now; what is none of them is remote."""
        servers = list(servers)
        for endpoint, (reading, holds) in self._unsettled.items():
            server = server_of(reading, servers, self._backends)
            if server is None:
                server = self._remote[endpoint] = remote_server(reading)
            self._readings[server.id] = reading, holds
        self._unsettled.clear()

    def of(self, server: str, at: int) -> DatabaseReading | None:
        """The newest reading while it holds."""
        reading, holds = self._readings.get(server, (None, 0))
        return reading if reading is not None and at - reading.at < holds else None

    def remote(self, at: int) -> list[Server]:
        """Servers known only by a login that still answers."""
        return [server for server in self._remote.values() if self.of(server.id, at) is not None]

    def reconcile(self, server: Server, backends: Iterable[Backend], reading: DatabaseReading) -> None:
        """Compares the slots that processes hold with the sessions the database lists."""
        if reading.sees_all and server.pid:
            self.reconciliations.setdefault(server.id, Reconciliation()).take(backends, reading)

    def forget(self, server: str) -> None:
        """Drops a server that is gone."""
        self._readings.pop(server, None)
        self.reconciliations.pop(server, None)


def server_of(reading: DatabaseReading, servers: Iterable[Server], backends: BackendTable) -> Server | None:
    """The server of this host that a reading is of: by its system identifier, or by the login's own backend.

    Never by clocks, which are set. A primary and its standbys share the identifier: where several of them run here, or
    the one that answered has another role or another address, the backend decides; so it does where pg_control may not
    be read.
    """
    servers = list(servers)
    there = [server for server in servers if server.pid and server.port == reading.port]
    same = [server for server in there if server.system_identifier == reading.system_identifier is not None]
    unread = [server for server in there if server.system_identifier is None or reading.system_identifier is None]
    if len(same) == 1 and same[0].role in (None, reading.role) and _is_asked_here(same[0], reading.endpoint):
        return same[0]
    own = next((session for session in reading.sessions if session.pid == reading.own_pid), None)
    for server in same or unread:
        if any(_is_own(backend, reading, own) for backend in backends.of_server(server.id)):
            return server
    if reading.endpoint.address in _HERE:  # a server of which nothing but its port is seen
        return next((s for s in servers if not s.pid and s.netns and s.port == reading.endpoint.port), None)
    return None


def _is_asked_here(server: Server, endpoint: Endpoint) -> bool:
    """Whether a login asks an address of this host's server: a copy of it elsewhere has its identifier too."""
    address = endpoint.address
    return address in {*_HERE, server.address, *(server.listens_on or ())} or address.startswith("/")


def _is_own(backend: Backend, reading: DatabaseReading, own: Session | None) -> bool:
    """Whether a backend serves the login; numbers repeat in other namespaces, so the user must be the same."""
    if backend.inner_pid != reading.own_pid or backend.started > reading.at:
        return False
    return own is None or backend.title.user in (None, own.user)


def improved(server: Server, reading: DatabaseReading) -> Server:
    """The server with what its own answer tells better than files and guesses."""
    return replace(
        server,
        version=reading.version,
        role=reading.role,
        limits=server.limits
        if server.limits.max_connections is not None and not server.limits.guessed
        else reading.limits,
        missing=(*server.missing, *reading.missing),
    )


def remote_server(reading: DatabaseReading) -> Server:
    """A server that only its login tells of."""
    endpoint = reading.endpoint
    return Server(
        id=f"{reading.system_identifier or '?'}@{endpoint}",
        pid=0,
        started=reading.started,
        netns=0,
        port=endpoint.port,
        address=endpoint.address,
        version=reading.version,
        role=reading.role,
        limits=reading.limits,
        missing=(_REMOTE, *reading.missing),
    )


def sightings(reading: DatabaseReading) -> list[BackendSighting]:
    """Sessions of a remote server as if its processes had been looked at.

    What moves when a session does anything at all is `state_change`, so it stands in for the context switches.
    """
    return [
        BackendSighting(
            pid=session.pid,
            started=session.started,
            title=_title(session),
            switches=session.state_since,
            at=reading.at,
            inner_pid=session.pid,
        )
        for session in reading.sessions
    ]


def _title(session: Session) -> Title:
    return Title(
        kind=_KINDS.get(session.kind, BackendKind.WORKER),
        user=session.user,
        database=session.database,
        host=session.client_address or LOCAL_HOST,
        port=session.client_port,
        activity=_STATES.get(session.state or "", session.state),
        waiting=session.wait_event_type == "Lock",
        text=f"{session.kind} {session.state or ''}".strip(),
    )
