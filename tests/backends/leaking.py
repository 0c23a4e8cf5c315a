"""Sessions that leak, each an episode of its own because each has a user of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import Postgres
from playing import postgres

USERS = 24


@contextlib.contextmanager
def server_with_users() -> Iterator[Postgres]:
    """A PostgreSQL 16 that knows `app0` to `app23`."""
    with postgres(16) as running:
        with contextlib.closing(WireClient(running.port, "postgres")) as admin:
            admin.execute("; ".join(f"create role app{number} login" for number in range(USERS)))
        yield running


def leak(server: Postgres, number: int) -> WireClient:
    """A session of user `appNUMBER`, idle in a transaction until it is closed."""
    client = WireClient(server.port, f"app{number}")
    client.execute("begin")
    client.execute("select 1")
    return client
