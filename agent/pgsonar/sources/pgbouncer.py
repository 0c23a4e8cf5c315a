"""What PgBouncer's console tells: pools, clients, servers, waiting.

The rule: columns are taken by their names, because each version adds some; what an older one lacks is None. Statements
are the console's own (https://www.pgbouncer.org/usage.html), and nothing is ever changed through it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from pgsonar.model import Endpoint, Pool, PoolerClient, PoolerReading, PoolerServer
from pgsonar.sources.login import Login, Row

DATABASE = "pgbouncer"


class ConsoleReader:
    """Reads one console, again and again."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def read(self) -> PoolerReading:
        """One complete look. Raises LoginError."""
        ask = self._login.ask
        databases = {row["name"]: row for row in ask("show databases")}
        pools = tuple(_pool(row, databases) for row in ask("show pools") if row["database"] != DATABASE)
        clients = tuple(_client(row) for row in ask("show clients") if row["database"] != DATABASE)
        servers = tuple(_server(row) for row in ask("show servers"))
        stats = [row for row in ask("show stats") if row["database"] != DATABASE]
        at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        settings = {row["key"]: row["value"] for row in ask("show config") if row["key"] not in _SECRET}
        return PoolerReading(
            at=at,
            endpoint=Endpoint(self._login.host, self._login.port),
            version=str(ask("show version")[0]["version"]).removeprefix("PgBouncer "),
            pools=pools,
            clients=clients,
            servers=servers,
            settings={name: value for name, value in settings.items() if value},
            wait_time={row["database"]: int(row["total_wait_time"]) for row in stats},
            waits=_waits(stats, pools),
        )


_ASSIGNED = "total_server_assignment_count"
_SECRET = ("auth_query", "server_tls_key_file", "client_tls_key_file")


def _waits(stats: list[Row], pools: Iterable[Pool]) -> dict[str, int]:
    """How many times a client was given a server connection, by database.

    PgBouncer counts that since 1.23. Before, it is once a transaction, but not where a session keeps its connection.
    """
    sessions = {pool.database for pool in pools if pool.mode == "session"}
    told = {row["database"]: _number(row, _ASSIGNED) for row in stats if _ASSIGNED in row}
    by_transactions = {row["database"]: _number(row, "total_xact_count") for row in stats}
    return {name: number for name, number in by_transactions.items() if name not in sessions} | told


def _number(row: Mapping[str, object], name: str) -> int:
    return int(str(row.get(name) or 0))


def _pool(row: Row, databases: Mapping[str, Row]) -> Pool:
    database = databases.get(row["database"], {})
    size = database.get("pool_size")
    return Pool(
        database=row["database"],
        user=row["user"],
        clients_active=_number(row, "cl_active"),
        clients_waiting=_number(row, "cl_waiting"),
        servers_active=_number(row, "sv_active"),
        servers_idle=_number(row, "sv_idle") + _number(row, "sv_used"),
        servers_other=_number(row, "sv_tested") + _number(row, "sv_login"),
        max_wait=_number(row, "maxwait") + _number(row, "maxwait_us") / 1e6,
        mode=row["pool_mode"],
        size=int(size) if size is not None else None,
        paused=bool(_number(database, "paused")),
    )


def _client(row: Row) -> PoolerClient:
    remote = _endpoint(row["addr"], row["port"])
    return PoolerClient(
        ptr=row["ptr"],
        link=row["link"] or None,
        user=row["user"],
        database=row["database"],
        state=row["state"],
        application=row.get("application_name") or None,
        address=remote.address if remote else None,
        port=remote.port if remote else None,
        local=_endpoint(row["local_addr"], row["local_port"]),
        wait=_number(row, "wait") + _number(row, "wait_us") / 1e6,
        request=row.get("request_time") or None,
    )


def _server(row: Row) -> PoolerServer:
    return PoolerServer(
        ptr=row["ptr"],
        link=row["link"] or None,
        user=row["user"],
        database=row["database"],
        state=row["state"],
        remote=_endpoint(row["addr"], row["port"]),
        local=_endpoint(row["local_addr"], row["local_port"]),
        backend_pid=_number(row, "remote_pid") or None,
    )


def _endpoint(address: str, port: object) -> Endpoint | None:
    """None for a unix socket, whose address reads `unix` or `unix(PID)`."""
    if not address or address.startswith("unix"):
        return None
    return Endpoint(address.removeprefix("::ffff:"), int(str(port)))
