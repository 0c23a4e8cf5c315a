"""The client's ends of connections to databases, on the host where the applications run.

The rule: what counts is the port at the far end; the database itself may run anywhere. A name that the configuration
gives an address stands for what it resolves to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pgsonar.config.schema import Target
from pgsonar.model import Connection, Destination, TcpState

DEFAULT_PORTS = frozenset({5432, 6432})  # PostgreSQL, PgBouncer
NAMED = 20  # destinations that are told by name: there is no end to addresses


def ports_of(targets: Literal["auto"] | Sequence[Target]) -> frozenset[int]:
    """The ports of databases to watch for."""
    if targets == "auto":
        return DEFAULT_PORTS
    return frozenset(target.port for target in targets if target.port is not None) or DEFAULT_PORTS


def outgoing(connections: Iterable[Connection], ports: frozenset[int], served: set[int]) -> list[Connection]:
    """Those that lead to a database; a port that a server here listens on is that server's own end."""
    return [
        c
        for c in connections
        if c.socket.remote.port in ports and c.socket.local.port not in served and c.socket.state != TcpState.LISTEN
    ]


def by_destination(
    connections: Iterable[Connection], names: Mapping[str, str]
) -> list[tuple[Destination, list[Connection]]]:
    """The connections by where they lead, the most first."""
    groups: dict[Destination, list[Connection]] = {}
    for connection in connections:
        remote = connection.socket.remote
        place = Destination(names.get(remote.address, remote.address), remote.port)
        groups.setdefault(place, []).append(connection)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
