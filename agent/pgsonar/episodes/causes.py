"""Which leak is the cause of which, and who is to be woken: one cause, one page.

The rule: an episode points at its root when they share members or when the root holds the slots it is about. Only what
somebody must act on now wakes anybody, and the root does it for all that it has caused; what a root does not say loudly
enough, its consequence says itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

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


class Causes:
    """Settles roots and pages of all open episodes. Remembers since when each server is nearly full."""

    def __init__(self) -> None:
        self._tight_since: dict[str, int] = {}

    def settle(self, episodes: Collection[Episode], at: int) -> None:
        """Sets `root`, `pages` and `causes`."""
        for server, share in {e.server.id: e.slots.share for e in episodes if e.slots is not None}.items():
            if share is not None and share >= TIGHT:
                self._tight_since.setdefault(server, at)
            else:
                self._tight_since.pop(server, None)
        for episode in episodes:
            root = _root(episode, episodes)
            episode.root = root.id if root is not None else None
        by_id = {episode.id: episode for episode in episodes}
        for episode in episodes:
            passed = {episode.id}
            while (above := by_id.get(episode.root or "")) is not None and above.root and above.root not in passed:
                passed.add(above.id)
                episode.root = above.root  # the cause of the cause
        for episode in episodes:
            above = by_id.get(episode.root or "")
            episode.pages = self._wakes(episode, at) and not (above is not None and self._wakes(above, at))

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


def _root(episode: Episode, episodes: Iterable[Episode]) -> Episode | None:
    there = [e for e in episodes if e is not episode and e.server.id == episode.server.id]
    if episode.kind == "pool_exhausted":
        holding = sorted((e for e in there if e.kind in HOLDERS), key=lambda e: (-len(e.members), e.onset))
        episode.causes = tuple(f"{len(e.members)} slots: {e.kind} of {e.identity}" for e in holding[:_CAUSES_TOLD])
        return next((e for e in holding if _has_filled(e, episode)), None)
    if episode.kind == "role_or_database_limit":
        names = {(f.user, f.database) for f in episode.findings}
        return next((e for e in there if e.kind in HOLDERS and _is_of(e, names)), None)
    if episode.kind == "pooler_waiting":
        return next((e for e in episodes if e.kind in HOLDERS and _holds_pool(e, episode)), None)
    pids = {member.pid for member in episode.members} - {None}
    for kind in _EXPLAINED_BY.get(episode.kind, ()):
        for other in there:
            if other.kind == kind and pids & {member.pid for member in other.members}:
                return other
    return None


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
