"""Every metric pgsonar sends: name, kind, unit, attributes, sentence, and the function that reads it.

The rule: a metric is one row here. The row holds its reader, so that a name cannot show another's value; the README's
table is generated from these rows and checked. Never a pid, a port, an inode or a single connection's address as an
attribute: clients are folded into a few sticky names and `~other`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pgsonar.connections import OTHER
from pgsonar.model import (
    Activity,
    Backend,
    BackendKind,
    Connection,
    DatabaseReading,
    LogCounts,
    Pool,
    Pooling,
    ScanStats,
    Session,
    Severity,
    Sight,
    TcpState,
)
from pgsonar.signals.rows import Attributes

Read = TypeVar("Read")
Reading = Iterable[tuple[Attributes, int | float]]


@dataclass(slots=True)
class ServerReading:
    """What the metrics of one server are read from."""

    sight: Sight
    opened: dict[str, int]
    closed: dict[str, int]
    overflows: int | None
    disagreements: int
    leaks_open: dict[tuple[str, Severity], int]
    leaks_ever: dict[tuple[str, Severity], int]
    clients: StickyNames
    log: LogCounts | None = None  # None: no log of it is followed


@dataclass(slots=True)
class AgentReading:
    """What the metrics of the agent itself are read from: the scanning of each namespace, by its number."""

    scans: dict[int, ScanStats]
    rates: dict[int, float]  # complete scans a second since the last export
    servers: int
    sources: dict[int, str]  # the source in use by namespace
    interval: float  # seconds between two scans now
    reason: str  # configured, or max_cpu: why it is what it is


@dataclass(frozen=True, slots=True)
class Metric(Generic[Read]):
    """One metric, and how it is read from a ServerReading or an AgentReading."""

    name: str
    kind: Literal["gauge", "counter", "updowncounter"]
    unit: str
    attributes: tuple[str, ...]
    sentence: str
    read: Callable[[Read], Reading]


Name = tuple[str, ...]  # of a client: database, user, address, application; empty where unknown


@dataclass(slots=True)
class StickyNames:
    """Gives the largest clients a name of their own for as long as they are there; the rest is `~other`."""

    places: int = 20
    _held: dict[Name, int] = field(default_factory=dict)

    def keep(self, sizes: Counter[Name]) -> set[Name]:
        """Who is named now. Who was named and is still there stays named, however small."""
        self._held = {name: sizes[name] for name in self._held if sizes[name]}
        for name, size in sizes.most_common():
            if len(self._held) >= self.places:
                break
            self._held.setdefault(name, size)
        return set(self._held)


def state_of(backend: Backend) -> str:
    """A title's activity as pg_stat_activity.state would call it; `unknown` when titles are not updated."""
    activity = backend.title.activity
    if activity is None:
        return "unknown"
    if activity in (Activity.IDLE, Activity.IN_TRANSACTION, Activity.ABORTED, Activity.AUTHENTICATION):
        return activity
    return "starting" if activity in (Activity.STARTUP, Activity.INITIALIZING) else "active"


def _by_state(side: str, states: Iterable[TcpState]) -> Reading:
    for state, number in Counter(states).items():
        yield {"network.connection.state": state.spelling, "pgsonar.side": side}, number


def _connections(reading: ServerReading) -> Reading:
    yield from _by_state("server", (c.socket.state for c in reading.sight.connections))
    listeners = len(reading.sight.listeners)
    yield {"network.connection.state": TcpState.LISTEN.spelling, "pgsonar.side": "server"}, listeners


_NAME = ("db.namespace", "user.name", "client.address", "postgresql.application_name")
_OTHERS = (OTHER, OTHER, OTHER, "")


def _name_of(backend: Backend) -> Name:
    """Who a session is of: the application, also behind a pooler."""
    client = backend.via.client if backend.via is not None else None
    address = client.address if client is not None else backend.title.host
    application = client.application if client is not None else None
    if application is None and backend.session is not None:
        application = backend.session.application
    return backend.title.database or "", backend.title.user or "", address or "", application or ""


