"""Connections that come and go instead of being kept: who opens them, how many a second, since when.

The rule: what counts is the end of a connection that lived no second, by the client's address. A burst is none: the
rate must stand for seconds on end.
"""

from __future__ import annotations

from collections import deque

from pgsonar.model import SECOND, Thrash

SHORT = SECOND  # a life; who needs a connection for longer is slow, not careless
RATE = 50  # a second: below, what connecting costs does not show
WITHIN = 5  # seconds over which the rate is taken
GIVE_UP = 0.5  # of RATE: below it has ended
_REMEMBERED = 4096  # clients

Place = tuple[str, str]  # server, client's address


class _Client:
    __slots__ = ("begun", "seconds")

    def __init__(self) -> None:
        self.seconds: deque[list[int]] = deque(maxlen=4 * WITHIN)  # [second, short connections that ended in it]
        self.begun: int | None = None  # the first of them, while the rate stands

    def rate(self, at: int) -> float:
        newest = at // SECOND
        return sum(number for second, number in self.seconds if newest - WITHIN <= second < newest) / WITHIN


class Churn:
    """Short connections, by server and client."""

    def __init__(self) -> None:
        self._clients: dict[Place, _Client] = {}

    def note(self, place: Place, lived: int, at: int) -> None:
        """Takes in the end of a connection that lived so many ns."""
        if lived >= SHORT:
            return
        if place not in self._clients and len(self._clients) >= _REMEMBERED:
            del self._clients[next(iter(self._clients))]
        seconds = self._clients.setdefault(place, _Client()).seconds
        second = at // SECOND
        if seconds and seconds[-1][0] >= second:
            seconds[-1][1] += 1
        else:
            seconds.append([second, 1])

    def thrashing(self, server: str, at: int) -> list[Thrash]:
        """The clients of one server that do it now."""
        found = []
        oldest = at // SECOND - WITHIN
        for place, client in list(self._clients.items()):
            if client.seconds[-1][0] < oldest:
                del self._clients[place]
            elif place[0] == server and self._stands(client, at):
                found.append(Thrash(place[1], client.begun or at, client.rate(at)))
        return found

    def _stands(self, client: _Client, at: int) -> bool:
        if client.rate(at) < RATE * (GIVE_UP if client.begun is not None else 1):
            client.begun = None
            return False
        if client.begun is None:
            oldest = at // SECOND - WITHIN
            client.begun = next(second for second, _ in client.seconds if second >= oldest) * SECOND
        return True
