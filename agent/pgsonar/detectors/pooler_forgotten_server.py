"""A session that PgBouncer has closed and counts no more, while the server still runs its statement.

PgBouncer drops the connection when a client leaves in mid query and opens another one in its place: the server then
holds one slot more than the pool is large. The session itself is an orphaned backend; this names the pooler it came by.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import client_of, slot_evidence
from pgsonar.detectors.seeing import no_processes, no_sockets
from pgsonar.model import Finding, Severity, Sight


class PoolerForgottenServer:
    """Finds sessions beyond a pooler's pool."""

    kind = "pooler_forgotten_server"
    after = 2.0
    minimum = 1.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight) or no_processes(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for backend in sight.backends:
            if backend.via is None or not backend.via.has_forgotten or backend.connection is None:
                continue
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=backend.via.pooler,
                **client_of(backend),
                onset=backend.connection.state_since,
                severity=Severity.HIGH,
                evidence=slot_evidence(backend, sight),
                alternative="PgBouncer itself was restarted while the statement ran",
            )
