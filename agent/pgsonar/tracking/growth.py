"""Idle connections that grow in number: told from pools, which are idle too, by how each client's number moves.

The rule: age alone is no leak, and one look is none. A connection counts once no byte has moved on it for longer than
all but one in a hundred of its kind ever lived; a window counts when more of them stand at its end than at its start
and more were opened in it than closed. Three such windows in a row are growth, three without end it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pgsonar.model import SECOND, Activity, Backend, BackendKind, Growth, Process
from pgsonar.tracking.earlier import EarlierRun
from pgsonar.tracking.stillness import quiet_since

WINDOWS = 3  # in a row
LOOK = 5 * SECOND  # between two looks, or a tenth of a window
MINUTE = 60 * SECOND
_OPENED = 1000  # remembered of one kind: beyond, what it opened in a minute is this much at least
_LIFETIMES = 100  # remembered of one kind
_P99 = 0.99
_REMEMBERED = 256  # kinds of one server, beside those that are there


@dataclass(slots=True)
class _Kind:
    """What is remembered of the connections of one user from one address."""

    window_at: int  # the window began
    there: dict[Process, int] = field(default_factory=dict)  # when each was met
    begun: deque[int] = field(default_factory=lambda: deque(maxlen=_OPENED))  # starts within the last minute
    lifetimes: deque[int] = field(default_factory=lambda: deque(maxlen=_LIFETIMES))
    idle: int = 0  # when the window began
    opened: int = 0  # ever
    closed: int = 0
    at_window: tuple[int, int] = (0, 0)  # opened and closed when the window began
    grown: int = 0  # windows in a row
    flat: int = 0  # windows without growth, since
    onset: int = 0
    at_onset: tuple[int, int, int] = (0, 0, 0)  # idle, opened and closed

    @property
    def is_growing(self) -> bool:
        return self.grown >= WINDOWS

    def forget_begun(self, at: int) -> None:
        while self.begun and self.begun[0] <= at - MINUTE:
            self.begun.popleft()

    def lived_at_most(self) -> int:
        """All but one in a hundred of them."""
        if not self.lifetimes:
            return 0
        ordered = sorted(self.lifetimes)
        return ordered[min(len(ordered) - 1, int(_P99 * len(ordered)))]


class IdleGrowth:
    """Follows the idle connections of every server, window by window."""

    def __init__(self, who: Callable[[Backend], str], earlier: EarlierRun, *, idle_after: int, window: int) -> None:
        """`who` names the kind a backend is of; times are in ns."""
        self._who = who
        self._kinds: dict[str, dict[str, _Kind]] = {}
        self._earlier = earlier
        self._last: dict[str, tuple[int, dict[str, Growth]]] = {}  # by server: the last look, and what came of it
        self.configure(idle_after=idle_after, window=window)

    def configure(self, *, idle_after: int, window: int) -> None:
        """Other thresholds, ns; what was learned stays."""
        self._idle_after, self._window = idle_after, window
        self._every = min(LOOK, window // 10)

    def observe(self, server: str, backends: Iterable[Backend], at: int) -> dict[str, Growth]:
        """Takes one look at the sessions of a server in; returns those that grow, by who they are of."""
        looked_at, known = self._last.get(server, (0, {}))
        if server in self._last and at - looked_at < self._every:
            return known
        growing = self._grow(server, backends, at)
        self._last[server] = at, growing
        return growing

    def _grow(self, server: str, backends: Iterable[Backend], at: int) -> dict[str, Growth]:
        kinds = self._kinds.setdefault(server, {})
        there: dict[str, dict[Process, Backend]] = {}
        for backend in backends:
            # What a pooler keeps open to the server is its pool, and none of an application.
            is_named = backend.user is not None or backend.title.names is not None
            if backend.kind is BackendKind.CLIENT and backend.via is None and is_named:
                there.setdefault(self._who(backend), {})[backend.pid, backend.started] = backend
        growing: dict[str, Growth] = {}
        for name in dict.fromkeys([*kinds, *there]):
            kind = kinds.get(name)
            if kind is None:
                kind = kinds[name] = _Kind(at)
            members = self._look(kind, there.get(name, {}), at)
            if not self._earlier.is_over:
                self._go_on(server, kind)
            if kind.is_growing and members:
                idle, opened, closed = kind.at_onset
                everybody = len(kind.there)
                growing[name] = Growth(kind.onset, members, everybody, idle, kind.opened - opened, kind.closed - closed)
        _forget_some(kinds)
        return growing

    def _go_on(self, server: str, kind: _Kind) -> None:
        """What an earlier run saw grow is of the kind that its members are of; three flat windows end it."""
        left = self._earlier.growth(server, {pid for pid, _ in kind.there})
        if left is not None:
            kind.grown, kind.onset = WINDOWS, left.onset
            kind.at_onset = left.normal, kind.opened - left.opened, kind.closed - left.closed

    def opened_lately(self, server: str) -> dict[str, int]:
        """Sessions that were opened within the minute before the last look, by who they are of."""
        kinds = self._kinds.get(server, {})
        return {name: len(kind.begun) for name, kind in kinds.items() if kind.begun}

    def forget(self, server: str) -> None:
        """Drops a server that is gone."""
        self._kinds.pop(server, None)
        self._last.pop(server, None)

    def _look(self, kind: _Kind, there: dict[Process, Backend], at: int) -> frozenset[Process]:
        """One look at one kind; returns its members that moved no byte for long."""
        is_first = not kind.there and not kind.opened
        for member, met in list(kind.there.items()):
            if member not in there:
                del kind.there[member]
                kind.lifetimes.append(at - met)
                kind.closed += 1
        for member, backend in there.items():
            if member not in kind.there:
                kind.there[member] = backend.started
                if backend.started > at - MINUTE:
                    kind.begun.append(backend.started)
                kind.opened += 1
        kind.forget_begun(at)
        quiet = max(self._idle_after, kind.lived_at_most())
        idle = frozenset(
            member
            for member, backend in there.items()
            if backend.title.activity == Activity.IDLE and at - quiet_since(backend) >= quiet
        )
        if is_first:  # what stood when we came did not grow before our eyes
            kind.idle, kind.at_window = len(idle), (kind.opened, kind.closed)
        if at - kind.window_at >= self._window:
            self._end_window(kind, len(idle), at)
        return idle

    def _end_window(self, kind: _Kind, idle: int, at: int) -> None:
        opened, closed = kind.opened - kind.at_window[0], kind.closed - kind.at_window[1]
        if idle > kind.idle and opened > closed:
            if not kind.grown:
                kind.onset, kind.at_onset = kind.window_at, (kind.idle, *kind.at_window)
            kind.grown, kind.flat = kind.grown + 1, 0
        else:
            kind.flat += 1
            if not kind.is_growing or kind.flat >= WINDOWS:
                kind.grown = 0
        kind.window_at, kind.idle, kind.at_window = at, idle, (kind.opened, kind.closed)


def _forget_some(kinds: dict[str, _Kind]) -> None:
    """Lets go of kinds that have no connection, the oldest first, when there are too many."""
    gone = [name for name, kind in kinds.items() if not kind.there]
    for name in gone[: max(0, len(gone) - _REMEMBERED)]:
        del kinds[name]