def _backends(reading: ServerReading) -> Reading:
    clients = [b for b in reading.sight.backends if b.title.kind is BackendKind.CLIENT]
    who = {id(b): _name_of(b) for b in clients}
    named = reading.clients.keep(Counter(who.values()))
    counts: Counter[tuple[Name, str]] = Counter()
    for backend in clients:
        name = who[id(backend)]
        counts[name if name in named else _OTHERS, state_of(backend)] += 1
    for (name, state), number in counts.items():
        attributes: Attributes = {"postgresql.state": state}
        attributes |= {key: value for key, value in zip(_NAME, name, strict=True) if value}
        yield attributes, number


def _slots_used(reading: ServerReading) -> Reading:
    held = reading.sight.ledger.by_transport
    if not reading.sight.ledger.is_told:
        return
    for holder in reading.sight.ledger.holders:
        for transport in ("tcp", "unix"):
            yield (
                {"pgsonar.slot.holder": holder, "network.transport": transport},
                held.get((holder, transport), 0),
            )


def _limit(reading: ServerReading) -> Reading:
    limits = reading.sight.server.limits
    if limits.max_connections is not None:
        yield {"pgsonar.limit.source": limits.source, "pgsonar.limit.guessed": limits.guessed}, limits.max_connections


def _reserved(reading: ServerReading) -> Reading:
    if reading.sight.server.limits.reserved is not None:
        yield {}, reading.sight.server.limits.reserved


def _utilization(reading: ServerReading) -> Reading:
    share = reading.sight.ledger.utilization
    if share is not None:
        yield {}, share


def _unaccounted(reading: ServerReading) -> Reading:
    yield {"pgsonar.views": "title_and_inode"}, reading.disagreements
    yield {"pgsonar.views": "process_and_title"}, reading.sight.ledger.holders["unaccounted"]
    if reading.sight.ledger.gap is not None:
        yield {"pgsonar.views": "slot_and_session"}, reading.sight.ledger.gap


REFUSALS = ("all_slots", "reserved", "role", "database", "walsenders")


def _refused(reading: ServerReading) -> Reading:
    if reading.log is not None:
        for name in REFUSALS:
            yield {"pgsonar.refusal": name}, reading.log.by_class[name]


def _logged(name: str) -> Callable[[ServerReading], Reading]:
    return lambda reading: [] if reading.log is None else [({}, reading.log.by_class[name])]


def _sessions_ended(reading: ServerReading) -> Reading:
    told = reading.sight.reading
    for database, counts in (told.counts if told is not None else {}).items():
        for end, number in counts._asdict().items():
            yield {"db.namespace": database, "pgsonar.session.end": "any" if end == "sessions" else end}, number


def _own_connections(reading: ServerReading) -> Reading:
    told = reading.sight.reading
    yield {}, sum(session.pid == told.own_pid for session in told.sessions) if told is not None else 0


def _limited(
    limits: Callable[[DatabaseReading], dict[str, int]], name: Callable[[Session], str | None], attribute: str
) -> Callable[[ServerReading], Reading]:
    """Connections of roles or databases that have a limit, and the limit itself."""

    def read(reading: ServerReading) -> Reading:
        told = reading.sight.reading
        if told is None:
            return
        used = Counter(name(session) for session in told.sessions if session.holds_a_slot)
        for limited, limit in limits(told).items():
            yield {attribute: limited, "pgsonar.limit.part": "used"}, used[limited]
            yield {attribute: limited, "pgsonar.limit.part": "limit"}, limit

    return read


def _by_client(counts: dict[str, int]) -> Reading:
    return (({"client.address": client}, number) for client, number in counts.items())


def _leaks(counts: dict[tuple[str, Severity], int]) -> Reading:
    for (kind, severity), number in counts.items():
        yield {"pgsonar.leak.kind": kind, "pgsonar.leak.severity": severity.word}, number


