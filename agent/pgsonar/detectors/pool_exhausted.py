"""The slots of a server run out.

Used slots are counted from the processes, so the count holds logins that never finish and backends without a client,
which a count of pg_stat_activity or of sockets misses. Measured against what ordinary clients can have: max_connections
less the reserved slots. Who holds most of them is named in any case. Without a known ceiling only refusals tell, where
the server's log is read; they open at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pgsonar.detectors.evidence import Evidence
from pgsonar.detectors.holders import holders
from pgsonar.detectors.seeing import no_utilization
from pgsonar.detectors.shares import Shares
from pgsonar.model import Finding, Sight


@dataclass(frozen=True)
class PoolExhausted:
    """Finds servers whose slots are nearly or wholly used, by share of the ceiling."""

    shares: Shares = field(default_factory=Shares)

    kind = "pool_exhausted"
    after = 0.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_utilization(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        share = sight.ledger.utilization
        judgement = self.shares.judge(share, sight.refused)
        if judgement is None:
            return
        kinds = {f"pgsonar.slot.holder.{name}": count for name, count in sight.ledger.holders.items() if count}
        yield Finding(
            kind=self.kind,
            server=sight.server.id,
            identity="",
            onset=None,
            severity=judgement.severity,
            opens=judgement.opens,
            confidence="likely" if sight.server.limits.guessed else "certain",
            evidence=_evidence(sight, share) | kinds,
            holders=holders(sight),
        )


def _evidence(sight: Sight, share: float | None) -> Evidence:
    evidence: Evidence = {} if share is None else {"pgsonar.slot.utilization": round(share, 4)}
    return evidence | ({"pgsonar.refused": sight.refused} if sight.refused else {})
