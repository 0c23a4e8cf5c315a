"""The detectors, one file a leak.

The rule: a detector looks at one server at one instant and has no memory; what must be remembered (since when, how long
unmoved) is kept by the tables of connections and backends. `after` is how many seconds from the onset make a leak,
`minimum` is the least that any configuration can lower it to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pgsonar.config.schema import LeakKind, LeaksProcessor
from pgsonar.detectors.accept_queue import AcceptQueue
from pgsonar.detectors.auth_stuck import AuthStuck
from pgsonar.detectors.idle_in_transaction import IdleInTransaction
from pgsonar.detectors.orphaned_backend import OrphanedBackend
from pgsonar.detectors.orphaned_backend_no_socket import OrphanedBackendNoSocket
from pgsonar.detectors.pool_exhausted import PoolExhausted
from pgsonar.detectors.prestartup_stuck import PrestartupStuck
from pgsonar.model import Finding, Severity, Sight


class Detector(Protocol):
    """Looks at one server and says what is wrong with it now, or why it cannot tell and what would change that."""

    @property
    def kind(self) -> str: ...
    @property
    def after(self) -> float: ...
    @property
    def minimum(self) -> float: ...
    def examine(self, sight: Sight) -> Iterable[Finding]: ...
    def cannot_tell(self, sight: Sight) -> str | None: ...


DETECTORS = (
    IdleInTransaction,
    OrphanedBackend,
    OrphanedBackendNoSocket,
    AuthStuck,
    PrestartupStuck,
    PoolExhausted,
    AcceptQueue,
)


class Rule:
    """A detector as configured: when its findings make a leak, and how severe that is."""

    def __init__(self, detector: Detector, settings: LeakKind) -> None:
        after = detector.after if settings.after is None else settings.after
        self.detector = detector
        self.kind = detector.kind
        self.after = round(max(after, detector.minimum) * 1e9)  # ns
        self.severity = None if settings.severity is None else Severity[settings.severity.upper()]


def rules(leaks: LeaksProcessor) -> list[Rule]:
    """The detectors that are switched on."""
    exhausted = leaks.pool_exhausted
    detectors: list[Detector] = [
        PoolExhausted(exhausted.warning, exhausted.high, exhausted.critical) if made is PoolExhausted else made()
        for made in DETECTORS
    ]
    settings = [(detector, getattr(leaks, detector.kind)) for detector in detectors]
    return [Rule(detector, chosen) for detector, chosen in settings if chosen.enabled]
