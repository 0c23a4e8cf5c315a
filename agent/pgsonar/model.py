"""The nouns of pgsonar, as plain values.

The rule: this module imports nothing of ours. Times named `at`, `since`, `onset` or `started` are nanoseconds of
CLOCK_BOOTTIME (the clock of /proc/PID/stat, which goes on during suspend and never jumps); times named `..._unix`
are nanoseconds since the epoch. A `Moment` carries both.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

SECOND = 1_000_000_000  # ns


class Moment(NamedTuple):
    """One instant on both clocks, ns."""

    at: int
    unix: int

    def unix_of(self, at: int) -> int:
        """The wall clock time of another instant, by today's distance of the two clocks."""
        return self.unix - (self.at - at)


class TcpState(IntEnum):
    """Socket states by the kernel's number (include/net/tcp_states.h); `spelling` is OpenTelemetry's."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11

    @property
    def spelling(self) -> str:
        return self.name.lower()


class TcpTimer(IntEnum):
    """The `tr` column: which timer is armed. KEEPALIVE is the normal state of a PostgreSQL server socket."""

    NONE = 0
    RETRANSMIT = 1
    KEEPALIVE = 2
    TIME_WAIT = 3
    ZERO_WINDOW_PROBE = 4


class Endpoint(NamedTuple):
    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Socket(NamedTuple):
    """One row of the kernel's TCP tables. IPv4-mapped addresses are written as IPv4."""

    local: Endpoint
    remote: Endpoint
    state: TcpState
    timer: int
    tx_queue: int  # bytes not acknowledged
    rx_queue: int  # bytes not read; LISTEN: connections not accepted
    retransmits: int
    probes: int
    uid: int
    inode: int  # 0: no process owns it


class Transferred(NamedTuple):
    """Bytes a connection carried in all, as the kernel told them at its end."""

    sent: int  # acknowledged by the peer
    received: int


class ChangeKind(IntEnum):
    """Why the sampler reports a socket (enum pgs_change_kind of native/pgsonar.h)."""

    OPENED = 1
    CLOSED = 2
    STATE = 3
    INODE = 4
    QUEUE = 5
    PROBE = 6


class ScanStats(NamedTuple):
    """How good the scanning of one namespace is (struct pgs_scan_stats of native/pgsonar.h, in its order)."""

    scans: int
    walks: int
    lookups: int
    incomplete: int
    late: int
    missed: int
    malformed: int
    duplicates: int
    lost_changes: int
    resyncs: int
    opened: int
    closed: int
    events: int
    lost_events: int
    short_lived: int
    kernel_opened: int
    last_at: int
    last_cost: int
    last_cpu: int
    cpu: int
    max_gap: int
    last_lateness: int
    rows: int
    rows_skipped: int
    last_error: int
    last_errno: int
    source: int
    refusal: int
    events_on: int
    events_refusal: int
    has_gate: int

    @property
    def unseen(self) -> int:
        """Connections that came and went unseen, at most: the kernel counts those of other ports too."""
        return max(0, self.kernel_opened - self.opened)


class Details(NamedTuple):
    """What only TCP_INFO tells of a connection (struct pgs_details of native/pgsonar.h, after its first field)."""

    at: int
    cgroup: int
    bytes_sent: int
    bytes_received: int
    busy_time: int  # us
    rwnd_limited: int  # us
    sndbuf_limited: int  # us
    last_sent: int  # ms ago
    last_received: int  # ms ago
    last_ack: int  # ms ago
    retransmitted: int
    not_sent: int
    rtt: int  # us


class ClientProcess(NamedTuple):
    """The process at the client's end of a connection, on this host or node. None is: none, or unknown."""

    pid: int
    started: int
    command: str
    user: str | None = None
    unit: str | None = None  # of systemd
    container_id: str | None = None
    pod_uid: str | None = None

    @property
    def label(self) -> str:
        """What people call it: `payroll.service (python3, pid 4711)`."""
        place = self.unit or (f"container {self.container_id[:12]}" if self.container_id else None)
        who = f"{self.command}, pid {self.pid}"
        return f"{place} ({who})" if place else who


@dataclass(frozen=True, slots=True)
class Pooler:
    """PgBouncer on one port of one network namespace; several processes share a port by so_reuseport."""

    id: str
    pids: tuple[int, ...]
    netns: int
    port: int | None  # None: it listens on unix sockets alone, or cannot be told
    address: str
    addresses: frozenset[str] = frozenset()  # it listens on; empty: unknown
    socket_directory: str | None = None
    config_file: str | None = None
    settings: tuple[tuple[str, str], ...] = ()  # of its configuration, without secrets
    missing: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        return self.pids[0]

    @property
    def label(self) -> str:
        return f"{self.address}:{self.port if self.port is not None else '?'}"


