"""The metrics of a server that only a login tells.

The rule: without a login, or with one that fails, they are absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pgsonar.model import DatabaseReading, Session
from pgsonar.signals.metric import Metric, Reading
from pgsonar.signals.server_metrics import ServerReading


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


LOGIN_METRICS: tuple[Metric[ServerReading], ...] = (
    Metric(
        "pgsonar.session.count",
        "counter",
        "{session}",
        ("db.namespace", "pgsonar.session.end"),
        "Sessions of a database since its statistics began, those abandoned, failed and killed apart (login, 14+).",
        _sessions_ended,
        since_start=False,
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
)
