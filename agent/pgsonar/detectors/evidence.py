"""What every finding says of a backend, in the same words: who it is, where its client sits, what was seen.

The rule: only what was seen; what is not known is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypedDict

from pgsonar.model import (
    LOCAL_HOST,
    SECOND,
    Activity,
    Backend,
    BackendKind,
    ClientProcess,
    Connection,
    Endpoint,
    Finding,
    Session,
    Sight,
    TcpState,
    TcpTimer,
)
from pgsonar.tracking.stillness import unmoved_since

TRACEPARENT = "pgsonar.traceparent"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, version 00

# Many backends that end at once on a busy machine take seconds for it.
ENDING = 10 * SECOND
_WAITING_FOR_CLIENT = (Activity.IDLE, Activity.IN_TRANSACTION, Activity.ABORTED)
# Tools that hold sessions open on purpose, as they call themselves in application_name or as their manuals have it
# called. PgBouncer is none of them: a session called `pgbouncer` is one of its pool, and carries what applications do.
_ON_PURPOSE = frozenset(
    {
        # backups and copies: PostgreSQL's own programs call themselves by their file names
        *("pg_dump", "pg_dumpall", "pg_basebackup", "pg_receivewal", "pg_receivexlog", "pg_recvlogical"),
        *("barman", "barman_receive_wal", "barman_streaming_backup"),  # streaming_archiver_name, streaming_backup_name
        *("pgbackrest", "wal-g", "wal-e"),  # `pgBackRest [backup]`; WAL-G takes PGAPPNAME
        # those that keep a cluster together: `Patroni heartbeat`, `Patroni restapi`, `repmgrd`
        *("patroni", "repmgr", "repmgrd"),
        # jobs: `pg_cron scheduler` and `pg_cron`
        *("pg_cron", "pgagent", "pg_timetable"),
        # monitoring; `Zabbix agent 2`
        *("datadog-agent", "telegraf", "zabbix", "zabbix_agent", "zabbix_agent2", "zabbix-agent2"),
        *("postgres_exporter", "postgres-exporter", "pg_exporter", "sql_exporter", "pgscv"),
        *("pgwatch", "pgwatch2", "pgwatch3", "pganalyze", "pganalyze_collector", "pganalyze-collector", "pgsonar"),
    }
)
# Roles that their manuals create for them; without a login a session's role is all of its name that is seen.
_ON_PURPOSE_ROLES = _ON_PURPOSE | {"datadog", "zbx_monitor", "nagios", "streaming_barman", "ccp_monitoring"}
_WORD = re.compile(r"[\w-]+")
_KEEP = re.compile(r"COPY|CREATE|ALTER|DROP|REINDEX|REFRESH|CLUSTER|VACUUM|ANALYZE|BASE_BACKUP|START_REPLICATION")
_GUARDS = (
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "statement_timeout",
    "transaction_timeout",
    "client_connection_check_interval",
    "tcp_keepalives_idle",
    "tcp_user_timeout",
)

Evidence = dict[str, str | int | float | bool]


class Client(TypedDict):
    """The fields of a Finding that name the member."""

    pid: int | None
    inner_pid: int | None
    is_protected: bool
    address: str | None
    port: int | None
    user: str | None
    database: str | None
    peer: Endpoint | None
    via: str | None


def who(backend: Backend) -> str:
    """The identity that leaks are grouped by: user@client address, also behind a pooler, else what the title shows.

    Where nobody can tell the user from the database, both together stand for the user.
    """
    title, user = backend.title, backend.user or backend.title.names
    client = backend.via.client if backend.via is not None else None
    if client is not None:
        return f"{user or client.user}@{client.address or LOCAL_HOST}"
    bound = backend.connection
    host = bound.socket.remote.address if bound is not None and title.is_cut else title.host
    if user is None:
        return f"?@{host}" if host else f"pid {backend.pid}"
    return f"{user}@{host}" if host else user


def client_of(backend: Backend) -> Client:
    """Backend and client, from the socket where it is known, else from the title."""
    title, connection = backend.title, backend.connection
    remote = connection.socket.remote if connection else None
    local = title.host == LOCAL_HOST
    address, port = (remote.address, remote.port) if remote else (None if local else title.host, title.port)
    application = backend.via.client if backend.via is not None else None
    peer = Endpoint(address, port) if application is not None and address is not None and port is not None else None
    return Client(
        pid=backend.pid,
        inner_pid=backend.inner_pid,
        is_protected=_is_protected(backend),
        address=application.address if application is not None else address,
        port=application.port if application is not None else port,
        user=backend.user,
        database=backend.database,
        peer=peer,
        via=backend.via.pooler if backend.via is not None else None,
    )


def _is_protected(backend: Backend) -> bool:
    title, session = backend.title, backend.session
    is_superuser = backend.user == "postgres" or (session is not None and session.is_superuser)
    is_unknown = backend.kind is BackendKind.UNKNOWN
    return is_superuser or is_unknown or is_maintenance(title.activity) or is_on_purpose(backend)


def is_on_purpose(backend: Backend) -> bool:
    """Whether a session is assumed to be held open on purpose."""
    return assumed_by(backend) is not None


def assumed_by(backend: Backend) -> str | None:
    """By which of its names a session is assumed to be held open on purpose, if it is.

    The first word of its application_name, or its role, is that of a known tool: the whole word, since what has such a
    word in its name (report_exporter, patient_monitoring) is an application. Anybody may take the name of a tool, so
    that it stays an assumption.
    """
    via = backend.via.client if backend.via is not None else None
    told = (backend.session.application if backend.session is not None else None, via.application if via else None)
    words = (_WORD.match(name.lower()) for name in told if name)
    if any(word is not None and word[0] in _ON_PURPOSE for word in words):
        return "application_name"
    return "role" if (backend.title.user or "").lower() in _ON_PURPOSE_ROLES else None


def is_maintenance(activity: str | None) -> bool:
    """Whether a statement copies, changes the schema or cleans up: long by nature, and never ended lightly."""
    return bool(_KEEP.match(activity or ""))


def believed_until(backend: Backend, at: int) -> int:
    """Up to when a lost client counts. A backend that waits for its client notices at once, and is ending."""
    return at - ENDING if backend.title.activity in _WAITING_FOR_CLIENT else at


def seen_since_fork(backend: Backend) -> str:
    """The source of an onset that is the backend's start: observed, if it was met within a second of it."""
    return "observed" if backend.first_seen - backend.started < SECOND else "estimated"


