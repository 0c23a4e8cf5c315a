"""Which leak is the cause of which, and who is to be woken: one cause, one page.

The rule: an episode points at its root when they share members or when the root holds the slots it is about. Only what
somebody must act on now wakes anybody, and the root does it for all that it has caused; what a root does not say loudly
enough, its consequence says itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from pgsonar.model import SECOND, Activity, Backend, Episode, Severity, Sight, TcpState

TIGHT = 0.8  # share of the slots
TIGHT_FOR = 300 * SECOND
MANY_ORPHANS = 5
_SHARE_OF_CAUSE = 0.1  # of the ceiling: what holds less did not fill it
_CAUSES_TOLD = 3

# What holds slots for nothing, and so uses them up.
HOLDERS = (
    *("idle_in_transaction", "idle_leak", "orphaned_backend", "orphaned_backend_no_socket"),
    *("half_open", "network_path", "slow_reader", "auth_stuck"),
)
# kind: the kinds that explain it when they share members with it, the best first.
_EXPLAINED_BY = {
    "pooler_forgotten_server": ("orphaned_backend", "orphaned_backend_no_socket"),
    "unaccounted": ("auth_stuck", "orphaned_backend_no_socket", "orphaned_backend"),
    "half_open": ("network_path",),
    "idle_in_transaction": ("network_path", "half_open"),
    "idle_leak": ("network_path", "half_open"),
}
_IDLE = ("idle_in_transaction", "idle_leak")
_ORPHANS = ("orphaned_backend", "orphaned_backend_no_socket")
_ALWAYS = ("accept_queue", "network_path", "pooler_waiting")
_AT_CRITICAL = ("pool_exhausted", "auth_stuck")


class Cause(NamedTuple):
    """What is behind an episode, and whether it is to wake somebody."""

    root: str | None  # the id of the episode that has caused it; None: it stands for itself
    pages: bool
    parts: tuple[str, ...] = ()  # of slots that run out, the biggest first


class Causes:
    """Judges the open episodes by one another. Remembers since when each server is nearly full."""

    def __init__(self) -> None:
        self._tight_since: dict[str, int] = {}

    def settle(self, episodes: Collection[Episode], at: int) -> dict[str, Cause]:
        """The cause of each, by its id."""
        for server, share in {e.server.id: e.slots.share for e in episodes if e.slots is not None}.items():
            if share is not None and share >= TIGHT:
                self._tight_since.setdefault(server, at)
            else:
                self._tight_since.pop(server, None)
        by_id = {episode.id: episode for episode in episodes}
        holding = {e.id: _holding(e, episodes) for e in episodes if e.kind == "pool_exhausted"}
        nearest = {episode.id: _root(episode, episodes, holding.get(episode.id, ())) for episode in episodes}
        causes = {}
        for episode in episodes:
            root = _first_of_all(episode.id, nearest)
            pages = self._wakes(episode, at) and not (root is not None and self._wakes(by_id[root], at))
            parts = (f"{len(e.members)} slots: {e.kind} of {e.identity}" for e in holding.get(episode.id, ()))
            causes[episode.id] = Cause(root, pages, tuple(islice(parts, _CAUSES_TOLD)))
        return causes

    def _wakes(self, episode: Episode, at: int) -> bool:
        if episode.is_shadow:
            return False
        if episode.kind in _AT_CRITICAL:
            return episode.severity >= Severity.CRITICAL
        if episode.kind == "idle_in_transaction":
            return episode.severity >= Severity.HIGH
        if episode.kind in _ORPHANS:
            since = self._tight_since.get(episode.server.id, at)
            waits = any(finding.evidence.get("pgsonar.leak.waits_for_lock") for finding in episode.findings)
            return waits or len(episode.members) >= MANY_ORPHANS or at - max(since, episode.onset) >= TIGHT_FOR
        return episode.kind in _ALWAYS


def suspects(sight: Sight, episodes: Iterable[Episode]) -> list[Backend]:
    """Idle sessions whose client may have gone unseen: those that leak, and those from where others fell silent."""
    there = [episode for episode in episodes if episode.server.id == sight.server.id]
    leaking = {member.pid for episode in there if episode.kind in _IDLE for member in episode.members}
    silent = {c.socket.remote.address for c in sight.connections if c.silent_since is not None}
    return [
        backend
        for backend in sight.backends
        if backend.title.activity in (Activity.IDLE, Activity.IN_TRANSACTION, Activity.ABORTED)
        and (connection := backend.connection) is not None
        and connection.socket.state == TcpState.ESTABLISHED
        and connection.socket.inode
        and connection.silent_since is None
        and (backend.pid in leaking or connection.socket.remote.address in silent)
    ]


def _first_of_all(episode: str, nearest: Mapping[str, str | None]) -> str | None:
    """The cause of the cause, and so on; two that explain each other end it."""
    passed, root = {episode}, nearest[episode]
    while root is not None and (above := nearest[root]) is not None and above not in passed:
        passed.add(root)
        root = above
    return root


def _holding(full: Episode, episodes: Iterable[Episode]) -> list[Episode]:
    """The episodes that hold slots of a server, the biggest first."""
    there = (e for e in episodes if e.server.id == full.server.id and e.kind in HOLDERS)
    return sorted(there, key=lambda e: (-len(e.members), e.onset))


def _root(episode: Episode, episodes: Iterable[Episode], holding: Iterable[Episode]) -> str | None:
    """The episode that explains this one most directly."""
    found: Iterable[Episode]
    there = [e for e in episodes if e is not episode and e.server.id == episode.server.id]
    if episode.kind == "pool_exhausted":
        found = (e for e in holding if _has_filled(e, episode))
    elif episode.kind == "role_or_database_limit":
        names = {(f.user, f.database) for f in episode.findings}
        found = (e for e in there if e.kind in HOLDERS and _is_of(e, names))
    elif episode.kind == "pooler_waiting":
        found = (e for e in episodes if e.kind in HOLDERS and _holds_pool(e, episode))
    else:
        pids = {member.pid for member in episode.members} - {None}
        kinds = _EXPLAINED_BY.get(episode.kind, ())
        found = (e for kind in kinds for e in there if e.kind == kind and pids & {member.pid for member in e.members})
    return next((e.id for e in found), None)


def _has_filled(cause: Episode, full: Episode) -> bool:
    """Whether its members are a share worth naming, or all that is too much."""
    ceiling = full.slots.ceiling if full.slots is not None else None
    if not ceiling or full.slots is None:
        return False
    number = len(cause.members)
    return number >= _SHARE_OF_CAUSE * ceiling or (full.slots.used - number) / ceiling < TIGHT


def _is_of(episode: Episode, names: set[tuple[str | None, str | None]]) -> bool:
    """Whether it holds connections of a role or of a database."""
    return any(
        finding.user == user or (user is None and finding.database == database)
        for user, database in names
        for finding in episode.findings
    )


def _holds_pool(episode: Episode, waiting: Episode) -> bool:
    """Whether its members are connections of the pool that clients wait for."""
    pool = waiting.findings[0]
    return any(finding.user == pool.user and finding.via == waiting.server.label for finding in episode.findings)
