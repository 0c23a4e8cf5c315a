"""What detectors say, and the episodes it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from pgsonar.model.connections import ClientProcess
from pgsonar.model.moments import Moment
from pgsonar.model.servers import Server
from pgsonar.model.sockets import Endpoint


class Severity(IntEnum):
    """OpenTelemetry's SeverityNumber; `word` is what records and metrics carry."""

    INFO = 9
    WARNING = 13
    HIGH = 17
    CRITICAL = 21

    @property
    def word(self) -> str:
        return self.name.lower()


class Slots(NamedTuple):
    """How full a server is."""

    used: int
    ceiling: int | None

    @property
    def share(self) -> float | None:
        """Used / ceiling; None while that is unknown."""
        return self.used / self.ceiling if self.ceiling else None


class Member(NamedTuple):
    """One connection of an episode. None is unknown."""

    pid: int | None
    address: str | None
    port: int | None
    onset: int

    def text(self, onset_unix: int) -> str:
        """As `pgsonar.leak.member_list` spells it."""
        return " ".join("-" if part is None else str(part) for part in (self.pid, self.address, self.port, onset_unix))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One who holds slots of a server."""

    identity: str
    slots: int
    idle: int  # of them
    opened: int  # sessions within the last minute
    pids: tuple[int, ...] = ()  # of some of its sessions, the oldest first
    process: ClientProcess | None = None  # behind them, where it was looked for and found

    @property
    def text(self) -> str:
        """As `pgsonar.holder.N` spells it."""
        process = self.process.label if self.process is not None else "-"
        return f"{self.identity} {self.slots} {self.idle} {self.opened} {process}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a detector says of one member now. It has no memory; episodes have."""

    kind: str
    server: str
    identity: str  # members of one identity make one episode
    pid: int | None = None
    inner_pid: int | None = None  # as its server counts, in its own pid namespace
    address: str | None = None
    port: int | None = None
    onset: int | None  # None: the episode remembers when it first heard of it
    severity: Severity
    onset_source: str = "observed"  # observed, estimated, unknown
    confidence: str = "certain"  # certain, likely
    is_protected: bool = False  # a superuser, DDL, a copy, a backup: ending it is never offered
    opens: bool = True  # False: only keeps an open episode open (hysteresis)
    counts_until: int | None = None  # its age is proven up to here; None: up to now
    after: int | None = None  # ns from the onset that make it count, as configured; None: not settled yet
    is_shadow: bool = False  # told, and never acted upon
    user: str | None = None
    database: str | None = None
    evidence: dict[str, str | int | float | bool] = field(default_factory=dict)
    alternative: str | None = None
    client: ClientProcess | None = None
    holders: tuple[Holder, ...] = ()  # of what is nobody's leak alone: slots that run out
    via: str | None = None  # the pooler that it came through, to be compared with and never told
    peer: Endpoint | None = None  # who the server talks to, where that is not the client: a pooler


class EpisodeState(StrEnum):
    """The life of an episode; the transitions stand in episodes.tracker."""

    PENDING = "pending"
    OPEN = "open"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    LOST = "lost_from_sight"


@dataclass(slots=True)
class Episode:
    """One leak of one cause, from the first symptom to its end. Only episodes.tracker.EpisodeTracker changes one."""

    kind: str
    server: Server
    identity: str
    trace_id: int
    span_id: int
    state: EpisodeState
    severity: Severity
    onset: int
    onset_unix: int
    seen_at: int  # the last time a member stood
    findings: list[Finding]  # of the members that stand now, the oldest first
    members: list[Member]
    opened_at: int | None = None
    opened_unix: int | None = None
    peak_members: int = 0
    slots: Slots | None = None  # of the server, at the last look; None: it has none to tell of
    heartbeats: int = 0
    updated_at: int = 0
    told_members: int = 0  # members named by the last event
    ended_at: int | None = None
    ended_unix: int | None = None
    end_reason: str | None = None  # resolved, lost_from_sight, agent_stopped; of a segment: max_duration
    root: str | None = None  # the id of the episode that has caused this one; None: it stands for itself
    pages: bool = False  # somebody is to be woken
    told_page: bool = False  # what the last event said of that
    told_root: str | None = None
    is_shadow: bool = False
    is_restored: bool = False  # an earlier run of the agent has opened it
    flaps: int = 0  # times it had gone and came back before it was ended
    causes: tuple[str, ...] = ()  # of slots that run out, the biggest first
    segment: int = 1  # spans it has, the one that goes on included
    segment_unix: int | None = None  # when that began; None: at the onset
    previous_span: int | None = None  # of the segment before

    @property
    def span_start_unix(self) -> int:
        """Where the span that goes on begins."""
        return self.onset_unix if self.segment_unix is None else self.segment_unix

    @property
    def id(self) -> str:
        return f"{self.trace_id:032x}"


class EpisodeEvent(NamedTuple):
    """A step in an episode's life that is worth telling."""

    name: str  # opened, updated, resolved; continued: a span of it has ended, and it goes on
    episode: Episode
    # threshold, severity, page, cause, members, heartbeat, resolved, lost_from_sight, agent_stopped, max_duration
    because: str
    moment: Moment
