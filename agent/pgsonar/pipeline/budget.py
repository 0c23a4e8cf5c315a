"""How often the agent may look: the interval stretches while it would take more CPU than it may, and shrinks back.

The rule: what is measured decides, over the last ten seconds of the whole process; what cannot be stretched (exports,
discovery) is left to the scans as a quarter of the budget at least, so that nothing ever stops the looking.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from pgsonar.model import SECOND

WINDOW = 10 * SECOND  # metrics leave every ten seconds by default: a shorter window would see them come and go
SETTLED = 4 * SECOND  # a figure over less than this says nothing yet
LONGEST = 5.0  # seconds between two scans, at most
LEAST_SHARE = 0.25  # of the budget, for scans and titles
HYSTERESIS = 0.9  # shrinks only when the work would still fit


class Usage(NamedTuple):
    """CPU time until an instant, ns."""

    at: int  # CLOCK_BOOTTIME
    process: int
    work: int  # of it: scans and titles, which take less when they come less often


class Budget:
    """Turns CPU time into the time between two scans."""

    def __init__(self, share: float, interval: float) -> None:
        """`share` is of one core, 0.02 for 2 %; `interval` in seconds is what is asked for."""
        self.share = share
        self._asked = interval
        self._used: deque[Usage] = deque()
        self.stretch = 1.0
        self.taken: float | None = None  # share of one core in the last window

    @property
    def interval(self) -> float:
        """Seconds between two scans that fit."""
        return min(self._asked * self.stretch, max(LONGEST, self._asked))

    @property
    def patience(self) -> int:
        """Nanoseconds without a complete scan after which one is out of sight: three seconds, or three intervals."""
        return max(3 * SECOND, round(3 * self.interval * SECOND))

    @property
    def reason(self) -> str:
        """Why it is what it is."""
        return "max_cpu" if self.interval > self._asked else "configured"

    def settle(self, used: Usage) -> None:
        """Takes a measurement in; called about once a second."""
        self._used.append(used)
        while used.at - self._used[0].at > WINDOW:
            self._used.popleft()
        first = self._used[0]
        elapsed = used.at - first.at
        if elapsed < SETTLED:
            return
        self.taken = (used.process - first.process) / elapsed
        work = (used.work - first.work) / elapsed
        allowed = max(self.share - (self.taken - work), LEAST_SHARE * self.share)
        wanted = self.stretch * work / allowed  # half as often costs half
        if wanted > self.stretch or wanted < HYSTERESIS * self.stretch:
            self.stretch = min(max(wanted, 1.0), max(LONGEST / self._asked, 1.0))
            self._used = deque([used])  # what was used before says nothing about the new interval