SERVER_METRICS: tuple[Metric[ServerReading], ...] = (
    Metric(
        "pgsonar.connection.count",
        "updowncounter",
        "{connection}",
        ("network.connection.state", "pgsonar.side"),
        "Sockets by TCP state: on a server's port, and of a pooler to its clients and to its databases.",
        _connections,
    ),
    Metric(
        "pgsonar.backend.count",
        "updowncounter",
        "{backend}",
        ("db.namespace", "user.name", "client.address", "postgresql.application_name", "postgresql.state"),
        "Client backends by what their title says, and by application where a login tells; the small are in ~other.",
        _backends,
    ),
    Metric(
        "pgsonar.slot.used",
        "updowncounter",
        "{slot}",
        ("pgsonar.slot.holder", "network.transport"),
        "Slots of max_connections in use by holder, logins under way and clientless backends included.",
        _slots_used,
    ),
    Metric(
        "pgsonar.slot.limit",
        "gauge",
        "{slot}",
        ("pgsonar.limit.source", "pgsonar.limit.guessed"),
        "The running max_connections, absent while unknown.",
        _limit,
    ),
    Metric(
        "pgsonar.slot.reserved",
        "gauge",
        "{slot}",
        (),
        "Slots ordinary clients cannot have.",
        _reserved,
    ),
    Metric(
        "pgsonar.slot.utilization",
        "gauge",
        "1",
        (),
        "Used slots / (limit - reserved); may pass 1; absent while the limit is unknown.",
        _utilization,
    ),
    Metric(
        "pgsonar.connection.unaccounted",
        "gauge",
        "{connection}",
        ("pgsonar.views",),
        "What two views of the same server do not agree on.",
        _unaccounted,
    ),
    Metric(
        "pgsonar.listener.backlog",
        "gauge",
        "{connection}",
        (),
        "Connections the kernel has completed and the postmaster has not accepted.",
        lambda reading: [({}, sum(listener.socket.rx_queue for listener in reading.sight.listeners))],
    ),
    Metric(
        "pgsonar.listener.overflow",
        "counter",
        "{connection}",
        (),
        "ListenOverflows of the server's network namespace since pgsonar started.",
        lambda reading: [] if reading.overflows is None else [({}, reading.overflows)],
    ),
    Metric(
        "pgsonar.connection.opened",
        "counter",
        "{connection}",
        ("client.address",),
        "Connections first seen since pgsonar started.",
        lambda reading: _by_client(reading.opened),
    ),
    Metric(
        "pgsonar.connection.closed",
        "counter",
        "{connection}",
        ("client.address",),
        "Connections that left the kernel's tables since pgsonar started.",
        lambda reading: _by_client(reading.closed),
    ),
    Metric(
        "pgsonar.queue.send",
        "gauge",
        "By",
        (),
        "Bytes clients have not acknowledged, as last reported.",
        lambda reading: [({}, sum(c.socket.tx_queue for c in reading.sight.connections))],
    ),
    Metric(
        "pgsonar.queue.receive",
        "gauge",
        "By",
        (),
        "Bytes the backends have not read, as last reported.",
        lambda reading: [({}, sum(c.socket.rx_queue for c in reading.sight.connections))],
    ),
    Metric(
        "pgsonar.refused",
        "counter",
        "{connection}",
        ("pgsonar.refusal",),
        "Clients refused with 53300 by what was used up, as the server's log tells.",
        _refused,
    ),
    Metric(
        "pgsonar.login.timeout",
        "counter",
        "{connection}",
        (),
        "Logins ended by authentication_timeout, as the server's log tells.",
        _logged("authentication_timeout"),
    ),
    Metric(
        "pgsonar.client.lost",
        "counter",
        "{connection}",
        (),
        "Sessions whose client vanished, as the server's log tells.",
        _logged("lost_client"),
    ),
    Metric(
        "pgsonar.log.skipped",
        "counter",
        "By",
        (),
        "Bytes of the server's log passed over because it grew too fast.",
        lambda reading: [] if reading.log is None else [({}, reading.log.skipped_bytes)],
    ),
    Metric(
        "pgsonar.session.count",
        "counter",
        "{session}",
        ("db.namespace", "pgsonar.session.end"),
        "Sessions of a database since its statistics began, those abandoned, failed and killed apart (login, 14+).",
        _sessions_ended,
    ),
    Metric(
        "pgsonar.role.connections",
        "gauge",
        "{connection}",
        ("user.name", "pgsonar.limit.part"),
        "Connections of roles that have a CONNECTION LIMIT, and that limit (login).",
        _limited(lambda told: told.role_limits, lambda session: session.user, "user.name"),
    ),
    Metric(
        "pgsonar.database.connections",
        "gauge",
        "{connection}",
        ("db.namespace", "pgsonar.limit.part"),
        "Connections of databases that have a CONNECTION LIMIT, and that limit (login).",
        _limited(lambda told: told.database_limits, lambda session: session.database, "db.namespace"),
    ),
    Metric(
        "pgsonar.own.connections",
        "gauge",
        "{connection}",
        (),
        "Slots that pgsonar itself holds: one where a login is configured and works, else none.",
        _own_connections,
    ),
    Metric(
        "pgsonar.leak.open",
        "updowncounter",
        "{leak}",
        ("pgsonar.leak.kind", "pgsonar.leak.severity"),
        "Leak episodes open now.",
        lambda reading: _leaks(reading.leaks_open),
    ),
    Metric(
        "pgsonar.leak.count",
        "counter",
        "{leak}",
        ("pgsonar.leak.kind", "pgsonar.leak.severity"),
        "Leak episodes opened since pgsonar started, by their severity at opening.",
        lambda reading: _leaks(reading.leaks_ever),
    ),
)


