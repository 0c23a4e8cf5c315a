"""Metric rows as a form wants them: the profile's series, cumulative or delta, with the identity where it is needed.

The rule: a sum over counters is a sum of what each has grown by, because one that ends would otherwise take from the
sum what it had counted. Gauges are never summed.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.exporters.deltas import Deltas, Ends, Totals, add
from pgsonar.exporters.forms import Form
from pgsonar.model import Resource
from pgsonar.signals.rows import Attributes, AttributeValue, MetricRow, Point


class Shaper:
    """Shapes the metrics of one form. `commit` or `drop` tells what became of the rows of one batch."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._deltas = Deltas()
        self._totals = Totals()  # of sums over series
        self._ends = Ends()  # of the same

    def rows(self, resource: Resource, rows: Iterable[MetricRow]) -> list[MetricRow]:
        """The rows of one resource; those without points are left out."""
        shaped = ((row, self._points(resource, row)) for row in rows if self._form.carries(row))
        copied: Attributes = {name: value for name, value in resource.attributes if name in self._form.on_points}
        return [row._replace(points=_with(copied, points)) for row, points in shaped if points]

    def commit(self) -> None:
        """The rows stand in requests."""
        self._deltas.commit()
        self._totals.commit()
        self._ends.commit()

    def drop(self) -> None:
        """The rows could not be put in requests."""
        self._deltas.drop()
        self._totals.drop()
        self._ends.drop()

    def _points(self, resource: Resource, row: MetricRow) -> list[Point]:
        folded = row.folded if self._form.profile == "lean" else None
        if row.kind in ("gauge", "updowncounter"):
            return _fold(row.points, folded) if folded else row.points
        is_delta = self._form.is_delta(row.kind)
        points = self._deltas.of(resource, row) if is_delta or folded else row.points
        if not folded:
            return points
        sums = _fold(points, folded)
        return (self._ends if is_delta else self._totals).of(resource, row, sums)


def _with(copied: Attributes, points: list[Point]) -> list[Point]:
    if not copied:
        return points
    return [point._replace(attributes={**copied, **point.attributes}) for point in points]


def _fold(points: Iterable[Point], over: tuple[str, ...]) -> list[Point]:
    """Sums over some attributes. A sum begins where the first of its parts does."""
    sums: dict[frozenset[tuple[str, AttributeValue]], Point] = {}
    for point in points:
        left: Attributes = {name: value for name, value in point.attributes.items() if name not in over}
        series = frozenset(left.items())
        before = sums.get(series)
        if before is None:
            sums[series] = point._replace(attributes=left)
        else:
            sums[series] = before._replace(
                value=add(before.value, point.value),
                start_unix=min(before.start_unix, point.start_unix),
                exemplars=before.exemplars + point.exemplars,
            )
    return list(sums.values())
