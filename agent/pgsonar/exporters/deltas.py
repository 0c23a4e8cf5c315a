"""What counters have grown by since the last export of one form, and what they have grown to in all.

The rule: the growths told of a series add up to its value. A value that is lower than before, or that began after the
last export, is all growth; so is a series not met before, unless nobody knows when its count began: then it grows from
here on. Nothing is remembered until `commit`, so that what could not be sent is told the next time.

A series is known by its resource's service.instance.id and not by the rest of it: a server that becomes the primary
counts on. One that stays away is forgotten after `FORGET_AFTER` exports and new if it comes back; no counter of ours
does that and keeps its value.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar, cast

from pgsonar.model import Resource
from pgsonar.signals.rows import AttributeValue, MetricRow, Point, Spread, Value

FORGET_AFTER = 360  # exports; an hour of the usual ones
_SWEEP_EVERY = 60  # exports

Series = tuple[object, str, frozenset[tuple[str, AttributeValue]]]  # instance, metric, attributes
Kept = TypeVar("Kept")


def series_of(resource: Resource, row: MetricRow, point: Point) -> Series:
    """What tells a series apart."""
    instance = next((value for name, value in resource.attributes if name == "service.instance.id"), resource)
    return instance, row.name, frozenset(point.attributes.items())


class Memory(Generic[Kept]):
    """Something about each series, which is forgotten when the series is not told any more."""

    def __init__(self) -> None:
        self._kept: dict[Series, tuple[int, Kept]] = {}  # with the number of the export
        self._new: dict[Series, tuple[int, Kept]] = {}
        self._export = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, series: Series) -> Kept | None:
        kept = self._kept.get(series)
        return None if kept is None else kept[1]

    def put(self, series: Series, what: Kept) -> None:
        self._new[series] = self._export, what

    def commit(self) -> None:
        """What was put is remembered; the export is over."""
        self._kept |= self._new
        self._new = {}
        self._export += 1
        if self._export % _SWEEP_EVERY == 0:
            oldest = self._export - FORGET_AFTER
            self._kept = {series: kept for series, kept in self._kept.items() if kept[0] >= oldest}

    def drop(self) -> None:
        """What was put is not remembered."""
        self._new = {}


class Last(NamedTuple):
    """The last export of a series."""

    value: Value
    start: int
    time: int


class Deltas(Memory[Last]):
    """The last export of each counter and histogram."""

    def of(self, resource: Resource, row: MetricRow) -> list[Point]:
        """The points of a row, with what each has grown by."""
        grown = []
        for point in row.points:
            series = series_of(resource, row, point)
            last, now = self.get(series), Last(point.value, point.start_unix, point.time_unix)
            self.put(series, now)
            if last is not None:
                grown.append(_growth(last, now, point))
            elif point.start_unix:
                grown.append(point)
        return grown


class Totals(Memory[Point]):
    """What the growths of each series add up to."""

    def of(self, resource: Resource, row: MetricRow, grown: list[Point]) -> list[Point]:
        """The points of a row as totals."""
        totals = []
        for point in grown:
            series = series_of(resource, row, point)
            before = self.get(series)
            total = point
            if before is not None:
                total = point._replace(value=add(before.value, point.value), start_unix=before.start_unix)
            self.put(series, total._replace(exemplars=()))
            totals.append(total)
        return totals


class Ends(Memory[int]):
    """When the last growth told of a series ended."""

    def of(self, resource: Resource, row: MetricRow, grown: list[Point]) -> list[Point]:
        """The points of a row, none beginning before the last one of its series ended."""
        told = []
        for point in grown:
            series = series_of(resource, row, point)
            self.put(series, point.time_unix)
            told.append(point._replace(start_unix=max(point.start_unix, self.get(series) or 0)))
        return told


def add(value: Value, other: Value) -> Value:
    """The sum of two values of one metric."""
    if isinstance(value, Spread) and isinstance(other, Spread):
        return Spread(value.measurements + other.measurements, value.total + other.total)
    return cast("float", value) + cast("float", other)


def _growth(last: Last, now: Last, point: Point) -> Point:
    """By how much a series has grown, and since when."""
    if now.start > last.time or _is_less(now.value, last.value):  # it began anew
        return point._replace(start_unix=max(now.start, last.time))
    return point._replace(value=_less(now.value, last.value), start_unix=last.time)


def _is_less(value: Value, than: Value) -> bool:
    if isinstance(value, Spread) and isinstance(than, Spread):
        return value.measurements < than.measurements or value.total < than.total
    return cast("float", value) < cast("float", than)


def _less(value: Value, other: Value) -> Value:
    if isinstance(value, Spread) and isinstance(other, Spread):
        return Spread(value.measurements - other.measurements, value.total - other.total)
    return cast("float", value) - cast("float", other)
