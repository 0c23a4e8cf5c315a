"""Requests cut into smaller ones, for backends that limit their size.

The rule: no point, record or span is lost or sent twice; each keeps its resource, its scope and, if it is a point, its
metric. Each is copied once: how large a piece is, is counted while it is filled.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

from pgsonar.config.presets import Size

# From the request down to what is counted as an item; a metric's points lie below the kind of its data.
_LEVELS = {
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
    "traces": ("resource_spans", "scope_spans", "spans"),
}
_PREFIX = 6  # bytes before a nested message at most: its tag, and its length below 256 MB
_MARGIN = 0.9  # pieces are packed a little worse than the whole

Piece = tuple[Any, int]  # a request and its items
IsFull = Callable[[int, int, int], bool]  # by the number of the piece, its items, and its bytes with one more


def cut(message: Any, signal: str, at: int) -> tuple[Any, Any]:
    """The first `at` items of a request, and the others, in two requests."""
    (first, _), (second, _) = _fill(message, signal, lambda number, items, _: number == 0 and items == at)
    return first, second


def fits(body: bytes, size: Size) -> bool:
    """Whether a request is small enough."""
    if len(body) > size.raw:
        return False
    # What cannot be compressed grows by a few bytes.
    return size.packed is None or len(body) < size.packed * _MARGIN or len(zlib.compress(body, 1)) <= size.packed


def split(message: Any, signal: str, body: bytes, size: Size) -> Iterator[tuple[bytes, int]]:
    """A request in pieces that are small enough, with their items. An item that is too large is a piece by itself."""
    most = size.raw
    if size.packed is not None:
        packed = len(zlib.compress(body, 1))
        most = min(most, int(len(body) / packed * size.packed * _MARGIN))
    for piece, items in _fill(message, signal, lambda _, items, grown: items > 0 and grown > most):
        part = piece.SerializeToString()
        if items == 1 or fits(part, size):
            yield part, items
        else:  # it is packed worse than the whole was
            for half in cut(piece, signal, items // 2):
                yield from split(half, signal, half.SerializeToString(), size)


def _fill(message: Any, signal: str, is_full: IsFull) -> Iterator[Piece]:
    """Fills one piece after the other with the items in their order, and repeats what is around them."""
    number, items, size = 0, 0, 0
    piece, around = type(message)(), _Around(signal)
    for shells, children in _holders(message, signal):
        for item in children:
            cost = item.ByteSize() + _PREFIX
            if is_full(number, items, size + cost + around.cost(shells)):
                yield piece, items
                number, items, size = number + 1, 0, 0
                piece, around = type(message)(), _Around(signal)
            size += cost + around.cost(shells)
            around.enter(piece, shells).append(item)
            items += 1
    yield piece, items


class _Around:
    """What is around the next item in the piece that is being filled."""

    def __init__(self, signal: str) -> None:
        self._levels = _LEVELS[signal]
        self._shells: tuple[Any, ...] = ()
        self._items: Any = None

    def cost(self, shells: tuple[Any, ...]) -> int:
        """Bytes that are to be repeated before an item, at most."""
        if shells is self._shells:
            return 0
        return sum(shell.ByteSize() + _PREFIX for shell in shells)

    def enter(self, piece: Any, shells: tuple[Any, ...]) -> Any:
        """Where an item goes; repeats what is not there yet."""
        if shells is self._shells:
            return self._items
        same = True
        node = piece
        for depth, (level, shell) in enumerate(zip(self._levels, shells, strict=False)):
            same = same and depth < len(self._shells) and self._shells[depth] is shell
            children = getattr(node, level)
            if not same:
                children.add().CopyFrom(shell)
            node = children[-1]
        self._shells = shells
        self._items = _items(node) if len(shells) == len(self._levels) else getattr(node, self._levels[-1])
        return self._items


def _holders(message: Any, signal: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The repeated fields that hold the items, in order, each with what is around it but holds nothing."""
    outer, inner, last = _LEVELS[signal]
    for resource in getattr(message, outer):
        resource_shell = _shell(resource, inner)
        for scope in getattr(resource, inner):
            scope_shell = _shell(scope, last)
            if signal == "metrics":
                for metric in scope.metrics:
                    yield (resource_shell, scope_shell, _metric_shell(metric)), _items(metric)
            else:
                yield (resource_shell, scope_shell), getattr(scope, last)


def _items(metric: Any) -> Any:
    return getattr(metric, metric.WhichOneof("data")).data_points


def _shell(node: Any, without: str) -> Any:
    """A message without one of its repeated fields."""
    shell = type(node)()
    for field, value in node.ListFields():
        if field.name == without:
            continue
        if field.type == field.TYPE_MESSAGE:
            getattr(shell, field.name).MergeFrom(value)
        else:
            setattr(shell, field.name, value)
    return shell


def _metric_shell(metric: Any) -> Any:
    kind = metric.WhichOneof("data")
    shell = _shell(metric, kind)
    data = getattr(shell, kind)
    data.SetInParent()
    data.CopyFrom(_shell(getattr(metric, kind), "data_points"))
    return shell
