"""What one look says of a server: the leaks that stand, and those that cannot be told.

The rule: a leak is what the daemon would open an episode for, a finding older than its `after`. What cannot be dated is
no verdict: one look does not wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pgsonar.detectors import Rules
from pgsonar.model import Connection, Destination, Finding, Moment, Pooling, Severity, Sight


class Verdict(NamedTuple):
    """One leak: the findings of one kind and identity, the oldest first."""

    kind: str
    identity: str
    findings: list[Finding]
    severity: Severity

    @property
    def onset(self) -> int | None:
        return self.findings[0].onset


def verdicts(findings: Iterable[Finding], at: int) -> list[Verdict]:
    """The leaks that stand, the most members first, of settled findings."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.opens and _age(finding, at) >= (finding.after or 0):
            groups.setdefault((finding.kind, finding.identity), []).append(finding)
    found = [
        Verdict(kind, identity, sorted(members, key=_onset), max(finding.severity for finding in members))
        for (kind, identity), members in groups.items()
    ]
    return sorted(found, key=lambda verdict: (-len(verdict.findings), verdict.kind, verdict.identity))


def _age(finding: Finding, at: int) -> int:
    """How long it is known to stand. What a detector cannot date itself stands since now."""
    until = at if finding.counts_until is None else min(at, finding.counts_until)
    return until - (at if finding.onset is None else finding.onset)


def _onset(finding: Finding) -> int:
    return finding.onset or 0


def untold(sight: Sight, rules: Rules) -> dict[str, str]:
    """The kinds that cannot be told of a server: why, and what would change that."""
    told = ((rule.kind, rule.detector.cannot_tell(sight)) for rule in rules.servers)
    return {kind: reason for kind, reason in told if reason is not None}


class Seen(NamedTuple):
    """One server in one look."""

    sight: Sight
    kinds: tuple[str, ...]  # that were looked for
    found: list[Verdict]
    untold: dict[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """All that one look found."""

    moment: Moment
    servers: list[Seen]
    poolings: list[Pooling] = field(default_factory=list)
    destinations: list[tuple[Destination, list[Connection]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what could not be seen at all

    @property
    def found_something(self) -> bool:
        """Whether there is a server, or a connection to one."""
        return bool(self.servers or self.destinations)
