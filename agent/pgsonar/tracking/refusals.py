"""Clients that were refused for want of a slot, over the last minute, as the servers' logs count them.

The rule: what was refused counts for a minute. What a server's log had told when the server was seen first, or seen
again, counts as nothing, whatever it was about: it may be days old. A total that falls is counted anew: nothing of it
is from before.
"""

from __future__ import annotations

from collections import deque

from pgsonar.model import SECOND

STAND = 60 * SECOND
Limit = tuple[str, str]  # "role" or "database" and its name, or SLOTS
SLOTS: Limit = ("slots", "")


class Refusals:
    """By server, and by what was used up."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, Limit], deque[tuple[int, int]]] = {}  # instants, and how many there were by then
        self._since: dict[str, int] = {}  # by server, when its log was told of first

    def note(self, server: str, limit: Limit, total: int, at: int) -> None:
        """Takes in how many there have been in all for want of one thing."""
        is_there = self._since.setdefault(server, at) == at
        past = self._totals.setdefault((server, limit), deque([(at, total if is_there else 0)]))
        if total < past[-1][1]:
            past.clear()
            past.append((at, 0))
        past.append((at, total))
        while len(past) > 1 and at - past[1][0] >= STAND:
            past.popleft()

    def lately(self, server: str) -> dict[Limit, int]:
        """How many within the last minute, by what was used up."""
        counts = ((limit, past[-1][1] - past[0][1]) for (of, limit), past in self._totals.items() if of == server)
        return {limit: number for limit, number in counts if number}

    def forget(self, server: str) -> None:
        """Drops a server that is gone."""
        self._since.pop(server, None)
        self._totals = {key: past for key, past in self._totals.items() if key[0] != server}
