"""Half of a network's sessions fell silent within a minute: a switch, a firewall, a zone, and not many leaks.

Its sessions hold their slots until the kernel gives up, or until the path is back.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import client_of, seen_to_begin, slot_evidence, tcp_text
from pgsonar.detectors.paths import broken_paths, silent
from pgsonar.detectors.seeing import no_sockets
from pgsonar.model import Connection, Finding, Severity, Sight


class NetworkPath:
    """Finds networks that were cut off."""

    kind = "network_path"
    after = 10.0
    minimum = 1.0

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for subnet, there in broken_paths(sight, silent(sight)).items():
            for connection in there:
                yield self._finding(sight, subnet, connection)

    def _finding(self, sight: Sight, subnet: str, connection: Connection) -> Finding:
        backend = sight.backend_of.get(connection.id)
        remote = connection.socket.remote
        evidence = slot_evidence(backend, sight) if backend is not None else {}
        who = client_of(backend) if backend is not None else None
        return Finding(
            kind=self.kind,
            server=sight.server.id,
            identity=subnet,
            pid=who["pid"] if who else None,
            inner_pid=who["inner_pid"] if who else None,
            user=who["user"] if who else None,
            database=who["database"] if who else None,
            address=remote.address,
            port=remote.port,
            onset=connection.silent_since,
            onset_source=seen_to_begin(connection.silent_since, connection),
            severity=Severity.HIGH,
            evidence=evidence | {"pgsonar.evidence.tcp": tcp_text(connection), "pgsonar.network.subnet": subnet},
            alternative="one host of it that holds most of the connections has died",
        )
