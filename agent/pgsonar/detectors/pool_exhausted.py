"""The slots of a server run out.

Used slots are counted from the processes, so the count holds logins that never finish and backends without a client,
which a count of pg_stat_activity or of sockets misses. Measured against what ordinary clients can have: max_connections
less the reserved slots. Without a known ceiling only refusals tell, where the server's log is read; they open at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgsonar.detectors.evidence import Evidence
from pgsonar.detectors.seeing import no_utilization
from pgsonar.model import Finding, Severity, Sight

RELEASE = 0.05  # an episode ends this far below the share at which it began


@dataclass(frozen=True)
class PoolExhausted:
    """Finds servers whose slots are nearly or wholly used, by share of the ceiling."""

    warning: float = 0.80
    high: float = 0.90
    critical: float = 0.95

    kind = "pool_exhausted"
    after = 0.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_utilization(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        share = sight.ledger.utilization
        if not sight.refused and (share is None or share < self.warning - RELEASE):
            return
        severity = Severity.WARNING
        if share is not None and share >= self.high:
            severity = Severity.HIGH
        if sight.refused or (share is not None and share >= self.critical):
            severity = Severity.CRITICAL
        holders = {f"pgsonar.slot.holder.{name}": count for name, count in sight.ledger.holders.items() if count}
        yield Finding(
            kind=self.kind,
            server=sight.server.id,
            identity="",
            onset=None,
            severity=severity,
            opens=bool(sight.refused) or (share is not None and share >= self.warning),
            confidence="likely" if sight.server.limits.guessed else "certain",
            evidence=_evidence(sight, share) | holders,
        )


def _evidence(sight: Sight, share: float | None) -> Evidence:
    evidence: Evidence = {} if share is None else {"pgsonar.slot.utilization": round(share, 4)}
    return evidence | ({"pgsonar.refused": sight.refused} if sight.refused else {})