@dataclass(frozen=True, slots=True)
class ClientSide:
    """Where the client's ends of connections to databases are watched: one network namespace of this host."""

    netns: int
    ports: frozenset[int]  # of databases, at the far end
    pid: int = 0  # of a process in it; 0: our own
    port: int | None = None  # nothing of ours listens there
    label: str = "the client side"


class Destination(NamedTuple):
    """A database that connections of this host lead to: the target's name for it, else its address."""

    address: str
    port: int

    @property
    def label(self) -> str:
        return str(Endpoint(self.address, self.port))


class PoolerClient(NamedTuple):
    """A row of SHOW CLIENTS: an application's connection to PgBouncer. None is: over a unix socket, or unknown."""

    ptr: str
    link: str | None  # of the server connection it holds now
    user: str
    database: str
    state: str
    application: str | None
    address: str | None
    port: int | None
    local: Endpoint | None  # PgBouncer's end
    wait: float  # seconds it has waited for a server connection


class PoolerServer(NamedTuple):
    """A row of SHOW SERVERS: a connection of PgBouncer's to a database."""

    ptr: str
    link: str | None
    user: str
    database: str
    state: str
    remote: Endpoint | None  # the database's end
    local: Endpoint | None  # PgBouncer's end, which is the client in the database's eyes
    backend_pid: int | None  # as the database counts


class Pool(NamedTuple):
    """A row of SHOW POOLS."""

    database: str
    user: str
    clients_active: int
    clients_waiting: int
    servers_active: int
    servers_idle: int  # idle and used: what a client could have at once
    servers_other: int  # tested, logging in
    max_wait: float  # seconds the oldest waiting client has waited
    mode: str
    size: int | None
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerReading:
    """What one look at a PgBouncer console told."""

    at: int
    endpoint: Endpoint
    version: str
    pools: tuple[Pool, ...]
    clients: tuple[PoolerClient, ...]
    servers: tuple[PoolerServer, ...]
    settings: dict[str, str] = field(default_factory=dict)
    wait_time: dict[str, int] = field(default_factory=dict)  # us clients have waited in all, by database
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pooling:
    """All that is known of one pooler at one instant."""

    pooler: Pooler
    clients: list[Connection]  # of applications
    ends: dict[Endpoint, TcpState]  # of its connections to databases
    reading: PoolerReading | None  # what its console told last


class Via(NamedTuple):
    """How a session came through a pooler."""

    pooler: str  # what people call it
    client: PoolerClient | None = None  # the application's connection, while one holds the session
    process: ClientProcess | None = None  # the application, where it runs on this host or node


@dataclass(slots=True)
class Connection:
    """A socket followed in time. Only connections.ConnectionTable changes one."""

    id: int
    netns: int
    socket: Socket
    opened_at: int  # first seen
    state_since: int
    moved_at: int  # a queue, the state or the inode last changed
    closed_at: int | None = None
    transferred: Transferred | None = None  # once closed, when the kernel told
    details: Details | None = None  # TCP_INFO, when it was asked for
    client: ClientProcess | None = None  # once looked for and found
    looked_for_client_at: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How many slots a server has, and how that is known."""

    max_connections: int | None = None
    reserved: int | None = None  # superuser_reserved_connections + reserved_connections (16 and later)
    source: str = "unknown"  # pg_control, command line, configuration file, configured, unknown
    guessed: bool = False

    @property
    def ceiling(self) -> int | None:
        """Slots ordinary clients can have."""
        if self.max_connections is None:
            return None
        return self.max_connections - (self.reserved or 0)


@dataclass(frozen=True, slots=True)
class Server:
    """One running postmaster. `id` is its key: it outlives a restart, a change of role and of address."""

    id: str
    pid: int  # 0: no process of it can be seen, its sockets or its login alone tell of it
    started: int
    netns: int  # 0: it does not run here; else its network namespace, by inode or, unreadable, by a number of ours
    port: int | None
    address: str
    name: str | None = None  # targets[].name
    port_guessed: bool = False
    data_directory: str | None = None
    version: str | None = None
    role: str | None = None  # primary, standby
    cluster_name: str = ""  # as it stands in the titles
    uid: int = 0
    limits: Limits = field(default_factory=Limits)
    attributes: tuple[tuple[str, str], ...] = ()  # targets[].cluster, .env
    missing: tuple[str, ...] = ()  # what could not be read, each with the privilege that would help

    @property
    def seen_by(self) -> str:
        """For people: what tells of it."""
        if self.pid:
            return f"pid {self.pid}"
        return "by its sockets alone" if self.netns else "by its login alone"

    @property
    def label(self) -> str:
        """What people call it: the target's name, else host:port."""
        return self.name or f"{self.address}:{self.port if self.port is not None else '?'}"


