"""A client that opens a connection for each thing it does: every one costs a fork and a login.

No slot is held for long, but a storm of them fills the accept queue and the limit of children, and most of the time
goes into connecting. Bursts, probes once a second and the cycles of a pooler are far below.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.seeing import no_sockets
from pgsonar.model import SECOND, Finding, Severity, Sight
from pgsonar.tracking.churn import SHORT


class ConnectionThrash:
    """Finds clients that connect again and again."""

    kind = "connection_thrash"
    after = 10.0
    minimum = 5.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for thrash in sight.thrash:
            users = {b.user for b in sight.backends if b.title.host == thrash.client and b.user}
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=thrash.client,
                address=thrash.client,
                user=users.pop() if len(users) == 1 else None,
                onset=thrash.since,
                severity=Severity.WARNING,
                evidence={
                    "pgsonar.connection.rate": round(thrash.rate, 1),
                    "pgsonar.connection.shorter_than": SHORT / SECOND,
                },
                alternative="a load test, or a job that runs one program for each row",
            )
