"""Peers that answer no more, and networks in which half of them fell silent at once.

The rule: a peer is silent while a probe or five retransmissions stand unanswered; a path is broken when at least MANY
and at least half of a subnet's connections fell silent within a minute of each other.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from ipaddress import ip_address, ip_network

from pgsonar.model import SECOND, Connection, Sight, TcpState

MANY = 5
WITHIN = 60 * SECOND
_HALF = 0.5
_PREFIX = {4: 24, 6: 64}


@lru_cache(maxsize=4096)
def subnet_of(address: str) -> str:
    """The network that hosts of one rack, node or zone share: /24, with IPv6 /64."""
    plain = address.partition("%")[0]
    try:
        return str(ip_network((plain, _PREFIX[ip_address(plain).version]), strict=False))
    except ValueError:  # a word for an address in a recording that hides them: a network of its own
        return plain


def silent(sight: Sight) -> list[Connection]:
    """Connections of sessions whose peer does not answer, in the order in which these fell silent."""
    found = [c for c in sight.connections if c.silent_since is not None and _is_session(c, sight)]
    return sorted(found, key=lambda connection: connection.silent_since or 0)


def broken_paths(sight: Sight, fallen: list[Connection]) -> dict[str, list[Connection]]:
    """The subnets that fell silent, with their silent connections. `fallen` is in the order of silent()."""
    if len(fallen) < MANY:
        return {}
    by_subnet: dict[str, list[Connection]] = {}
    for connection in fallen:
        by_subnet.setdefault(subnet_of(connection.socket.remote.address), []).append(connection)
    all_of = Counter(subnet_of(c.socket.remote.address) for c in sight.connections if _is_session(c, sight))
    return {
        subnet: there
        for subnet, there in by_subnet.items()
        if (together := _most_within(there)) >= MANY and together >= _HALF * all_of[subnet]
    }


def _most_within(there: list[Connection]) -> int:
    """How many fell silent within a minute, at most."""
    most = first = 0
    for last, connection in enumerate(there):
        while (connection.silent_since or 0) - (there[first].silent_since or 0) > WITHIN:
            first += 1
        most = max(most, last - first + 1)
    return most


def _is_session(connection: Connection, sight: Sight) -> bool:
    if connection.socket.state != TcpState.ESTABLISHED or not connection.socket.inode or connection.is_left:
        return False
    backend = sight.backend_of.get(connection.id)
    return backend is None or backend.is_client
