"""The application's end of a session that the server has ended: the server's close was never read.

Seen on the host where the application runs, as CLOSE_WAIT with an owner; it holds a descriptor there and nothing on the
server. After a failover every pool holds many of these until it next checks its connections: what closed in the same
second as several others has as long as a pool keeps a connection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from pgsonar.detectors.evidence import connection_key, seen_to_begin, tcp_text
from pgsonar.model import SECOND, ClientSight, Connection, Finding, Severity, TcpState

MANY = 5
TOGETHER = SECOND
UNTIL_DATED = 60 * SECOND
FORGIVEN = 35 * 60 * SECOND  # HikariCP's maxLifetime is 30 minutes


class ClientSocketLeak:
    """Finds sockets of applications whose server has gone."""

    kind = "client_socket_leak"
    after = 60.0
    minimum = 1.0

    def cannot_tell(self, sight: ClientSight) -> str | None:  # noqa: ARG002 - what is in sight has been seen
        return None

    def examine(self, sight: ClientSight) -> Iterator[Finding]:
        left = [c for c in sight.connections if c.socket.state == TcpState.CLOSE_WAIT and c.socket.inode]
        is_together = _Together(left, sight.at)
        for connection in left:
            if is_together(connection) and sight.at - connection.state_since < FORGIVEN:
                continue
            local, client = connection.socket.local, connection.client
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=(client.unit or client.command) if client is not None else local.address,
                address=local.address,
                port=local.port,
                onset=connection.state_since,
                onset_source=seen_to_begin(connection.state_since, connection),
                severity=Severity.WARNING,
                client=client,
                evidence={
                    "pgsonar.evidence.tcp": tcp_text(connection),
                    "pgsonar.connection.key": connection_key(local, connection.socket.remote),
                },
                alternative="a pool that checks its connections only when it next lends them",
            )


class _Together:
    """Which were closed in the same second as several others.

    When is not known of what stood at first sight; TCP_INFO tells within seconds, and the text of procfs never.
    """

    def __init__(self, left: list[Connection], at: int) -> None:
        dated = (c for c in left if _is_dated(c) or at - c.opened_at < UNTIL_DATED)
        self._times = sorted(c.state_since for c in dated)
        self._at = at

    def __call__(self, connection: Connection) -> bool:
        if not _is_dated(connection) and self._at - connection.opened_at >= UNTIL_DATED:
            return False
        since = connection.state_since
        return bisect_right(self._times, since + TOGETHER) - bisect_left(self._times, since - TOGETHER) >= MANY


def _is_dated(connection: Connection) -> bool:
    return connection.state_since > connection.opened_at or connection.details is not None
