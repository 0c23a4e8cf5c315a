"""Clients of PgBouncer that wait long for a server connection: their pool is exhausted.

To the kernel they look like idle clients, and the server sees only a pool that is in use: the console alone tells.
Waiting for moments is what a pool is for, and while it is paused that is meant.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import Evidence
from pgsonar.model import Finding, Pool, PoolerSight, Severity


class PoolerWaiting:
    """Finds pools whose clients wait."""

    kind = "pooler_waiting"
    after = 60.0
    minimum = 0.0

    def cannot_tell(self, sight: PoolerSight) -> str | None:  # noqa: ARG002 - what is in sight was told
        return None

    def examine(self, sight: PoolerSight) -> Iterator[Finding]:
        for pool in sight.reading.pools:
            since = sight.waiting_since.get((pool.database, pool.user))
            if since is not None:
                yield self._finding(sight, pool, since)

    def _finding(self, sight: PoolerSight, pool: Pool, since: int) -> Finding:
        of_pool = [c for c in sight.reading.clients if (c.database, c.user) == (pool.database, pool.user)]
        waiting = [c for c in of_pool if c.state == "waiting"]
        longest = max(waiting, key=lambda client: client.wait, default=None)
        told: dict[str, str | int | float | None] = {
            "db.client.connection.pool.name": f"{sight.server.label}/{pool.database}/{pool.user}",
            "pgsonar.pool.waiting": pool.clients_waiting,
            "pgsonar.pool.max_wait": round(pool.max_wait, 1),
            "pgsonar.pool.used": pool.servers_active,
            "pgsonar.pool.size": pool.size,
            "pgsonar.pool.mode": pool.mode,
            "postgresql.application_name": longest.application if longest is not None else None,
        }
        evidence: Evidence = {key: value for key, value in told.items() if value is not None}
        return Finding(
            kind=self.kind,
            server=sight.server.id,
            identity=f"{pool.user}@{pool.database}",
            address=longest.address if longest is not None else None,
            port=longest.port if longest is not None else None,
            user=pool.user,
            database=pool.database,
            onset=since,
            onset_source="estimated",  # the console tells how long the oldest has waited, not who waited before
            counts_until=sight.reading.at,
            severity=Severity.HIGH,
            evidence=evidence,
            alternative="the pool is too small for what it is asked for, or its statements are slow",
        )