def _scans(value: Callable[[ScanStats], int | float]) -> Callable[[AgentReading], Reading]:
    def read(reading: AgentReading) -> Reading:
        for netns, stats in reading.scans.items():
            yield _scan_attributes(reading, netns), value(stats)

    return read


def _scan_attributes(reading: AgentReading, netns: int) -> Attributes:
    return {"pgsonar.source": reading.sources[netns], "pgsonar.netns": netns}


_SCAN = ("pgsonar.source", "pgsonar.netns")


def _hops(reading: Pooling) -> Reading:
    yield from _by_state("pooler_client", (c.socket.state for c in reading.clients))
    yield from _by_state("pooler_server", reading.ends.values())


def _per_pool(value: Callable[[Pool], int | float | None]) -> Callable[[Pooling], Reading]:
    def read(reading: Pooling) -> Reading:
        for pool in reading.reading.pools if reading.reading is not None else ():
            if (number := value(pool)) is not None:
                yield {"db.client.connection.pool.name": f"{reading.pooler.label}/{pool.database}/{pool.user}"}, number

    return read


def _pool_connections(reading: Pooling) -> Reading:
    for state, value in (("used", lambda p: p.servers_active), ("idle", lambda p: p.servers_idle)):
        for attributes, number in _per_pool(value)(reading):
            yield attributes | {"db.client.connection.state": state}, number


POOLER_METRICS: tuple[Metric[Pooling], ...] = (
    Metric(
        "pgsonar.connection.count",
        "updowncounter",
        "{connection}",
        ("network.connection.state", "pgsonar.side"),
        "As of servers; the side is pooler_client towards applications, pooler_server towards databases.",
        _hops,
    ),
    Metric(
        "db.client.connection.count",
        "updowncounter",
        "{connection}",
        ("db.client.connection.pool.name", "db.client.connection.state"),
        "Server connections of PgBouncer's pools, used or idle, as its console tells.",
        _pool_connections,
    ),
    Metric(
        "db.client.connection.max",
        "updowncounter",
        "{connection}",
        ("db.client.connection.pool.name",),
        "The size of PgBouncer's pools.",
        _per_pool(lambda pool: pool.size),
    ),
    Metric(
        "db.client.connection.pending_requests",
        "updowncounter",
        "{request}",
        ("db.client.connection.pool.name",),
        "Clients that wait for a server connection.",
        _per_pool(lambda pool: pool.clients_waiting),
    ),
    Metric(
        "pgsonar.pool.wait",
        "gauge",
        "s",
        ("db.client.connection.pool.name",),
        "How long the client that waits longest has waited.",
        _per_pool(lambda pool: pool.max_wait),
    ),
    Metric(
        "pgsonar.pool.waited",
        "counter",
        "s",
        ("db.namespace",),
        "How long clients have waited for a server connection in all, since PgBouncer started.",
        lambda reading: (
            ({"db.namespace": database}, waited / 1e6)
            for database, waited in (reading.reading.wait_time if reading.reading is not None else {}).items()
        ),
    ),
)


CLIENT_METRICS: tuple[Metric[list[Connection]], ...] = (
    Metric(
        "pgsonar.connection.count",
        "updowncounter",
        "{connection}",
        ("network.connection.state", "pgsonar.side"),
        "As of servers; the side is client, on the host of the applications.",
        lambda connections: _by_state("client", (c.socket.state for c in connections)),
    ),
)


