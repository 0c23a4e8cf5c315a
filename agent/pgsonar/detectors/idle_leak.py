"""Connections that are opened, left idle and never closed: they grow in number until the slots run out.

One look cannot tell them from a pool at rest, and neither can age: what tells is growth, window after window, without
closes. A pooler's own connections to the server are its pool and never a leak of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgsonar.detectors.evidence import assumed_by, client_of, slot_evidence
from pgsonar.detectors.seeing import no_activities
from pgsonar.model import Backend, Finding, Growth, Severity, Sight
from pgsonar.tracking.growth import WINDOWS
from pgsonar.tracking.stillness import quiet_since


@dataclass(frozen=True)
class IdleLeak:
    """Finds clients whose idle connections grow in number.

    Warning; info where the application or the role has the name of a known tool for backups, monitoring or jobs, which
    is assumed to hold sessions open on purpose.
    """

    min_members: int = 5
    window: float = 600.0  # seconds

    kind = "idle_leak"
    after = 0.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_activities(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for identity, growth in sight.growth.items():
            members = [b for b in sight.backends if (b.pid, b.started) in growth.members]
            if len(members) < self.min_members:
                continue
            for backend in members:
                yield self._finding(sight, identity, growth, backend)

    def _finding(self, sight: Sight, identity: str, growth: Growth, backend: Backend) -> Finding:
        name = assumed_by(backend)
        minutes = (sight.at - growth.onset) / 60e9
        return Finding(
            kind=self.kind,
            server=sight.server.id,
            identity=identity,
            **client_of(backend),
            onset=growth.onset,
            # `after` counts from the end of the windows that had to be seen first.
            counts_until=sight.at - round(WINDOWS * self.window * 1e9),
            severity=Severity.INFO if name else Severity.WARNING,
            confidence="likely",
            evidence=slot_evidence(backend, sight)
            | {
                "pgsonar.evidence.quiet_seconds": round((sight.at - quiet_since(backend)) / 1e9, 3),
                "pgsonar.leak.connections": growth.all,
                "pgsonar.leak.normal": growth.normal,
                "pgsonar.leak.opened": growth.opened,
                "pgsonar.leak.closed": growth.closed,
                "pgsonar.leak.growth_per_min": round((growth.opened - growth.closed) / max(minutes, 1e-3), 2),
            },
            alternative=(
                f"assumed to be held open on purpose, by its {name} alone: anything may have the name of a known tool"
                if name
                else "a pool that is still growing to its maximum, or more instances behind one address"
            ),
        )