LOCAL_HOST = "[local]"  # what a title shows instead of host(port) for a unix socket


class BackendKind(StrEnum):
    """What a child of the postmaster is. Only CLIENT and UNKNOWN hold a slot of max_connections."""

    CLIENT = "client"
    WALSENDER = "walsender"
    WORKER = "worker"  # auxiliary processes, parallel, autovacuum and background workers
    PRESTARTUP = "prestartup"  # forked, has not read a startup packet: still the postmaster's command line
    UNKNOWN = "unknown"  # a title that tells nothing (clipped, or empty)


class Title(NamedTuple):
    """A backend's process title, taken apart. None is unknown; an `activity` of None means titles are not updated."""

    kind: BackendKind
    user: str | None = None
    database: str | None = None
    host: str | None = None  # LOCAL_HOST for a unix socket
    port: int | None = None
    activity: str | None = None  # without " waiting"
    waiting: bool = False
    text: str = ""


class BackendSighting(NamedTuple):
    """One look at a child of the postmaster."""

    pid: int
    started: int
    title: Title
    switches: int | None = None  # voluntary_ctxt_switches; None when it was not read
    at: int = 0
    inner_pid: int = 0  # in its own pid namespace


class Activity:
    """Activities that mean something to the detectors, as PostgreSQL writes them into titles."""

    IDLE = "idle"
    IN_TRANSACTION = "idle in transaction"
    ABORTED = "idle in transaction (aborted)"
    AUTHENTICATION = "authentication"
    STARTUP = "startup"
    INITIALIZING = "initializing"


@dataclass(slots=True)
class Backend:
    """A child of the postmaster followed in time. Its identity is (pid, started): pids return."""

    server: str
    pid: int
    started: int
    title: Title
    first_seen: int
    activity_since: int  # last entry into this activity
    still_since: int  # as activity_since, but also moved forward when context switches or queues moved in between
    seen_at: int
    switches: int | None = None
    connection: Connection | None = None
    socket_lost_at: int | None = None  # its connection left the kernel's tables while it runs on
    session: Session | None = None  # what a login last told of it
    via: Via | None = None  # the pooler it came through
    inner_pid: int = 0  # its number in its own pid namespace, which is what the server calls it
    inodes: tuple[int, ...] | None = None  # None: not read, or not readable

    @property
    def kind_may_have_socket(self) -> bool:
        return self.title.kind is not BackendKind.WORKER


@dataclass(frozen=True, slots=True)
class Session:
    """A row of pg_stat_activity. None is unknown, or not for our role to see."""

    pid: int  # as the server counts: in its own pid namespace
    kind: str  # backend_type
    started: int
    user: str | None = None
    database: str | None = None
    application: str | None = None
    client_address: str | None = None
    client_port: int | None = None  # None: over a unix socket, or unknown
    state: str | None = None
    state_since: int | None = None  # state_change: the clock of idleness
    transaction_since: int | None = None  # xact_start: the clock of locks and of the vacuum horizon
    wait_event_type: str | None = None
    wait_event: str | None = None
    blocked_by: tuple[int, ...] = ()  # pids, as the server counts
    locks: int | None = None  # held by a transaction that idles; None: not asked
    query_text: str | None = None  # a traceparent, or text without literals, when asked for

    @property
    def holds_a_slot(self) -> bool:
        return self.kind == "client backend"


class SessionCounts(NamedTuple):
    """How sessions of a database ended since its statistics began (PostgreSQL 14 and later)."""

    sessions: int
    abandoned: int
    fatal: int
    killed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReading:
    """What one look through a login told of a server."""

    begun: int
    at: int  # the answer was complete
    endpoint: Endpoint
    own_pid: int
    started: int  # of the postmaster
    port: int | None
    system_identifier: str | None
    version: str
    role: str
    limits: Limits
    sessions: tuple[Session, ...]
    sees_all: bool = True  # False: rows of other roles are hidden from ours
    settings: dict[str, str] = field(default_factory=dict)  # with their units
    role_limits: dict[str, int] = field(default_factory=dict)
    database_limits: dict[str, int] = field(default_factory=dict)
    counts: dict[str, SessionCounts] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def seen(self) -> dict[int, Session]:
        """The client sessions the database would count, by pid. Logins under way are listed since PostgreSQL 18."""
        return {s.pid: s for s in self.sessions if s.holds_a_slot and s.state != "starting"}


