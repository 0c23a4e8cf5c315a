"""The clocks. CLOCK_BOOTTIME orders and measures everything; the wall clock only names instants to others."""

from __future__ import annotations

import time

from pgsonar.model import Moment


def now() -> Moment:
    """This instant on both clocks, read next to each other."""
    return Moment(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())


class Due:
    """Says when something periodic is due again; a late call skips what was missed rather than catching up."""

    def __init__(self, period: float, start: int = 0) -> None:
        self.period = round(period * 1e9)
        self.next = start

    def set_period(self, period: float) -> None:
        """Another period in seconds, from the next time on."""
        self.period = round(period * 1e9)

    def __call__(self, at: int) -> bool:
        if at < self.next:
            return False
        self.next = max(self.next + self.period, at - self.period // 2)
        return True
