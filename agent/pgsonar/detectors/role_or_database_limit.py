"""A role or a database comes to its own CONNECTION LIMIT, whatever is free on the server.

The limits are known from a login (superusers have none); how many connections are used, from titles. Where only the
server's log is read, a refusal alone tells, and opens at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pgsonar.detectors.evidence import Evidence
from pgsonar.detectors.shares import Shares
from pgsonar.model import BackendKind, Finding, Sight


@dataclass(frozen=True)
class RoleOrDatabaseLimit:
    """Finds roles and databases whose connections are nearly or wholly used, by share of their limit."""

    shares: Shares = field(default_factory=Shares)

    kind = "role_or_database_limit"
    after = 0.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        if sight.reading is not None or sight.refused_by:
            return None
        return "limits of roles and databases are known to the server alone: add receivers.postgresql"

    def examine(self, sight: Sight) -> Iterator[Finding]:
        if sight.reading is None and not sight.refused_by:
            return
        clients = [b for b in sight.backends if b.kind is BackendKind.CLIENT]
        used = Counter(("role", client.user) for client in clients if client.user)
        used.update(("database", client.database) for client in clients if client.database)
        limits: dict[tuple[str, str], int] = {}
        if sight.reading is not None:
            limits = {("role", name): limit for name, limit in sight.reading.role_limits.items()}
            limits |= {("database", name): limit for name, limit in sight.reading.database_limits.items()}
        for limited in sorted(limits.keys() | sight.refused_by.keys()):
            yield from self._examine_one(sight, limited, used[limited], limits.get(limited))

    def _examine_one(self, sight: Sight, limited: tuple[str, str], used: int, limit: int | None) -> Iterator[Finding]:
        refused = sight.refused_by.get(limited, 0)
        judgement = self.shares.judge(used / limit if limit else None, refused)
        if judgement is None:
            return
        what, name = limited
        told: dict[str, str | int | None] = {
            f"pgsonar.limit.{what}": name,
            "pgsonar.limit.used": used,
            "pgsonar.limit.connections": limit,
            "pgsonar.refused": refused or None,
        }
        evidence: Evidence = {key: value for key, value in told.items() if value is not None}
        yield Finding(
            kind=self.kind,
            server=sight.server.id,
            identity=f"{what} {name}",
            user=name if what == "role" else None,
            database=name if what == "database" else None,
            onset=None,
            severity=judgement.severity,
            opens=judgement.opens,
            evidence=evidence,
        )