AGENT_METRICS: tuple[Metric[AgentReading], ...] = (
    Metric(
        "pgsonar.server.count",
        "updowncounter",
        "{server}",
        (),
        "Database servers that are watched.",
        lambda reading: [({}, reading.servers)],
    ),
    Metric(
        "pgsonar.scan.duration",
        "gauge",
        "s",
        _SCAN,
        "Wall time of the last scan.",
        _scans(lambda stats: stats.last_cost / 1e9),
    ),
    Metric(
        "pgsonar.scan.rate",
        "gauge",
        "{scan}/s",
        _SCAN,
        "Complete scans a second since the last export.",
        lambda reading: ((_scan_attributes(reading, n), rate) for n, rate in reading.rates.items()),
    ),
    Metric(
        "pgsonar.scan.interval",
        "gauge",
        "s",
        ("pgsonar.scan.reason",),
        "Time between two scans now: as configured, or stretched to keep within max_cpu.",
        lambda reading: [({"pgsonar.scan.reason": reading.reason}, reading.interval)],
    ),
    Metric(
        "pgsonar.scan.late",
        "counter",
        "{scan}",
        _SCAN,
        "Scans that began late by more than half an interval, or were dropped from the schedule.",
        _scans(lambda stats: stats.late + stats.missed),
    ),
    Metric(
        "pgsonar.scan.incomplete",
        "counter",
        "{scan}",
        _SCAN,
        "Scans discarded whole because a read failed or the table was cut.",
        _scans(lambda stats: stats.incomplete),
    ),
    Metric(
        "pgsonar.scan.malformed",
        "counter",
        "{line}",
        _SCAN,
        "Lines and messages of the kernel that could not be read.",
        _scans(lambda stats: stats.malformed),
    ),
    Metric(
        "pgsonar.scan.blind_window",
        "gauge",
        "s",
        _SCAN,
        "Longest distance between two complete scans since the last export: what lives shorter may go unseen, unless "
        "the kernel tells of every end.",
        _scans(lambda stats: stats.max_gap / 1e9),
    ),
    Metric(
        "pgsonar.scan.unseen",
        "updowncounter",
        "{connection}",
        _SCAN,
        "Connections that came and went between two scans, at most: the kernel's count of opened connections, on all "
        "ports of the network namespace, less those seen.",
        _scans(lambda stats: stats.unseen),
    ),
    Metric(
        "pgsonar.scan.lost_events",
        "counter",
        "{event}",
        _SCAN,
        "Times the kernel had more ends of connections to tell than its queue could hold.",
        _scans(lambda stats: stats.lost_events),
    ),
    Metric(
        "pgsonar.scan.lost_changes",
        "counter",
        "{change}",
        _SCAN,
        "Changes that found the ring full; the table was read anew after them.",
        _scans(lambda stats: stats.lost_changes),
    ),
    Metric(
        "pgsonar.scan.cpu",
        "counter",
        "s",
        _SCAN,
        "CPU time of the scanning thread.",
        _scans(lambda stats: stats.cpu / 1e9),
    ),
)

EVENTS: tuple[tuple[str, str], ...] = (
    ("pgsonar.leak.opened", "A leak episode reached its threshold; carries the ids of the span that will end it."),
    ("pgsonar.leak.updated", "It grew worse, gained members, or is still open (a slow heartbeat)."),
    ("pgsonar.leak.resolved", "It ended, was lost from sight, or the agent stopped."),
)
SPANS: tuple[tuple[str, str], ...] = (("pgsonar.leak", "One ended episode, from the first symptom to the end."),)


def metric_table() -> str:
    """The catalog as the Markdown tables of the README."""
    lines = ["| metric | kind | unit | attributes | what it is |", "| --- | --- | --- | --- | --- |"]
    metrics: list[Metric[Any]] = [*SERVER_METRICS, *POOLER_METRICS[1:], *AGENT_METRICS]
    for metric in metrics:
        attributes = ", ".join(f"`{name}`" for name in metric.attributes) or "-"
        lines.append(f"| `{metric.name}` | {metric.kind} | `{metric.unit}` | {attributes} | {metric.sentence} |")
    lines += ["", "| event or span | what it is |", "| --- | --- |"]
    lines += [f"| `{name}` (event) | {sentence} |" for name, sentence in EVENTS]
    lines += [f"| `{name}` (span) | {sentence} |" for name, sentence in SPANS]
    return "\n".join(lines)
