"""The sockets followed in time.

The rule: this module alone changes a Connection, and it believes the sampler: what is not reported changed has not
changed. A closed connection is kept for a while, so that a backend whose title is read late still finds it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from pgsonar.model import (
    SECOND,
    ChangeKind,
    ClientProcess,
    Connection,
    Details,
    Endpoint,
    Socket,
    TcpState,
    Transferred,
)
from pgsonar.tracking.churn import Churn
from pgsonar.tracking.listening import Listening

UNANSWERED = 5  # retransmissions in a row that make a peer silent: some 8 s after a link was cut
_HELD = frozenset({TcpState.SYN_RECEIVED, TcpState.ESTABLISHED, TcpState.CLOSE_WAIT})  # by both ends, or by ours
KEEP_CLOSED = 10 * SECOND  # titles are read four times a second; ten seconds forgive a stalled agent

# (connection, at, netns, kind, previous state, socket, bytes), as sources.sockets.Sampler.changes() yields it
SocketChange = tuple[int, int, int, int, int, Socket, Transferred | None]

OTHER = "~other"
REMEMBERED = 1000  # servers


class FoldedCounts:
    """Ever growing counts of a server by client, the first `places` clients by name and the rest as `~other`.

    A client keeps its place, and a server that comes back goes on with its counts, so that no series of a monotonic sum
    ever falls; and no list of clients grows for ever.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, server: str, client: str) -> None:
        counts = self._counts.setdefault(server, {})
        if len(self._counts) > REMEMBERED:
            del self._counts[next(iter(self._counts))]
        name = client if client in counts or len(counts) < self._places else OTHER
        counts[name] = counts.get(name, 0) + 1

    def of(self, server: str) -> dict[str, int]:
        return self._counts.get(server, {})