@dataclass(slots=True)
class LogCounts:
    """What a server's log has told since it is followed."""

    by_class: Counter[str] = field(default_factory=Counter)  # sources.serverlog.CLASSES
    last_line: dict[str, str] = field(default_factory=dict)
    skipped_bytes: int = 0

    def add(self, other: LogCounts) -> None:
        self.by_class.update(other.by_class)
        self.last_line |= other.last_line
        self.skipped_bytes += other.skipped_bytes


class Severity(IntEnum):
    """OpenTelemetry's SeverityNumber; `word` is what records and metrics carry."""

    INFO = 9
    WARNING = 13
    HIGH = 17
    CRITICAL = 21

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who holds the slots of one server, without asking it. `holders` is disjoint and sums to `used`."""

    server: str
    limits: Limits
    holders: dict[str, int]  # session, authenticating, starting, orphan, unaccounted
    by_transport: dict[tuple[str, str], int]  # (holder, tcp or unix)
    no_slot: dict[str, int]  # walsender, worker, prestartup: children that hold none
    is_told: bool = True  # False: neither processes nor a login tell who holds slots
    database_sees: int | None = None  # client sessions in pg_stat_activity; None without a login
    gap: int | None = None  # slots it does not list, in two readings in a row
    cause: str | None = None  # of the gap

    @property
    def used(self) -> int:
        return sum(self.holders.values())

    @property
    def unix(self) -> int:
        return sum(count for (_, transport), count in self.by_transport.items() if transport == "unix")

    @property
    def utilization(self) -> float | None:
        """Used / ceiling, which may pass 1; None while one of them is unknown."""
        return self.used / self.limits.ceiling if self.limits.ceiling and self.is_told else None


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is known of one server at one instant: what the detectors look at."""

    server: Server
    backends: list[Backend]
    connections: list[Connection]  # on the server's port, not LISTEN
    listeners: list[Connection]
    ledger: Ledger
    at: int
    backend_of: dict[int, Backend]  # by connection id
    overflowing: bool = False  # the kernel dropped clients of a full accept queue within the last ten seconds
    reading: DatabaseReading | None = None  # what its login told last
    refused: int = 0  # clients refused for want of a slot within the last minute, as its log tells


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
class Finding:
    """What a detector says of one member now. It has no memory; episodes have."""

    kind: str
    server: str
    identity: str  # members of one identity make one episode
    pid: int | None = None
    address: str | None = None
    port: int | None = None
    onset: int | None  # None: the episode remembers when it first heard of it
    severity: Severity
    onset_source: str = "observed"  # observed, estimated, unknown
    confidence: str = "certain"  # certain, likely
    opens: bool = True  # False: only keeps an open episode open (hysteresis)
    user: str | None = None
    database: str | None = None
    evidence: dict[str, str | int | float | bool] = field(default_factory=dict)
    alternative: str | None = None
    client: ClientProcess | None = None
    peer: Endpoint | None = None  # who the server talks to, where that is not the client: a pooler


class EpisodeState(StrEnum):
    """The life of an episode; the transitions stand in episodes.py."""

    PENDING = "pending"
    OPEN = "open"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    LOST = "lost_from_sight"


@dataclass(slots=True)
class Episode:
    """One leak of one cause, from the first symptom to its end. Only episodes.EpisodeTracker changes one."""

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
    slots: tuple[int, int | None] = (0, None)  # used and ceiling of the server, at the last look
    heartbeats: int = 0
    updated_at: int = 0
    told_members: int = 0  # members named by the last event
    ended_at: int | None = None
    ended_unix: int | None = None
    end_reason: str | None = None  # resolved, lost_from_sight, agent_stopped

    @property
    def id(self) -> str:
        return f"{self.trace_id:032x}"


class EpisodeEvent(NamedTuple):
    """A step in an episode's life that is worth telling."""

    name: str  # opened, updated, resolved
    episode: Episode
    because: str  # threshold, severity, members, heartbeat, resolved, lost_from_sight, agent_stopped
    moment: Moment


class Resource(NamedTuple):
    """Who a signal is about, as OpenTelemetry resource attributes."""

    attributes: tuple[tuple[str, str | int], ...]
