"""A login to a PostgreSQL server or to a PgBouncer console: one connection, never more.

The rule: the only importer of psycopg in the daemon (11 MB, so this file is imported only where a login is configured),
and every statement ends by itself. No password appears in an error: what is told is PostgreSQL's own first line.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from pgsonar.config.schema import PgbouncerReceiver, PostgresqlReceiver, TlsClient
from pgsonar.errors import LoginError, MissingPartError

try:
    import psycopg
    from psycopg.rows import dict_row
except ImportError as error:  # psycopg without its own libpq needs the system's
    raise MissingPartError(
        f"a login needs psycopg: {error}", "pip install 'psycopg[binary]', or install libpq (Debian: libpq5)"
    ) from error

Row = dict[str, Any]
Receiver = PostgresqlReceiver | PgbouncerReceiver

APPLICATION = "pgsonar"
CONNECT_WITHIN = 5  # seconds; libpq takes no less than 2
COMMAND_WITHIN = 10  # seconds a password_command may take
# A server that hangs must not hold more than one statement of ours, and ours must not hold up anybody.
GUARDS = (
    "set statement_timeout = '3s'",
    "set lock_timeout = '500ms'",
    "set idle_in_transaction_session_timeout = '5s'",
)
# A peer that vanished is noticed within half a minute, also under a statement.
_PATIENCE = {
    "connect_timeout": CONNECT_WITHIN,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20000,
}

_HINTS = {
    "28": "check receivers.{key}.username, its password, and pg_hba.conf",
    "3D": "the database {database} must exist and be open to it",
    "42501": "grant pg_monitor to it",
    "53300": "no slot was free; it is tried again, and everything that needs no login goes on",
    "55P03": "a catalog is locked; what was known before is kept",
    "57014": "the server took too long; it is tried again",
}


class Login:
    """One connection, made when it is first needed and made anew when it was lost."""

    def __init__(self, key: str, receiver: Receiver, *, database: str, guards: Sequence[str] = GUARDS) -> None:
        self._key = key  # of the receiver in the configuration, such as postgresql/orders
        self._receiver = receiver
        self._database = database
        self._guards = guards
        self._connection: psycopg.Connection[Row] | None = None
        self.generation = 0  # how often it connected
        self.host, self.port = endpoint_of(receiver.endpoint)

    def ask(self, statement: str, values: Mapping[str, object] | None = None) -> list[Row]:
        """The rows of one statement. Raises LoginError; a connection that is no good any more is closed."""
        try:
            connection = self._connection = self._connection or self._connect()
            # Literals of this program only: the text of a file and no other.
            return connection.execute(statement, values).fetchall()
        except psycopg.Error as error:
            if self._connection is None or self._connection.closed or self._connection.broken:
                self.close()
            raise self._told(error) from None

    def close(self) -> None:
        """Gives the connection up; the next question makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> psycopg.Connection[Row]:
        parameters = {
            "host": self.host,
            "port": self.port,
            "dbname": self._database,
            "user": self._receiver.username,
            "password": self._password(),
            "passfile": self._receiver.passfile,
            "application_name": APPLICATION,
            **_PATIENCE,
            **tls_parameters(self._receiver.tls, self.host),
        }
        given: dict[str, Any] = {name: value for name, value in parameters.items() if value is not None}
        connection = psycopg.connect(**given, autocommit=True, prepare_threshold=None, row_factory=dict_row)
        try:
            for guard in self._guards:
                connection.execute(guard)
        except psycopg.Error:
            connection.close()
            raise
        self.generation += 1
        return connection

    def _password(self) -> str | None:
        """The password, asked for anew at each connection: tokens expire."""
        command = self._receiver.password_command
        if command is None:
            return self._receiver.password
        key = f"receivers.{self._key}.password_command"
        try:
            ran = subprocess.run(
                shlex.split(command), capture_output=True, text=True, timeout=COMMAND_WITHIN, check=False
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise LoginError(f"{key} failed: {type(error).__name__}", "run it by hand as the agent's user") from None
        if ran.returncode or not ran.stdout.strip():
            raise LoginError(
                f"{key} ended with {ran.returncode} and printed {'nothing' if not ran.stdout.strip() else 'something'}",
                "it must print the password on its standard output and end with 0",
            )
        return ran.stdout.rstrip("\r\n")

    def _told(self, error: psycopg.Error) -> LoginError:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        state = error.sqlstate or _state_of(first)
        hint = next((hint for prefix, hint in _HINTS.items() if state and state.startswith(prefix)), "")
        told = LoginError(
            f"{first.removeprefix('connection failed: ')}",
            hint.format(key=self._key, database=self._database) or f"check receivers.{self._key}",
        )
        told.state = state
        return told


def _state_of(text: str) -> str | None:
    """The SQLSTATE behind a refused connection, which libpq does not hand on."""
    if "too many c" in text or "remaining connection slots" in text or "no more connections allowed" in text:
        return "53300"
    return "28000" if "authentication failed" in text or "no pg_hba.conf entry" in text else None


def endpoint_of(endpoint: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[::1]:port`, or `/directory:port` of a unix socket."""
    host, _, port = endpoint.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def tls_parameters(tls: TlsClient, host: str) -> dict[str, str]:
    """What libpq calls it. Nothing written means TLS where the server offers it, as psql does."""
    if host.startswith("/"):
        return {}
    files = {"sslrootcert": tls.ca_file, "sslcert": tls.cert_file, "sslkey": tls.key_file}
    parameters = {name: path for name, path in files.items() if path is not None}
    if tls.insecure:
        return {"sslmode": "disable"}
    if tls.insecure_skip_verify:
        return {"sslmode": "require"} | {name: path for name, path in parameters.items() if name != "sslrootcert"}
    if tls == TlsClient():
        return {"sslmode": "prefer"}
    if tls.server_name_override is not None:
        # libpq verifies the name it was given, and dials the address beside it.
        parameters |= {"host": tls.server_name_override, "hostaddr": _address_of(host)}
    return parameters | {"sslmode": "verify-full"} | ({} if tls.ca_file else {"sslrootcert": "system"})


def _address_of(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise LoginError(f"{host}: {error.strerror}", "the name in endpoint must resolve") from None
