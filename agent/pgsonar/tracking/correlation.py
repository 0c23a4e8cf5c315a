"""Who is behind each socket.

The rule: a backend keeps the connection it was bound to, because 4-tuples return. The title's host(port) joins the
row's remote end and needs no privilege; where a process may be looked into, the socket's inode decides, and a title
that says otherwise is counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pgsonar.model import LOCAL_HOST, Backend, Connection, Endpoint, Server, TcpState
from pgsonar.tracking import backends as processes
from pgsonar.tracking.connections import ConnectionTable, note_left
from pgsonar.tracking.earlier import EarlierRun

START_SLACK = 50_000_000  # ns: a process start time is known to one clock tick (10 ms), the scan's to its own duration


class Correlation:
    """Binds backends to connections, and counts what does not agree."""

    def __init__(self, earlier: EarlierRun) -> None:
        self._earlier = earlier
        self.disagreements: dict[str, int] = defaultdict(int)  # by server: title and inode name different sockets
        self._bound: dict[str, dict[int, Connection]] = {}  # by server and number, at the last look

    def forget(self, server: str) -> None:
        """A server is gone."""
        self._bound.pop(server, None)

    def unbind(self, backends: Iterable[Backend]) -> None:
        """Their namespaces are watched anew: what they were bound to is met under another number."""
        for backend in backends:
            if backend.connection is not None and backend.connection.closed_at is None:
                processes.bind(backend, None)
        self._bound.clear()

    def bind(self, server: Server, backends: Iterable[Backend], table: ConnectionTable) -> None:
        """Binds what is not bound yet, and follows what is.

        A closed connection under a living backend is noted, and one whose backend has ended.
        """
        if server.port is None:
            return
        backends = list(backends)
        taken = {b.connection.id for b in backends if b.connection is not None}
        by_inode: dict[int, Connection] | None = None
        for backend in backends:
            if backend.connection is None and backend.kind_may_have_socket:
                if backend.inodes and by_inode is None:
                    by_inode = _by_inode(server, table)
                found = self._find(server, backend, table, by_inode or {}, taken)
                if found is not None:
                    processes.bind(backend, found)
                    if found.server != server.id:
                        table.prove(found, server.id)
                    taken.add(found.id)
            if backend.connection is not None:
                processes.follow(backend)
            elif backend.socket_lost_at is None and not self._earlier.is_over:
                lost_at = self._earlier.socket_lost_at(server.id, backend.pid, backend.title.port)
                processes.note_lost(backend, lost_at)
        self._note_left(server, backends)

    def _note_left(self, server: Server, backends: list[Backend]) -> None:
        """A process that ends takes its socket with it, and the next scan sees that: until then nobody owns the row."""
        bound = {b.connection.id: b.connection for b in backends if b.connection is not None}
        for number, connection in (self._bound.get(server.id, {}) | bound).items():
            note_left(connection, is_left=number not in bound)
        self._bound[server.id] = bound

    def _find(
        self,
        server: Server,
        backend: Backend,
        table: ConnectionTable,
        by_inode: dict[int, Connection],
        taken: set[int],
    ) -> Connection | None:
        by_title = _named_by_title(server, backend, table, taken)
        for inode in backend.inodes or ():
            owned = by_inode.get(inode)
            if owned is None:
                continue
            if by_title is not None and by_title is not owned:
                self.disagreements[server.id] += 1
            return owned
        return by_title


def _by_inode(server: Server, table: ConnectionTable) -> dict[int, Connection]:
    """Without listeners: a child that was just forked still holds those of its postmaster."""
    return {
        c.socket.inode: c
        for c in table.of_namespace(server.netns)
        if c.socket.inode and c.socket.local.port == server.port and c.socket.state != TcpState.LISTEN
    }


def _named_by_title(server: Server, backend: Backend, table: ConnectionTable, taken: set[int]) -> Connection | None:
    title = backend.title
    if title.host in (None, LOCAL_HOST) or title.port is None or server.port is None:
        return None
    # The kernel's tables show a link-local address without its zone.
    address = str(title.host).partition("%")[0]
    for candidate in table.from_peer(server.netns, server.port, Endpoint(address, title.port)):
        if candidate.id in taken or candidate.server not in (server.id, None):
            continue
        # A connection that ended before the process began belongs to an earlier holder of the same 4-tuple.
        if candidate.closed_at is None or candidate.closed_at >= backend.started + START_SLACK:
            return candidate
    return _by_port_alone(server, title.port, table, taken) if _is_name(address) else None


def _is_name(host: str) -> bool:
    """Whether a title names its client (log_hostname = on) instead of giving the address."""
    return ":" not in host and any(character.isalpha() for character in host)


def _by_port_alone(server: Server, port: int, table: ConnectionTable, taken: set[int]) -> Connection | None:
    """The connection from a client's port, if there is only one."""
    found = [
        c
        for c in table.of_namespace(server.netns)
        if c.socket.remote.port == port
        and c.socket.local.port == server.port
        and c.id not in taken
        # Where two servers share the port, an address decides whose it is.
        and c.server in (server.id, None)
    ]
    return found[0] if len(found) == 1 else None


def owners(backends: Iterable[Backend]) -> dict[int, Backend]:
    """Backends by the number of their connection."""
    return {b.connection.id: b for b in backends if b.connection is not None}
