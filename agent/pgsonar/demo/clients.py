"""Clients that leak, at the level of PostgreSQL's wire protocol, so that each leaves exactly the symptom it should.

The rule: a client here does one thing wrong and nothing else (https://www.postgresql.org/docs/current/protocol-flow.html).
Run as a module (`python -m pgsonar.demo.clients PORT USER SQL [HOST]`) it is a client process that can be killed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time

PROTOCOL_3 = 196608
TERMINATE = b"X\0\0\0\4"


def _connect(host: str, port: int, source: str | None) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port), timeout=10, source_address=(source, 0) if source else None)
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(10)
    try:
        local.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        local.close()
        raise
    return local


class WireClient:
    """A connection of one user, logged in unless `login` is False, from the address `source` if one is given.

    `host` may be the directory of a unix socket.
    """

    def __init__(
        self,
        port: int,
        user: str,
        *,
        login: bool = True,
        host: str = "127.0.0.1",
        source: str | None = None,
        database: str = "postgres",
    ) -> None:
        self.socket = _connect(host, port, source)
        self.backend_pid: int | None = None
        parameters = b"".join(part.encode() + b"\0" for part in ("user", user, "database", database)) + b"\0"
        self.socket.sendall(struct.pack("!II", 8 + len(parameters), PROTOCOL_3) + parameters)
        if login:
            try:
                self._finish_login()
            except OSError:
                self.socket.close()
                raise

    @property
    def port(self) -> int:
        """The client's own port."""
        return int(self.socket.getsockname()[1])

    def _finish_login(self) -> None:
        while True:
            kind, body = self.message()
            if kind == b"E":
                raise ConnectionRefusedError(error_code(body))
            if kind == b"K":  # BackendKeyData
                (self.backend_pid,) = struct.unpack("!I", body[:4])
            if kind == b"Z":  # ReadyForQuery
                return

    def message(self) -> tuple[bytes, bytes]:
        """The next message: its type and its body."""
        head = self._exactly(5)
        return head[:1], self._exactly(struct.unpack("!I", head[1:])[0] - 4)

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self.socket.recv(size - len(parts))
            if not part:
                raise ConnectionResetError("the server closed the connection")
            parts += part
        return parts

    def send_query(self, sql: str) -> None:
        """Sends a query and reads nothing."""
        text = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", 4 + len(text)) + text)

    def execute(self, sql: str) -> None:
        """Sends a query and reads all of its reply."""
        self.send_query(sql)
        while self.message()[0] != b"Z":
            pass

    def reset(self) -> None:
        """Closes with replies unread: the kernel answers with a reset instead of a FIN (RFC 2525, section 2.17)."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if self.socket.recv(1, socket.MSG_PEEK):
                break
        self.socket.close()

    def close(self) -> None:
        """Takes leave properly, where the server still listens."""
        with contextlib.suppress(OSError):  # the server may have closed first
            self.socket.sendall(TERMINATE)
        self.socket.close()


def error_code(body: bytes) -> str:
    """The SQLSTATE of an ErrorResponse."""
    for field in body.split(b"\0"):
        if field[:1] == b"C":
            return field[1:].decode("ascii", "replace")
    return ""


def main(port: str, user: str, sql: str, host: str = "127.0.0.1") -> None:
    """Logs in, sends a query, says which backend runs it, and waits to be killed."""
    client = WireClient(int(port), user, host=host)
    client.send_query(sql)
    sys.stdout.write(f"{client.backend_pid} {client.port}\n")
    sys.stdout.flush()
    time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
