"""The healthy side of the demonstration: a busy pool, and an administrator who counts pg_stat_activity.

The rule: the only importer of psycopg in the demonstration.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import psycopg


class BusyPool:
    """Sessions that run short transactions all the time, each with several statements: nothing is wrong with them."""

    def __init__(self, port: int, user: str, size: int) -> None:
        self._stop = threading.Event()
        self._connections = [psycopg.connect(_conninfo(port, user)) for _ in range(size)]
        self._threads = [threading.Thread(target=self._work, args=(c,), daemon=True) for c in self._connections]
        self.transactions = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)
        for connection in self._connections:
            connection.close()

    def _work(self, connection: psycopg.Connection) -> None:
        while not self._stop.is_set():
            with connection.transaction():
                for _ in range(3):
                    connection.execute("select count(*) from pg_class")
                    time.sleep(0.01)  # the application thinks: the title reads `idle in transaction`
            self.transactions += 1
            time.sleep(0.01)


class Administrator:
    """One connection, held from the start because there may be no slot for it later."""

    def __init__(self, port: int) -> None:
        self._connection = psycopg.connect(_conninfo(port, "postgres"), autocommit=True)

    def create_users(self, names: list[str], with_password: str) -> None:
        """Makes login roles; the last one needs a password."""
        for name in names:
            self._connection.execute(f'create role "{name}" login')
        self._connection.execute(f"create role \"{with_password}\" login password 'never sent'")
        self._connection.execute("create table stock (item int primary key, n int)")
        self._connection.execute("insert into stock values (1, 1)")
        self._connection.execute("grant all on stock to public")

    def sessions(self) -> int:
        """How many client sessions the database itself shows."""
        row = self._connection.execute(
            "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        ).fetchone()
        return int(row[0]) if row else 0

    def terminate(self, pid: int) -> None:
        self._connection.execute("select pg_terminate_backend(%s)", (pid,))

    def close(self) -> None:
        self._connection.close()


def _conninfo(port: int, user: str) -> str:
    return f"host=127.0.0.1 port={port} user={user} dbname=postgres connect_timeout=10"
