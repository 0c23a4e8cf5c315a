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
    "accept_queue": Guard("nothing: the postmaster itself does not accept", "max_connections, authentication_timeout"),
}


class Next(NamedTuple):
    command: str
    effect: str


def next_step(server: Server, used: int, kind: str, oldest: Finding) -> Next:
    """The command to type next, about the oldest member of a leak. `used` is the slots taken: psql needs a free one."""
    port, pid = server.port, server.pid
    psql = f"sudo -u postgres psql -p {port} -c" if port is not None else "sudo -u postgres psql -c"
    if not pid:  # its processes run elsewhere, or in a namespace we do not share
        psql = f"psql -h {server.address} -p {port} -c"
    if kind == "accept_queue":
        return _look_at_queue(port, pid)
    if kind == "pool_exhausted":
        return Next("pgsonar scan", "shows who holds each slot; needs no connection")
    if kind == "prestartup_stuck":
        return Next(f"ss -tnp 'sport = :{port}'", "shows who connects; authentication_timeout ends them by itself")
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
    effect = "ends the session, rolls its transaction back, frees the slot within milliseconds"
    return Next(f'{psql} "select pg_terminate_backend({inner})"', effect)


def _look_at_queue(port: int | None, pid: int) -> Next:
    if not pid:
        return Next(f"ss -ltn 'sport = :{port}'", "shows how many wait; the postmaster cannot be seen from here")
    return Next(
        f"ps -o pid,stat,wchan:20,args -p {pid}",
        f"shows whether the postmaster is stopped (T); kill -CONT {pid} wakes it",
    )
