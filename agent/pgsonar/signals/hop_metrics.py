"""The metrics of poolers, and of connections from this host to databases."""

from __future__ import annotations

from collections.abc import Callable

from pgsonar.model import Connection, Pool, Pooling, TcpState
from pgsonar.signals.metric import Metric, Reading, by_state
from pgsonar.signals.rows import Spread


def _hops(reading: Pooling) -> Reading:
    """A connected unix socket knows no other state than this one."""
    ends, local = reading.ends, TcpState.ESTABLISHED
    yield from by_state("pooler_client", [*(c.socket.state for c in reading.clients), *[local] * ends.unix_clients])
    yield from by_state("pooler_server", [*ends.tcp.values(), *[local] * len(ends.unix)])


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


def _wait_times(reading: Pooling) -> Reading:
    told = reading.reading
    for database, waits in (told.waits if told is not None else {}).items():
        waited = told.wait_time.get(database, 0) / 1e6 if told is not None else 0.0
        yield {"db.client.connection.pool.name": f"{reading.pooler.label}/{database}"}, Spread(waits, waited)


POOLER_METRICS: tuple[Metric[Pooling], ...] = (
    Metric(
        "pgsonar.connection.count",
        "updowncounter",
        "{connection}",
        ("network.connection.state", "pgsonar.side"),
        "As of servers; the side is pooler_client towards applications, pooler_server towards databases.",
        _hops,
        lean=("network.connection.state", "pgsonar.side"),
    ),
    Metric(
        "db.client.connection.count",
        "updowncounter",
        "{connection}",
        ("db.client.connection.pool.name", "db.client.connection.state"),
        "Server connections of PgBouncer's pools, used or idle, as its console tells.",
        _pool_connections,
        lean=("db.client.connection.state",),
    ),
    Metric(
        "db.client.connection.max",
        "updowncounter",
        "{connection}",
        ("db.client.connection.pool.name",),
        "The size of PgBouncer's pools.",
        _per_pool(lambda pool: pool.size),
        lean=(),
    ),
    Metric(
        "db.client.connection.pending_requests",
        "updowncounter",
        "{request}",
        ("db.client.connection.pool.name",),
        "Clients that wait for a server connection.",
        _per_pool(lambda pool: pool.clients_waiting),
        lean=(),
    ),
    Metric(
        "db.client.connection.wait_time",
        "histogram",
        "s",
        ("db.client.connection.pool.name",),
        "How often clients were given a server connection and how long they waited in all, by database; PgBouncer "
        "tells no buckets, and before 1.23 no number for session pooling.",
        _wait_times,
        since_start=False,
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
        lean=(),
        since_start=False,
    ),
)


CLIENT_METRICS: tuple[Metric[list[Connection]], ...] = (
    Metric(
        "pgsonar.connection.count",
        "updowncounter",
        "{connection}",
        ("network.connection.state", "pgsonar.side"),
        "As of servers; the side is client, on the host of the applications.",
        lambda connections: by_state("client", (c.socket.state for c in connections)),
        lean=("network.connection.state", "pgsonar.side"),
    ),
)
