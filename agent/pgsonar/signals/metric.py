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


def by_state(side: str, states: Iterable[TcpState]) -> Reading:
    """Sockets by state, for `pgsonar.connection.count`."""
    for state, number in Counter(states).items():
        yield {"network.connection.state": state.spelling, "pgsonar.side": side}, number