def seen_to_begin(since: int | None, connection: Connection) -> str:
    """The source of an onset on a connection: observed, if it was met before."""
    return "observed" if since is not None and since > connection.opened_at else "estimated"


def common_client(findings: Iterable[Finding]) -> ClientProcess | None:
    """The process behind all of them, if it is one."""
    clients = {finding.client for finding in findings}
    return clients.pop() if len(clients) == 1 else None


def slot_evidence(backend: Backend, sight: Sight) -> Evidence:
    """Title, socket row and context switches of a backend."""
    evidence: Evidence = {
        "pgsonar.evidence.title": backend.title.text,
        "pgsonar.evidence.state_seconds": round((sight.at - backend.activity_since) / 1e9, 3),
        "pgsonar.evidence.unmoved_seconds": round((sight.at - unmoved_since(backend)) / 1e9, 3),
    }
    if backend.title.activity:
        evidence["postgresql.state"] = backend.title.activity
    if backend.switches is not None:
        evidence["pgsonar.evidence.context_switches"] = backend.switches
    evidence |= connection_evidence(backend)
    if (name := assumed_by(backend)) is not None:
        evidence["pgsonar.evidence.on_purpose"] = f"assumed by its {name}, which is that of a known tool"
    if backend.via is not None:
        evidence["pgsonar.pooler"] = backend.via.pooler
        if backend.via.has_forgotten:
            evidence["pgsonar.pooler.has_forgotten"] = True
        if backend.via.client is not None and backend.via.client.application is not None:
            evidence["postgresql.application_name"] = backend.via.client.application
    if backend.session is not None:
        evidence |= _session_evidence(backend.session, sight)
    return evidence


def connection_evidence(backend: Backend) -> Evidence:
    """The socket row of a backend."""
    if backend.connection is None:
        return {}
    socket = backend.connection.socket
    return {
        "pgsonar.evidence.tcp": tcp_text(backend.connection),
        "pgsonar.connection.key": connection_key(socket.remote, socket.local),
    }


def _session_evidence(session: Session, sight: Sight) -> Evidence:
    """What the database itself says of a session."""
    blocked = sum(session.pid in other.blocked_by for other in sight.reading.sessions) if sight.reading else 0
    since = session.transaction_since
    told: dict[str, str | int | float | None] = {
        "postgresql.application_name": session.application,
        "postgresql.wait_event_type": session.wait_event_type,
        "postgresql.wait_event": session.wait_event,
        "pgsonar.evidence.transaction_seconds": None if since is None else round((sight.at - since) / 1e9, 3),
        "pgsonar.evidence.locks": session.locks,
        "pgsonar.evidence.blocks": blocked or None,
        "pgsonar.guard.settings": _guards(sight.reading.settings) if sight.reading is not None else None,
    }
    if session.query_text is not None:
        told[TRACEPARENT if _TRACEPARENT.fullmatch(session.query_text) else "db.query.text"] = session.query_text
    return {key: value for key, value in told.items() if value is not None}


def _guards(settings: dict[str, str]) -> str | None:
    """What the server would end sessions by, as it runs now."""
    guards = (f"{name}={settings[name]}" for name in _GUARDS if name in settings)
    return ", ".join(guards) or None


PHASE, NOT_READING = "pgsonar.leak.phase", "server_not_reading"
_UNREAD = SECOND  # what came a moment ago is about to be read


def phase_of_login(backend: Backend, at: int) -> Evidence:
    """Whose delay a login that hangs is: the server's, where what the client sent lies unread."""
    connection = backend.connection
    since = connection.unread_since if connection is not None else None
    return {PHASE: NOT_READING} if since is not None and at - since >= _UNREAD else {}


def connection_key(client: Endpoint, server: Endpoint) -> str:
    """What agents on both ends of a hop call a connection: the client's end first."""
    return f"{client}-{server}"


def tcp_text(connection: Connection) -> str:
    """A socket row, readable: `close_wait tx=0 rx=1 timer=keepalive probes=0 retransmits=0 inode=1234`."""
    socket = connection.socket
    timer = TcpTimer(socket.timer).name.lower() if socket.timer in set(TcpTimer) else str(socket.timer)
    return (
        f"{TcpState(socket.state).spelling} tx={socket.tx_queue} rx={socket.rx_queue} timer={timer} "
        f"probes={socket.probes} retransmits={socket.retransmits} inode={socket.inode}"
    )
