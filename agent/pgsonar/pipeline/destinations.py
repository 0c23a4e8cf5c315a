"""The databases that applications of this host are connected to, and what is known of them from this side.

The rule: an address is named as the configuration names it, by what its names resolved to last.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.model import ClientSide, ClientSight, Connection, Destination, Server, TcpState
from pgsonar.pipeline.attribution import Attribution
from pgsonar.pipeline.world import AnswerSource
from pgsonar.tracking.client_side import by_destination, outgoing
from pgsonar.tracking.connections import ConnectionTable


class Destinations:
    """Remembers the names, and which ports are of servers here."""

    def __init__(
        self,
        connections: ConnectionTable,
        attribution: Attribution,
        names: AnswerSource[dict[str, str]] | None,
    ) -> None:
        self._connections = connections
        self._attribution = attribution
        self._source = names
        self._names: dict[str, str] = {}  # by address
        self.served: dict[int, set[int]] = {}  # by namespace of applications: the ports that servers there have

    def use(self, attribution: Attribution, names: AnswerSource[dict[str, str]] | None) -> None:
        """Goes on with others."""
        self._attribution, self._source = attribution, names

    def of(self, sides: Iterable[ClientSide]) -> list[tuple[Destination, list[Connection]]]:
        """Where the connections of these applications lead to, the most first."""
        if self._source is not None:
            self._names = self._source.take() or self._names
        table = self._connections
        connections = [
            connection
            for side in sides
            for connection in outgoing(table.of_namespace(side.netns), side.ports, self.served[side.netns])
        ]
        return by_destination(connections, self._names)

    def sights(self, sides: Iterable[ClientSide], at: int) -> list[ClientSight]:
        """The same for the detectors, with the processes of connections that their server has closed."""
        sights = []
        for place, there in self.of(sides):
            left = [c for c in there if c.socket.state == TcpState.CLOSE_WAIT]
            self._attribution.name_outgoing(left, at)
            server = Server(
                id=f"to {place.label}", pid=0, started=0, netns=0, port=place.port, address=place.address, what="client"
            )
            sights.append(ClientSight(server, there, at))
        return sights
