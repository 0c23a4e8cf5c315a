"""A pool in session mode whose server connections are all held by clients that ask for nothing.

That is how session mode works, so it is told and never pages: a client that comes now looks active and has no server;
PgBouncer counts it as waiting only from its first query.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import Evidence
from pgsonar.model import Finding, Pool, PoolerClient, PoolerSight, Severity

SESSION = "session"


class PoolerPinned:
    """Finds idle clients that keep others from a server."""

    kind = "pooler_pinned"
    after = 60.0
    minimum = 0.0

    def cannot_tell(self, sight: PoolerSight) -> str | None:  # noqa: ARG002 - what is in sight was told
        return None

    def examine(self, sight: PoolerSight) -> Iterator[Finding]:
        for pool in sight.reading.pools:
            if pool.mode != SESSION or pool.paused or pool.size is None or pool.servers_active < pool.size:
                continue
            of_pool = [c for c in sight.reading.clients if (c.database, c.user) == (pool.database, pool.user)]
            unserved = sum(client.link is None for client in of_pool)
            for client in of_pool:
                since = sight.quiet_since.get(client.ptr)
                if unserved and client.link is not None and since is not None:
                    yield self._finding(sight, pool, client, since, unserved)

    def _finding(self, sight: PoolerSight, pool: Pool, client: PoolerClient, since: int, unserved: int) -> Finding:
        pids = {server.ptr: server.backend_pid for server in sight.reading.servers}
        told: dict[str, str | int | None] = {
            "db.client.connection.pool.name": f"{sight.server.label}/{pool.database}/{pool.user}",
            "pgsonar.pool.unserved": unserved,
            "pgsonar.pool.size": pool.size,
            "pgsonar.pool.mode": pool.mode,
            "postgresql.application_name": client.application,
        }
        evidence: Evidence = {key: value for key, value in told.items() if value is not None}
        return Finding(
            kind=self.kind,
            server=sight.server.id,
            identity=f"{pool.user}@{pool.database}",
            pid=pids.get(client.link or ""),
            address=client.address,
            port=client.port,
            user=pool.user,
            database=pool.database,
            onset=since,
            onset_source="estimated",  # to the interval of the readings
            counts_until=sight.reading.at,
            severity=Severity.INFO,
            evidence=evidence,
            alternative="pool_mode = transaction would share them, where the application keeps nothing in its session",
        )
