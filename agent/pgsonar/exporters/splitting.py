"""Requests cut in two, for backends that limit their size.

The rule: no point, record or span is lost or sent twice; each keeps its resource, its scope and, if it is a point, its
metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# From the request down to what is counted as an item; a metric's points lie below the kind of its data.
_LEVELS = {
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
    "traces": ("resource_spans", "scope_spans", "spans"),
}


def cut(message: Any, signal: str, at: int) -> tuple[Any, Any]:
    """The first `at` items of a request, and the others, in two requests."""
    first, second = type(message)(), type(message)()
    first.CopyFrom(message)
    second.CopyFrom(message)
    _keep(first, signal, 0, at)
    _keep(second, signal, at, 1 << 62)
    return first, second


def _keep(message: Any, signal: str, start: int, stop: int) -> None:
    """Drops all items but those from number `start` to before `stop`, and what is empty then."""
    first = 0
    for items in _items(message, signal):
        here = len(items)
        del items[max(stop - first, 0) :]
        del items[: max(start - first, 0)]
        first += here
    _prune(message, _LEVELS[signal], is_metric=signal == "metrics")


def _items(message: Any, signal: str) -> Iterator[Any]:
    """The repeated fields that hold the items, in order."""
    outer, inner, last = _LEVELS[signal]
    for resource in getattr(message, outer):
        for scope in getattr(resource, inner):
            if signal == "metrics":
                yield from (getattr(metric, metric.WhichOneof("data")).data_points for metric in scope.metrics)
            else:
                yield getattr(scope, last)


def _prune(node: Any, levels: tuple[str, ...], *, is_metric: bool) -> bool:
    """Drops what holds nothing; tells whether the node itself still holds something."""
    if not levels:
        return not is_metric or len(getattr(node, node.WhichOneof("data")).data_points) > 0
    children = getattr(node, levels[0])
    for number in reversed(range(len(children))):
        if not _prune(children[number], levels[1:], is_metric=is_metric):
            del children[number]
    return len(children) > 0
