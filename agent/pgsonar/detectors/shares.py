"""How severe it is that a share of a limit is in use: the same for the slots of a server and of a role or a database.

The rule: a refusal is the worst there is, whatever the share; and what has begun at a share ends a little below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pgsonar.model import Severity

RELEASE = 0.05  # an episode ends this far below the share at which it began


class Judgement(NamedTuple):
    severity: Severity
    opens: bool  # else it only keeps open what is


@dataclass(frozen=True)
class Shares:
    """From which share on it is how severe."""

    warning: float = 0.80
    high: float = 0.90
    critical: float = 0.95

    def judge(self, share: float | None, refused: int) -> Judgement | None:
        """What a share (None: unknown) and a number of refusals amount to; None: nothing."""
        if refused:
            return Judgement(Severity.CRITICAL, opens=True)
        if share is None or share < self.warning - RELEASE:
            return None
        severity = Severity.WARNING
        if share >= self.high:
            severity = Severity.HIGH
        if share >= self.critical:
            severity = Severity.CRITICAL
        return Judgement(severity, opens=share >= self.warning)
