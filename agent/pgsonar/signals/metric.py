"""What a metric is.

The rule: the row of a metric holds its reader, so that a name cannot show another's value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pgsonar.model import TcpState
from pgsonar.signals.rows import Attributes, Kind, Value

Read = TypeVar("Read")


Reading = Iterable[tuple[Attributes, Value]]


@dataclass(frozen=True, slots=True)
class Metric(Generic[Read]):
    """One metric, and how it is read from what is known of its subject."""

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    sentence: str
    read: Callable[[Read], Reading]
    lean: tuple[str, ...] | None = None  # the attributes left of it in the lean profile; None: it has no place there
    only_full: bool = False  # left out of the standard profile as well
    since_start: bool = True  # False: others began to count before pgsonar started

    @property
    def folded(self) -> tuple[str, ...] | None:
        """The attributes over which the lean profile sums; None: it leaves the metric out."""
        return None if self.lean is None else tuple(name for name in self.attributes if name not in self.lean)

    @property
    def profile(self) -> str:
        """Which profiles carry it, for people."""
        if self.folded is None:
            return "full" if self.only_full else "standard"
        left = ", ".join(f"`{name}`" for name in self.lean or ())
        return "lean" if not self.folded else f"lean, by {left}" if left else "lean, as one sum"


def by_state(side: str, states: Iterable[TcpState]) -> Reading:
    """Sockets by state, for `pgsonar.connection.count`."""
    for state, number in Counter(states).items():
        yield {"network.connection.state": state.spelling, "pgsonar.side": side}, number
