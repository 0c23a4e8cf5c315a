"""The detectors, one file a leak, and the rules by which their findings count.

The rule: a detector looks at one server, one pooler or one database elsewhere at one instant and has no memory; what
must be remembered (since when, how long unmoved) is kept by the tables of connections and backends. `after` is how many
seconds from the onset make a leak, `minimum` is the least that any configuration can lower it to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pgsonar.config.schema import LeakKind, LeaksProcessor
from pgsonar.detectors.accept_queue import AcceptQueue
from pgsonar.detectors.auth_stuck import AuthStuck
from pgsonar.detectors.backend_busy_unread_input import BackendBusyUnreadInput
from pgsonar.detectors.client_socket_leak import ClientSocketLeak
from pgsonar.detectors.connection_thrash import ConnectionThrash
from pgsonar.detectors.half_open import HalfOpen
from pgsonar.detectors.idle_in_transaction import IdleInTransaction
from pgsonar.detectors.idle_leak import IdleLeak
from pgsonar.detectors.long_query import LongQuery
from pgsonar.detectors.network_path import NetworkPath
from pgsonar.detectors.orphaned_backend import OrphanedBackend
from pgsonar.detectors.orphaned_backend_no_socket import OrphanedBackendNoSocket
from pgsonar.detectors.pool_exhausted import PoolExhausted
from pgsonar.detectors.pooler_forgotten_server import PoolerForgottenServer
from pgsonar.detectors.pooler_pinned import PoolerPinned
from pgsonar.detectors.pooler_waiting import PoolerWaiting
from pgsonar.detectors.prestartup_stuck import PrestartupStuck
from pgsonar.detectors.role_or_database_limit import RoleOrDatabaseLimit
from pgsonar.detectors.shares import Shares
from pgsonar.detectors.slow_reader import SlowReader
from pgsonar.detectors.unaccounted import Unaccounted
from pgsonar.model import ClientSight, Finding, PoolerSight, Severity, Sight

Seen = TypeVar("Seen", Sight, PoolerSight, ClientSight)
Seen_contra = TypeVar("Seen_contra", Sight, PoolerSight, ClientSight, contravariant=True)


class Detector(Protocol[Seen_contra]):
    """Looks at one thing and says what is wrong with it now, or why it cannot tell and what would change that."""

    @property
    def kind(self) -> str: ...
    @property
    def after(self) -> float: ...
    @property
    def minimum(self) -> float: ...
    def examine(self, sight: Seen_contra, /) -> Iterable[Finding]: ...
    def cannot_tell(self, sight: Seen_contra, /) -> str | None: ...


@dataclass(frozen=True)
class Detectors:
    """All of them, by what they look at. The order is that of the screens."""

    servers: tuple[Detector[Sight], ...]
    poolers: tuple[Detector[PoolerSight], ...]
    clients: tuple[Detector[ClientSight], ...]


def detectors(leaks: LeaksProcessor) -> Detectors:
    """Every detector, with the settings that only it has."""
    exhausted, limit, idle = leaks.pool_exhausted, leaks.role_or_database_limit, leaks.idle_leak
    return Detectors(
        servers=(
            IdleInTransaction(),
            IdleLeak(idle.min_members, idle.window),
            OrphanedBackend(),
            OrphanedBackendNoSocket(),
            HalfOpen(),
            NetworkPath(),
            SlowReader(),
            AuthStuck(),
            PrestartupStuck(),
            PoolExhausted(Shares(exhausted.warning, exhausted.high, exhausted.critical)),
            RoleOrDatabaseLimit(Shares(limit.warning, limit.high, limit.critical)),
            AcceptQueue(),
            PoolerForgottenServer(),
            ConnectionThrash(),
            BackendBusyUnreadInput(),
            LongQuery(),
            Unaccounted(),
        ),
        poolers=(PoolerWaiting(), PoolerPinned()),
        clients=(ClientSocketLeak(),),
    )


class Rule(Generic[Seen]):
    """A detector as configured: when its findings make a leak, and how severe that is."""

    def __init__(self, detector: Detector[Seen], settings: LeakKind) -> None:
        after = detector.after if settings.after is None else settings.after
        self.detector: Detector[Seen] = detector
        self.kind = detector.kind
        self._minimum = detector.minimum
        self.is_on = settings.enabled
        self.is_shadow = settings.shadow
        self.after = self.nanoseconds(after)
        self.severity = None if settings.severity is None else Severity[settings.severity.upper()]

    def nanoseconds(self, after: float) -> int:
        """An `after`, no less than the kind allows."""
        return round(max(after, self._minimum) * 1e9)


@dataclass(frozen=True)
class Rules:
    """Those that are switched on, for some clients at least."""

    servers: Sequence[Rule[Sight]] = ()
    poolers: Sequence[Rule[PoolerSight]] = ()
    clients: Sequence[Rule[ClientSight]] = ()

    @property
    def all(self) -> list[Rule[Sight] | Rule[PoolerSight] | Rule[ClientSight]]:
        return [*self.servers, *self.poolers, *self.clients]

    def examine(
        self, servers: Iterable[Sight], poolers: Iterable[PoolerSight] = (), clients: Iterable[ClientSight] = ()
    ) -> list[Finding]:
        """What every detector says of everything it looks at."""
        return [
            *_examine(self.servers, servers),
            *_examine(self.poolers, poolers),
            *_examine(self.clients, clients),
        ]


def _examine(rules: Iterable[Rule[Seen]], sights: Iterable[Seen]) -> Iterable[Finding]:
    sights = list(sights)
    return (finding for rule in rules for sight in sights for finding in rule.detector.examine(sight))


def rules(leaks: LeaksProcessor) -> Rules:
    """The detectors that somebody wants."""
    made = detectors(leaks)
    return Rules(_wanted(made.servers, leaks), _wanted(made.poolers, leaks), _wanted(made.clients, leaks))


def _wanted(made: Iterable[Detector[Seen]], leaks: LeaksProcessor) -> list[Rule[Seen]]:
    every: list[Rule[Seen]] = [Rule(detector, getattr(leaks, detector.kind)) for detector in made]
    return [rule for rule in every if rule.is_on or _is_wanted_by_some(rule.kind, leaks)]


def _is_wanted_by_some(kind: str, leaks: LeaksProcessor) -> bool:
    return any(override.enabled and kind in (override.kinds or [kind]) for override in leaks.overrides)
