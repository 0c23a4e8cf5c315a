"""A client that began to log in and never finishes: it holds a slot that pg_stat_activity does not show.

The slot is taken when the startup packet is read, before the password is asked for, and the superuser reserve is only
looked at afterwards: enough such clients lock everybody out. PostgreSQL 18 shows them as `starting`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import client_of, phase_of_login, seen_since_fork, slot_evidence
from pgsonar.detectors.seeing import no_logins_under_way
from pgsonar.model import LOGIN_ACTIVITIES, Backend, BackendKind, Finding, Severity, Sight
from pgsonar.tracking.stillness import unmoved_since

MANY = 3  # fewer stuck logins than this, or than a tenth of the ceiling, are a ticket


class AuthStuck:
    """Finds logins that do not move.

    Warning; high from three, or a tenth of the slots where that is more; critical when no slot is left.
    """

    kind = "auth_stuck"
    after = 5.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_logins_under_way(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        stuck = [b for b in sight.backends if b.kind is BackendKind.CLIENT and _logging_in(b)]
        if not stuck:
            return
        ceiling, most = sight.server.limits.ceiling, sight.server.limits.max_connections
        if most is not None and sight.ledger.used >= most:
            severity = Severity.CRITICAL
        elif len(stuck) >= max(MANY, 0.1 * (ceiling or 0)):
            severity = Severity.HIGH
        else:
            severity = Severity.WARNING
        for backend in stuck:
            client = client_of(backend)
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=client["address"] or "unix socket",
                **client,
                onset=unmoved_since(backend),
                onset_source=seen_since_fork(backend),
                severity=severity,
                evidence=slot_evidence(backend, sight) | phase_of_login(backend, sight.at),
                alternative="a lock on a catalog holds the login back"
                if backend.title.waiting
                else "an authentication server (LDAP, RADIUS, PAM) that does not answer",
            )


def _logging_in(backend: Backend) -> bool:
    return backend.title.activity in LOGIN_ACTIVITIES and backend.switches is not None
