"""A session that opened a transaction and does nothing in it: it holds its slot, its locks and the vacuum horizon.

Seen in the title (`idle in transaction`, `idle in transaction (aborted)`), believed only while neither context switches
nor queues move: a transaction of short statements shows the same title in every sample.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TypedDict

from pgsonar.detectors.evidence import client_of, slot_evidence, who
from pgsonar.detectors.seeing import no_activities
from pgsonar.model import SECOND, Activity, Backend, Finding, Severity, Sight

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
    """Finds transactions left open."""

    kind = "idle_in_transaction"
    after = 300.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_activities(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        members = [b for b in sight.backends if _stands(b)]
        if not members:
            return
        pools: dict[str, list[Backend]] = defaultdict(list)
        for backend in sight.backends:
            pools[who(backend)].append(backend)
        jobs = [b for b in sight.backends if _JOB.match(b.title.activity or "")]
        high = _severe(sight, members, pools)
        for backend in members:
            job = _part_of_a_job(backend, jobs)
            aborted = backend.title.activity == Activity.ABORTED
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=who(backend),
                **client_of(backend),
                **_onset(backend),
                opens=backend.still_before is None,
                severity=Severity.INFO if job else Severity.HIGH if high else Severity.WARNING,
                evidence=slot_evidence(backend, sight) | ({"pgsonar.leak.aborted": True} if aborted else {}),
                alternative="one of several sessions that run a dump or DDL together" if job else None,
            )


def _stands(backend: Backend) -> bool:
    in_transaction = backend.title.activity in (Activity.IN_TRANSACTION, Activity.ABORTED)
    # Without the context switches nothing tells a leak from a busy transaction.
    return in_transaction and backend.switches is not None


def _onset(backend: Backend) -> Onset:
    """Since when it idles: as observed, else as the database tells, else at the latest since it was first seen."""
    if backend.still_before is not None:  # whether it has moved is in doubt
        return Onset(onset=backend.still_before, onset_source="observed")
    if backend.still_since > backend.first_seen:
        return Onset(onset=backend.still_since, onset_source="observed")
    session = backend.session
    told = session.state_since if session is not None and session.state == backend.title.activity else None
    if told is not None:
        return Onset(onset=min(told, backend.still_since), onset_source="observed")
    return Onset(onset=backend.still_since, onset_source="estimated")


def _severe(sight: Sight, members: list[Backend], pools: dict[str, list[Backend]]) -> bool:
    """Somebody waits for a lock in the same database, or a standing share of the ceiling or of a pool is gone."""
    databases = {b.title.database for b in members}
    if any(b.title.waiting and b.title.database in databases for b in sight.backends):
        return True
    standing = [b for b in members if sight.at - b.still_since >= STANDING]
    ceiling = sight.server.limits.ceiling
    if ceiling and len(standing) >= SHARE_OF_CEILING * ceiling:
        return True
    return any(
        len(pools[identity]) >= POOL and number >= SHARE_OF_POOL * len(pools[identity])
        for identity, number in Counter(who(b) for b in standing).items()
    )


def _part_of_a_job(backend: Backend, jobs: list[Backend]) -> bool:
    """Whether sessions of the same identity that started with it run a dump or DDL."""
    return any(
        abs(other.started - backend.started) <= TOGETHER
        and other.title.database == backend.title.database
        and who(other) == who(backend)
        for other in jobs
    )
