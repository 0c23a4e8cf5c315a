"""Clients that were refused for want of a slot, over the last minute, as the servers' logs count them.

The rule: what was refused counts for a minute; a total that was there when we came counts as nothing.
"""

from __future__ import annotations

from collections import deque

from pgsonar.model import SECOND

STAND = 60 * SECOND


class Refusals:
    """By server."""

    def __init__(self) -> None:
        self._totals: dict[str, deque[tuple[int, int]]] = {}  # instants, and how many there were by then

    def note(self, server: str, total: int, at: int) -> None:
        """Takes in how many there have been in all."""
        past = self._totals.setdefault(server, deque([(at, 0)]))
        past.append((at, total))
        while len(past) > 1 and at - past[1][0] >= STAND:
            past.popleft()

    def lately(self, server: str) -> int:
        """How many within the last minute."""
        past = self._totals.get(server)
        return past[-1][1] - past[0][1] if past else 0

    def forget(self, server: str) -> None:
        """Drops a server that is gone."""
        self._totals.pop(server, None)
