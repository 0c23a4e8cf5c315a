"""Two metrics of a server under the names that the Collector's PostgreSQL receiver gives them.

The rule: only the full profile sends them; they are there so that dashboards made for that receiver work.
https://github.com/open-telemetry/opentelemetry-collector-contrib/blob/main/receiver/postgresqlreceiver/documentation.md
"""

from __future__ import annotations

from collections import Counter

from pgsonar.signals.metric import Metric, Reading
from pgsonar.signals.server_metrics import ServerReading


def _backends(reading: ServerReading) -> Reading:
    databases = (backend.database for backend in reading.sight.backends)
    for database, number in Counter(name for name in databases if name is not None).items():
        yield {"postgresql.database.name": database}, number


def _max_connections(reading: ServerReading) -> Reading:
    if reading.sight.server.limits.max_connections is not None:
        yield {}, reading.sight.server.limits.max_connections


RECEIVER_METRICS: tuple[Metric[ServerReading], ...] = (
    Metric(
        "postgresql.backends",
        "updowncounter",
        "1",
        ("postgresql.database.name",),
        "Backends of a database; for the receiver the database is a resource of its own.",
        _backends,
        only_full=True,
    ),
    Metric(
        "postgresql.connection.max",
        "gauge",
        "{connections}",
        (),
        "The running max_connections.",
        _max_connections,
        only_full=True,
    ),
)