class ConnectionTable:
    """Connections of every watched namespace, by their number and by where they come from."""

    def __init__(self, clients: int = 20) -> None:
        self.connections: dict[int, Connection] = {}
        self._by_namespace: dict[int, dict[int, Connection]] = defaultdict(dict)
        self._by_server: dict[str, dict[int, Connection]] = defaultdict(dict)
        self._listening = Listening()
        self._proven: set[int] = set()  # whose owner a process of it has told
        self._by_peer: dict[tuple[int, int, Endpoint], list[Connection]] = defaultdict(list)
        self._closed: deque[Connection] = deque()
        self.opened = FoldedCounts(clients)
        self.closed = FoldedCounts(clients)
        self.churn = Churn()
        self._first_scan: dict[int, int] = {}  # by namespace: what it saw stood already

    def apply(self, changes: Iterable[SocketChange]) -> None:
        """Takes the sampler's changes in, oldest first."""
        for number, at, netns, kind, _previous, socket, transferred in changes:
            connection = self.connections.get(number)
            if kind == ChangeKind.OPENED or connection is None:
                if kind != ChangeKind.CLOSED and connection is None:
                    self._open(number, at, netns, socket)
                continue
            if kind == ChangeKind.CLOSED:
                connection.transferred = transferred
                self._close(connection, at)
                continue
            self._renew(connection, socket, at)
        self._forget_closed()

    def resync(self, netns: int, present: Iterable[SocketChange], at: int) -> None:
        """Puts the table of one namespace in order after changes were lost: what is not present has closed."""
        present = list(present)
        numbers = {change[0] for change in present}
        for connection in self.of_namespace(netns):
            if connection.id not in numbers:
                self._close(connection, at)
        for number, opened, _, _, _, socket, _ in present:
            known = self.connections.get(number)
            if known is None:
                self._open(number, opened, netns, socket)
            else:
                if known.socket != socket:
                    self._renew(known, socket, at)
                known.compared_at = at

    def note(self, details: Mapping[int, Details]) -> None:
        """Adds what TCP_INFO tells, by the connections' numbers."""
        for number, told in details.items():
            connection = self.connections.get(number)
            if connection is None:
                continue
            before, connection.details = connection.details, told
            if connection.socket.state == TcpState.CLOSE_WAIT and connection.state_since == connection.opened_at:
                # What had closed when it was met did so no later than its last acknowledgement.
                connection.opened_at = connection.state_since = min(connection.state_since, told.acknowledged_at)
            connection.compared_at = max(connection.compared_at, told.at)
            if before is not None and connection.unsent_since is not None and told.bytes_sent != before.bytes_sent:
                connection.unsent_since = told.at
            if before is not None and connection.unread_since and told.bytes_received != before.bytes_received:
                connection.unread_since = told.at

    def recall(self, connections: Iterable[Connection]) -> None:
        """Goes on with what was followed before, and counts none of it as opened."""
        for connection in connections:
            self._keep(connection)

    def forget(self, netns: int) -> None:
        """Drops a namespace that is no longer watched; its connections are lost from sight, not closed."""
        self._first_scan.pop(netns, None)
        for connection in self.of_namespace(netns):
            self._drop(connection)

    def of_namespace(self, netns: int) -> list[Connection]:
        return list(self._by_namespace.get(netns, {}).values())

    def of_server(self, server: str) -> list[Connection]:
        """Those that its listeners have accepted, and these listeners."""
        return list(self._by_server.get(server, {}).values())

    def serve(self, listening: Listening) -> None:
        """Others listen now: what is open goes to them as far as that can be told."""
        if listening == self._listening:
            return
        self._listening = listening
        for connection in self.connections.values():
            server = listening.owner(connection.netns, connection.socket.local)
            if server is not None and connection.id not in self._proven:
                self._assign(connection, server)

    def prove(self, connection: Connection, server: str) -> None:
        """A process of this server holds it, whoever else may listen there."""
        self._proven.add(connection.id)
        self._assign(connection, server)

    def _assign(self, connection: Connection, server: str) -> None:
        before, connection.server = connection.server, server
        if before is None:
            self._count_opened(connection)
            if connection.closed_at is not None and connection.socket.state != TcpState.LISTEN:
                self.closed.add(server, connection.socket.remote.address)
        elif before != server:
            self._leave_server(connection, before)
        if connection.id in self.connections:
            self._by_server[server][connection.id] = connection

    def _leave_server(self, connection: Connection, server: str) -> None:
        there = self._by_server.get(server, {})
        there.pop(connection.id, None)
        if not there:
            self._by_server.pop(server, None)

    def from_peer(self, netns: int, port: int, peer: Endpoint) -> list[Connection]:
        """Connections of a peer to a local port, the newest first, closed ones that are still kept included."""
        return list(reversed(self._by_peer.get((netns, port, peer), ())))

    def _open(self, number: int, at: int, netns: int, socket: Socket) -> None:
        server = self._listening.owner(netns, socket.local)
        connection = Connection(
            number, netns, socket, opened_at=at, state_since=at, moved_at=at, compared_at=at, server=server
        )
        self._keep(connection)
        self._first_scan.setdefault(netns, at)
        if socket.state != TcpState.LISTEN:
            _note_waiting(connection, socket, at)
            self._note_end(connection, at)
        self._count_opened(connection)

    def _count_opened(self, connection: Connection) -> None:
        if connection.server is not None and connection.socket.state != TcpState.LISTEN:
            self.opened.add(connection.server, connection.socket.remote.address)

    def _keep(self, connection: Connection) -> None:
        self.connections[connection.id] = connection
        self._by_namespace[connection.netns][connection.id] = connection
        if connection.server is not None:
            self._by_server[connection.server][connection.id] = connection
        socket = connection.socket
        if socket.state != TcpState.LISTEN:
            self._by_peer[connection.netns, socket.local.port, socket.remote].append(connection)

    def _renew(self, connection: Connection, socket: Socket, at: int) -> None:
        """Takes in what a socket is now."""
        before = connection.socket
        if socket.state != before.state:
            connection.state_since = at
        # A timer that is armed anew, or a probe that is sent, moves nothing.
        if socket._replace(timer=0, probes=0, retransmits=0) != before._replace(timer=0, probes=0, retransmits=0):
            connection.moved_at = at
        if socket.tx_queue != before.tx_queue:
            connection.unsent_since = None
        if socket.rx_queue != before.rx_queue:
            connection.unread_since = None
        connection.socket = socket
        _note_waiting(connection, socket, at)
        self._note_end(connection, at)

    def _note_end(self, connection: Connection, at: int) -> None:
        """Counts a connection that neither end uses any more, once; its row may stand for another minute."""
        socket = connection.socket
        if connection.ended_at is not None or (socket.state in _HELD and connection.closed_at is None):
            return
        connection.ended_at = at
        if self._first_scan.setdefault(connection.netns, connection.opened_at) == connection.opened_at:
            return  # when it began, nobody knows
        if connection.server is not None:
            self.churn.note((connection.server, socket.remote.address), at - connection.opened_at, at)

    def _close(self, connection: Connection, at: int) -> None:
        connection.closed_at = at
        self._let_go(connection)
        if connection.socket.state != TcpState.LISTEN:
            self._note_end(connection, at)
            self._closed.append(connection)
            if connection.server is not None:
                self.closed.add(connection.server, connection.socket.remote.address)

    def _let_go(self, connection: Connection) -> None:
        """It is not open any more."""
        self.connections.pop(connection.id, None)
        there = self._by_namespace.get(connection.netns, {})
        there.pop(connection.id, None)
        if not there:
            self._by_namespace.pop(connection.netns, None)
        if connection.server is not None:
            self._leave_server(connection, connection.server)

    def _drop(self, connection: Connection) -> None:
        self._let_go(connection)
        self._proven.discard(connection.id)
        key = (connection.netns, connection.socket.local.port, connection.socket.remote)
        same_peer = self._by_peer.get(key, [])
        if connection in same_peer:
            same_peer.remove(connection)
        if not same_peer:
            self._by_peer.pop(key, None)

    def _forget_closed(self) -> None:
        if not self._closed:
            return
        newest = self._closed[-1].closed_at or 0
        while self._closed and (self._closed[0].closed_at or 0) < newest - KEEP_CLOSED:
            self._drop(self._closed.popleft())


def _note_waiting(connection: Connection, socket: Socket, at: int) -> None:
    """Since when bytes wait at either end, and since when the peer is silent."""
    is_silent = socket.probes > 0 or socket.retransmits >= UNANSWERED
    connection.silent_since = (connection.silent_since or at) if is_silent else None
    connection.unsent_since = (connection.unsent_since or at) if socket.tx_queue else None
    connection.unread_since = (connection.unread_since or at) if socket.rx_queue else None


# --- what others find out --------------------------------------------------------------------------------------------


def note_client(connection: Connection, client: ClientProcess | None, at: int, *, is_astray: bool = False) -> None:
    """Who is at its client's end, None: nobody was found. `is_astray`: nor has anybody here that address of ours."""
    connection.client, connection.looked_for_client_at = client, at
    connection.is_astray = is_astray


def note_left(connection: Connection, *, is_left: bool) -> None:
    """Whether the backend that it was bound to has ended, so that nobody owns it until the next scan."""
    connection.is_left = is_left


def note_age(connection: Connection) -> None:
    """Gives what stood already at first sight the age that TCP_INFO tells."""
    told = connection.details
    if told is None:
        return
    connection.opened_at = min(connection.opened_at, told.stood_at)
    if connection.socket.state == TcpState.CLOSE_WAIT:
        connection.state_since = min(connection.state_since, told.acknowledged_at)
