"""What to do about a leak: the next command with its effect, and which server setting would have ended it.

The rule: nothing is offered that ends a superuser's session, DDL, a backup or replication; there the command only
looks. What each signal does to each kind of backend was measured on a real server.
"""

from __future__ import annotations

from typing import NamedTuple

from pgsonar.model import Finding, Server


class Guard(NamedTuple):
    """Server settings that end such a leak by themselves, and those that people expect to and that do not."""

    would_end: str
    would_not: str


GUARDS = {
    "idle_in_transaction": Guard(
        "idle_in_transaction_session_timeout (9.6 and later), transaction_timeout (17 and later)",
        "statement_timeout, idle_session_timeout, tcp_keepalives_idle",
    ),
    "orphaned_backend": Guard(
        "client_connection_check_interval (14 and later), statement_timeout",
        "tcp_keepalives_idle, tcp_user_timeout, idle_in_transaction_session_timeout",
    ),
    "orphaned_backend_no_socket": Guard(
        "client_connection_check_interval (14 and later), statement_timeout",
        "tcp_keepalives_idle, tcp_user_timeout: the socket is gone already",
    ),
    "auth_stuck": Guard(
        "authentication_timeout (60 s by default)", "superuser_reserved_connections, statement_timeout"
    ),
    "prestartup_stuck": Guard(
        "authentication_timeout (60 s by default), which writes no line to the log",
        "max_connections: they hold no slot; statement_timeout, tcp_keepalives_idle",
    ),
    "pool_exhausted": Guard(
        "a pooler in front, smaller pools", "superuser_reserved_connections: it keeps a door open only"
    ),
    "idle_leak": Guard(
        "idle_session_timeout (14 and later), a pool's own maximum lifetime",
        "idle_in_transaction_session_timeout, statement_timeout, tcp_keepalives_idle: the client is alive",
    ),
    "half_open": Guard(
        "tcp_user_timeout (12 and later) while data waits, tcp_keepalives_idle, _interval and _count while none does",
        "client_connection_check_interval, statement_timeout: nothing tells the server that the client is gone",
    ),
    "network_path": Guard(
        "tcp_user_timeout (12 and later), tcp_keepalives_idle, _interval and _count", "max_connections: they fill any"
    ),
    "slow_reader": Guard(
        "tcp_user_timeout (12 and later) on Linux 5.11 and later; ending the session",
        "statement_timeout: it cancels the statement, the session stays and its queue stays full; tcp_keepalives_idle",
    ),
    "backend_busy_unread_input": Guard("statement_timeout", "idle_session_timeout, client_connection_check_interval"),
    "client_socket_leak": Guard(
        "nothing on the server: the application must check its connections (validation, maximum lifetime)",
        "tcp_keepalives_idle: the server's end is closed already",
    ),
    "connection_thrash": Guard("a pool in the application, or a pooler in front", "max_connections, statement_timeout"),
    "role_or_database_limit": Guard(
        "alter role or alter database ... connection limit; smaller pools", "max_connections: there may be plenty"
    ),
    "pooler_waiting": Guard(
        "PgBouncer's query_wait_timeout ends the waiting; idle_transaction_timeout what keeps the pool",
        "default_pool_size alone, while something holds its connections; max_client_conn",
    ),
    "pooler_pinned": Guard("pool_mode = transaction, PgBouncer's client_idle_timeout", "query_wait_timeout"),
    "pooler_forgotten_server": Guard(
        "client_connection_check_interval (14 and later), statement_timeout", "PgBouncer's server_idle_timeout"
    ),
    "long_query": Guard("statement_timeout", "idle_session_timeout, client_connection_check_interval"),
    "unaccounted": Guard("authentication_timeout, where logins never finish", "superuser_reserved_connections"),
    "accept_queue": Guard("nothing: the postmaster itself does not accept", "max_connections, authentication_timeout"),
}


class Next(NamedTuple):
    command: str
    effect: str


# Where the next command only looks: what would end it is not in one session.
_LOOKS = {
    "pool_exhausted": Next("pgsonar scan", "shows who holds each slot; needs no connection"),
    "prestartup_stuck": Next(
        "ss -tnp 'sport = :{port}'", "shows who connects; authentication_timeout ends them by itself"
    ),
    "connection_thrash": Next(
        "ss -tn state time-wait '( sport = :{port} )' dst {address}", "shows what it left behind"
    ),
    "client_socket_leak": Next(
        "ss -tnp state close-wait '( dport = :{port} )'", "shows the process that keeps them; restarting it frees them"
    ),
    "network_path": Next(
        "ping -c 3 {address}", "shows whether the path is back; the sessions then go on by themselves"
    ),
    "role_or_database_limit": Next("pgsonar scan", "shows who holds the connections of each role and database"),
}


def next_step(server: Server, used: int, kind: str, oldest: Finding) -> Next:
    """The command to type next, about the oldest member of a leak. `used` is the slots taken: psql needs a free one."""
    port, pid = server.port, server.pid
    psql = f"sudo -u postgres psql -p {port} -c" if port is not None else "sudo -u postgres psql -c"
    if not pid:  # its processes run elsewhere, or in a namespace we do not share
        psql = f"psql -h {server.address} -p {port} -c"
    if kind == "accept_queue":
        return _look_at_queue(port, pid)
    looks = _LOOKS.get(kind)
    if looks is not None:
        return Next(looks.command.format(port=port, address=oldest.address), looks.effect)
    if server.what == "pgbouncer":
        return Next(
            f"psql -h {server.address} -p {port} pgbouncer -c 'show clients'",
            "shows who holds a server connection, and who waits",
        )
    if oldest.pid is None:
        return Next("pgsonar scan", "shows the sockets and who owns them")
    return _about_session(server, used, kind, oldest, psql)


def _about_session(server: Server, used: int, kind: str, oldest: Finding, psql: str) -> Next:
    """What is offered about one session. `kill` takes the number we see, psql the one its server sees."""
    inner = oldest.inner_pid or oldest.pid
    is_contained = bool(server.pid) and inner != oldest.pid  # psql on this host would ask another server
    if oldest.is_protected:
        looks = Next("pgsonar scan", "only looks: ending a superuser's session, DDL or a copy is not offered")
        return looks if is_contained else looks._replace(command=f'{psql} "table pg_stat_activity" | grep {inner}')
    if kind == "auth_stuck" and server.pid:
        return Next(
            f"sudo kill -TERM {oldest.pid}", "ends this login (PostgreSQL logs 57014); works when no slot is free"
        )
    most = server.limits.max_connections
    is_full = most is not None and used >= most
    if server.pid and (is_full or is_contained):
        why = "for which psql would need a slot: none is free" if is_full else "from outside its container"
        return Next(f"sudo kill -TERM {oldest.pid}", f"ends the session as pg_terminate_backend does, {why}")
    if kind in _CANCELS:
        return Next(f'{psql} "select pg_cancel_backend({inner})"', "cancels the statement; the session stays")
    effect = "ends the session, rolls its transaction back, frees the slot within milliseconds"
    return Next(f'{psql} "select pg_terminate_backend({inner})"', effect)


_CANCELS = ("long_query", "backend_busy_unread_input")


def _look_at_queue(port: int | None, pid: int) -> Next:
    if not pid:
        return Next(f"ss -ltn 'sport = :{port}'", "shows how many wait; the postmaster cannot be seen from here")
    return Next(
        f"ps -o pid,stat,wchan:20,args -p {pid}",
        f"shows whether the postmaster is stopped (T); kill -CONT {pid} wakes it",
    )
