"""A session that opened a transaction and does nothing in it: it holds its slot, its locks and the vacuum horizon.

Seen in the title (`idle in transaction`, `idle in transaction (aborted)`), believed only while neither context switches
nor queues move: a transaction of short statements shows the same title in every sample.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TypedDict

from pgsonar.detectors.evidence import Client, client_of, slot_evidence, who
from pgsonar.detectors.seeing import no_activities
from pgsonar.model import SECOND, Activity, Backend, Finding, Severity, Sight
from pgsonar.tracking.stillness import idle_since, is_doubted, unmoved_since

STANDING = 30 * SECOND  # how long a share of the slots must stand before it is more than a ticket
SHARE_OF_CEILING = 0.10
SHARE_OF_POOL = 0.50
POOL = 4  # sessions of one identity that make a pool
TOGETHER = 5 * SECOND  # sessions that start within this are one job (pg_dump -j, a parallel index build)
_JOB = re.compile(r"COPY|CREATE|ALTER|REINDEX|REFRESH|CLUSTER|VACUUM")


class Onset(TypedDict):
    """The fields of a Finding that say since when."""

    onset: int
    onset_source: str


class IdleInTransaction:
    """Finds transactions left open.

    Warning; high while others wait for a lock in the same database, or once a tenth of the slots or half of a pool has
    stood open for half a minute; info where sessions that began with it run a dump or DDL.
    """

    kind = "idle_in_transaction"
    after = 300.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_activities(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        members = [b for b in sight.backends if _stands(b)]
        if not members:
            return
        jobs = [b for b in sight.backends if _JOB.match(b.title.activity or "")]
        is_severe = _Severe(sight, members)
        told_at = sight.reading.at if sight.reading is not None else None
        for backend in members:
            job = _part_of_a_job(backend, jobs)
            aborted = backend.title.activity == Activity.ABORTED
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=who(backend),
                **_member(backend, is_job=job),
                **_onset(backend, told_at),
                opens=not is_doubted(backend),
                severity=Severity.INFO if job else Severity.HIGH if is_severe(backend) else Severity.WARNING,
                evidence=slot_evidence(backend, sight) | ({"pgsonar.leak.aborted": True} if aborted else {}),
                alternative="one of several sessions that run a dump or DDL together" if job else None,
            )


def _member(backend: Backend, *, is_job: bool) -> Client:
    """A dump that runs in several sessions is none to end."""
    client = client_of(backend)
    client["is_protected"] = client["is_protected"] or is_job
    return client


def _stands(backend: Backend) -> bool:
    in_transaction = backend.title.activity in (Activity.IN_TRANSACTION, Activity.ABORTED)
    # Without the context switches nothing tells a leak from a busy transaction.
    return in_transaction and backend.switches is not None


def _onset(backend: Backend, told_at: int | None) -> Onset:
    since = idle_since(backend, told_at)
    return Onset(onset=since.at, onset_source="observed" if since.is_observed else "estimated")


class _Severe:
    """Somebody waits for a lock in the same database, or a standing share of the ceiling or of the pool is gone."""

    def __init__(self, sight: Sight, members: list[Backend]) -> None:
        standing = [b for b in members if sight.at - unmoved_since(b) >= STANDING]
        ceiling = sight.server.limits.ceiling
        self._waited_for = {_database(b) for b in sight.backends if b.title.waiting} - {None}
        self._is_share = bool(ceiling) and len(standing) >= SHARE_OF_CEILING * (ceiling or 0)
        self._standing = Counter(who(b) for b in standing)
        self._pools = Counter(who(b) for b in sight.backends) if standing else Counter[str]()

    def __call__(self, backend: Backend) -> bool:
        pool = self._pools[who(backend)]
        is_pool = pool >= POOL and self._standing[who(backend)] >= SHARE_OF_POOL * pool
        return self._is_share or is_pool or _database(backend) in self._waited_for


def _database(backend: Backend) -> str | None:
    """Its database, or what stands for it where nobody can tell that from the user."""
    return backend.database or backend.title.names


def _part_of_a_job(backend: Backend, jobs: list[Backend]) -> bool:
    """Whether sessions of the same identity that started with it run a dump or DDL."""
    return any(
        abs(other.started - backend.started) <= TOGETHER
        and _database(other) == _database(backend)
        and who(other) == who(backend)
        for other in jobs
    )
