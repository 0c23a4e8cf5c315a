"""The metrics of a server, from its sockets, processes and log.

The rule: clients are named by StickyNames alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pgsonar.model import Activity, Backend, BackendKind, LogCounts, Sight, TcpState
from pgsonar.signals.metric import Metric, Reading, by_state
from pgsonar.signals.names import Name, StickyNames
from pgsonar.signals.rows import Attributes
from pgsonar.tracking.connections import OTHER


@dataclass(slots=True)
class ServerReading:
    """What the metrics of one server are read from."""

    sight: Sight
    opened: dict[str, int]
    closed: dict[str, int]
    overflows: int | None
    disagreements: int
    clients: StickyNames
    untold: dict[str, str] = field(default_factory=dict)  # kinds that cannot be told, and why
    log: LogCounts | None = None  # None: no log of it is followed


def state_of(backend: Backend) -> str:
    """A title's activity as pg_stat_activity.state would call it; `unknown` when titles are not updated."""
    activity = backend.title.activity
    if activity is None:
        return "unknown"
    if activity in (Activity.IDLE, Activity.IN_TRANSACTION, Activity.ABORTED, Activity.AUTHENTICATION):
        return activity
    return "starting" if activity in (Activity.STARTUP, Activity.INITIALIZING) else "active"


def _connections(reading: ServerReading) -> Reading:
    yield from by_state("server", (c.socket.state for c in reading.sight.connections))
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
    user = backend.user or backend.title.names
    return backend.database or "", user or "", address or "", application or ""


def _backends(reading: ServerReading) -> Reading:
    clients = [b for b in reading.sight.backends if b.kind is BackendKind.CLIENT]
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


def _by_client(counts: dict[str, int]) -> Reading:
    return (({"client.address": client}, number) for client, number in counts.items())


SERVER_METRICS: tuple[Metric[ServerReading], ...] = (
    Metric(
        "pgsonar.connection.count",
        "updowncounter",
        "{connection}",
        ("network.connection.state", "pgsonar.side"),
        "Sockets by TCP state: on a server's port, and of a pooler to its clients and to its databases.",
        _connections,
        lean=("network.connection.state", "pgsonar.side"),
    ),
    Metric(
        "pgsonar.backend.count",
        "updowncounter",
        "{backend}",
        ("db.namespace", "user.name", "client.address", "postgresql.application_name", "postgresql.state"),
        "Client backends by what their title says, and by application where a login tells; the small are in ~other.",
        _backends,
        lean=("postgresql.state",),
    ),
    Metric(
        "pgsonar.slot.used",
        "updowncounter",
        "{slot}",
        ("pgsonar.slot.holder", "network.transport"),
        "Slots of max_connections in use by holder, logins under way and clientless backends included.",
        _slots_used,
        lean=("pgsonar.slot.holder",),
    ),
    Metric(
        "pgsonar.slot.limit",
        "gauge",
        "{slot}",
        ("pgsonar.limit.source", "pgsonar.limit.guessed"),
        "The running max_connections, absent while unknown.",
        _limit,
        lean=("pgsonar.limit.source", "pgsonar.limit.guessed"),
    ),
    Metric(
        "pgsonar.slot.reserved",
        "gauge",
        "{slot}",
        (),
        "Slots ordinary clients cannot have.",
        _reserved,
        lean=(),
    ),
    Metric(
        "pgsonar.slot.utilization",
        "gauge",
        "1",
        (),
        "Used slots / (limit - reserved); may pass 1; absent while the limit is unknown.",
        _utilization,
        lean=(),
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
        lambda reading: [({}, reading.sight.backlog)],
        lean=(),
    ),
    Metric(
        "pgsonar.listener.backlog.limit",
        "gauge",
        "{connection}",
        (),
        "How many connections may wait on each address; absent where procfs is read, which does not tell it.",
        lambda reading: [] if reading.sight.backlog_limit is None else [({}, reading.sight.backlog_limit)],
    ),
    Metric(
        "pgsonar.listener.overflow",
        "counter",
        "{connection}",
        (),
        "ListenOverflows of the server's network namespace since pgsonar started.",
        lambda reading: [] if reading.overflows is None else [({}, reading.overflows)],
        lean=(),
    ),
    Metric(
        "pgsonar.connection.opened",
        "counter",
        "{connection}",
        ("client.address",),
        "Connections first seen since pgsonar started.",
        lambda reading: _by_client(reading.opened),
        lean=(),
    ),
    Metric(
        "pgsonar.connection.closed",
        "counter",
        "{connection}",
        ("client.address",),
        "Connections that left the kernel's tables since pgsonar started.",
        lambda reading: _by_client(reading.closed),
        lean=(),
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
        lean=(),
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
        "pgsonar.detector.blind",
        "gauge",
        "{detector}",
        ("pgsonar.leak.kind",),
        "1 for each kind of leak that cannot be told of this server; `pgsonar doctor` says why.",
        lambda reading: (({"pgsonar.leak.kind": kind}, 1) for kind in reading.untold),
    ),
)
