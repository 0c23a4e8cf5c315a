"""Whose a socket is: the server whose listener has accepted it.

The rule: a port alone says nothing. A proxy may have the same port on another address, and so may a second cluster; so
the local address decides, the narrowest listener first, as in the kernel (net/ipv4/inet_hashtables.c). Where two may
have accepted it, nobody has until one of their processes is seen to hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pgsonar.model import Endpoint

_ANY_4, _ANY_6 = "0.0.0.0", "::"  # noqa: S104 - compared with


class Listener(NamedTuple):
    """A server or a pooler with its port."""

    id: str
    netns: int
    port: int
    addresses: frozenset[str] | None  # None: unknown
    is_server: bool = True


class Listening:
    """All who listen. Two are equal when all of theirs are."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = frozenset(listeners)
        self._on: dict[tuple[int, int], list[Listener]] = {}
        for listener in self._listeners:
            self._on.setdefault((listener.netns, listener.port), []).append(listener)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Listening) and self._listeners == other._listeners

    def __hash__(self) -> int:
        return hash(self._listeners)

    def owner(self, netns: int, local: Endpoint) -> str | None:
        """The id of who listens there; None: nobody, or it cannot be told which of several."""
        there = self._on.get((netns, local.port))
        if there is None:
            return None
        # PostgreSQL and PgBouncer set IPV6_V6ONLY (src/backend/libpq/pqcomm.c): `::` takes no IPv4.
        for address in (local.address, _ANY_6 if ":" in local.address else _ANY_4):
            if found := [one for one in there if one.addresses is not None and address in one.addresses]:
                return _one_of(found)
        return _one_of([one for one in there if one.addresses is None])


def _one_of(found: list[Listener]) -> str | None:
    """The only one; a pooler of which nothing is known takes nothing from a server."""
    servers = [one for one in found if one.is_server] or found
    return servers[0].id if len(servers) == 1 else None
