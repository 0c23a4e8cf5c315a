"""A client that connected and never said who it is: no slot, but one of the children a postmaster can have.

The child still shows the postmaster's own command line, because it has read no startup packet (a port probe that keeps
its connection, a TLS request that is never followed up). Where the packet was sent and lies unread, the delay is the
server's own: it looks up the client's name before it reads (log_hostname), or gets no CPU. PostgreSQL ends the child
after authentication_timeout and writes no line about it. At the limit of children nobody gets in any more, whatever
max_connections says.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import Evidence, client_of, connection_evidence, phase_of_login, seen_since_fork
from pgsonar.detectors.seeing import no_own_processes
from pgsonar.model import BackendKind, Finding, Severity, Sight

NEAR = 0.9  # share of the limit of children at which the next client may be refused


class PrestartupStuck:
    """Finds children that wait for a startup packet.

    Info; critical from nine tenths of the limit of children on.
    """

    kind = "prestartup_stuck"
    after = 5.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_own_processes(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        waiting = [b for b in sight.backends if b.title.kind is BackendKind.PRESTARTUP]
        limit = sight.server.limits.children
        children = sum(b.kind is not BackendKind.WORKER for b in sight.backends)
        is_near = limit is not None and children >= NEAR * limit
        told: Evidence = {"pgsonar.child.count": children}
        told |= {"pgsonar.child.limit": limit} if limit is not None else {}
        for backend in waiting:
            client, phase = client_of(backend), phase_of_login(backend, sight.at)
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=client["address"] or "an unknown address",
                **client,
                onset=backend.started,
                onset_source=seen_since_fork(backend),
                severity=Severity.CRITICAL if is_near else Severity.INFO,
                evidence=told | connection_evidence(backend) | phase,
                alternative="a server without CPU" if phase else "a health check that opens the port and keeps it open",
            )
