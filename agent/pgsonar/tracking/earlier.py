"""What an earlier run of the agent left open, for as long as it may take to be met again.

The rule: it is remembered here and nowhere else, and all of it expires here. The tables ask for what they cannot see
any more (when a socket vanished, how fast idle connections grew, which pooler forgot a session); the episodes ask
whether one that is not seen yet must still be waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from pgsonar.model import SECOND, Episode

AWAITED = 60 * SECOND  # for a server that is not seen yet
AWAITED_IN_SIGHT = 30 * SECOND  # for what is not seen on a server that is

EpisodeKey = tuple[str, str, str]  # server, kind, identity
_FIGURES = ("normal", "opened", "closed")  # as an idle_leak tells them


class LeftGrowth(NamedTuple):
    """Growth of idle connections that an earlier run saw."""

    onset: int
    normal: int
    opened: int
    closed: int


class _Left(NamedTuple):
    since: int
    episode: Episode | None  # None: this run knows all about it


class EarlierRun:
    """Keeps what is waited for, by episode."""

    def __init__(self) -> None:
        self._left: dict[EpisodeKey, _Left] = {}
        self._of: dict[tuple[str, str], list[Episode]] = {}  # what is told of them, by server and kind
        self._met: set[EpisodeKey] = set()
        self._told: set[tuple[EpisodeKey, int | None]] = set()  # with the pid: each is told once

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        return not self._left

    def leave(self, episodes: Iterable[Episode], at: int) -> None:
        """An earlier run left these open."""
        self._left |= {key_of(episode): _Left(at, episode) for episode in episodes}
        self._sort()

    def wait_for(self, episodes: Iterable[Episode], at: int) -> None:
        """What is open now, whose connections are forgotten: it has the time to be met again."""
        before = self._left
        self._met.clear()
        self._left = {key: _Left(at, before[key].episode if key in before else None) for key in map(key_of, episodes)}
        self._sort()

    def expire(self, at: int, in_sight: Collection[str]) -> None:
        """Forgets what had its time; `in_sight` are the servers that are seen now."""
        over = [
            key
            for key, left in self._left.items()
            if at - left.since >= (AWAITED_IN_SIGHT if key[0] in in_sight else AWAITED)
        ]
        if not over:
            return
        for key in over:
            del self._left[key]
            self._met.discard(key)
        self._told = {(key, pid) for key, pid in self._told if key in self._left}
        self._sort()

    def meet(self, key: EpisodeKey) -> None:
        """It was seen again: nothing is waited for, though more of its members may come."""
        if key in self._left:
            self._met.add(key)

    def is_awaited(self, key: EpisodeKey) -> bool:
        """Whether that it is not seen says nothing yet."""
        return key in self._left and key not in self._met

    # --- what the tables ask -------------------------------------------------------------------------------------

    def socket_lost_at(self, server: str, pid: int, port: int | None) -> int | None:
        """When the connection of a backend left the kernel's tables."""
        for episode in self._of.get((server, "orphaned_backend_no_socket"), ()):
            for member in episode.members:
                if (member.pid, member.port or 0) == (pid, port or 0) and self._tell_once(episode, pid):
                    return member.onset
        return None

    def forgetful_pooler(self, server: str, pid: int) -> str | None:
        """The pooler that had forgotten a session: no console tells of it now."""
        for episode in self._of.get((server, "pooler_forgotten_server"), ()):
            if any(member.pid == pid for member in episode.members) and self._tell_once(episode, pid):
                return episode.identity
        return None

    def growth(self, server: str, pids: Collection[int]) -> LeftGrowth | None:
        """The growth of the kind of connections that one of these is of."""
        for episode in self._of.get((server, "idle_leak"), ()):
            if any(member.pid in pids for member in episode.members) and self._tell_once(episode, None):
                told = episode.findings[0].evidence
                normal, opened, closed = (int(told.get(f"pgsonar.leak.{name}", 0)) for name in _FIGURES)
                return LeftGrowth(episode.onset, normal, opened, closed)
        return None

    def _sort(self) -> None:
        self._of = {}
        for (server, kind, _), left in self._left.items():
            if left.episode is not None:
                self._of.setdefault((server, kind), []).append(left.episode)

    def _tell_once(self, episode: Episode, pid: int | None) -> bool:
        asked = key_of(episode), pid
        if asked in self._told:
            return False
        self._told.add(asked)
        return True


def key_of(episode: Episode) -> EpisodeKey:
    """What an episode is known by."""
    return episode.server.id, episode.kind, episode.identity
