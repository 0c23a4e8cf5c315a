"""Time, on two clocks."""

from __future__ import annotations

from typing import NamedTuple

SECOND = 1_000_000_000  # ns
MILLISECOND = 1_000_000  # ns


class Moment(NamedTuple):
    """One instant on both clocks, ns."""

    at: int
    unix: int

    def unix_of(self, at: int) -> int:
        """The wall clock time of another instant, by today's distance of the two clocks."""
        return self.unix - (self.at - at)
