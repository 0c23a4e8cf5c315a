"""A session whose client's host is gone without a word: a cable, a crash, a NAT that forgot.

Nothing tells it from an idle session until the kernel sends something that is not answered: a reply (retransmissions),
a keepalive (after two hours by default) or a probe of a closed window. Until then it is undetectable without a probe of
our own. When half of a network falls silent at once that is a path, and no leak of anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import Evidence, client_of, seen_to_begin, slot_evidence, tcp_text, who
from pgsonar.detectors.paths import broken_paths, silent, subnet_of
from pgsonar.detectors.seeing import no_sockets
from pgsonar.model import Connection, Finding, Severity, Sight, TcpTimer

_UNANSWERED: dict[int, str] = {
    TcpTimer.RETRANSMIT: "a reply is not acknowledged",
    TcpTimer.KEEPALIVE: "a keepalive is not answered",
    TcpTimer.ZERO_WINDOW_PROBE: "a probe of its closed window is not answered",
}


class HalfOpen:
    """Finds sessions whose peer does not answer any more."""

    kind = "half_open"
    after = 2.0
    minimum = 1.0  # seconds: a probe that is on its way is unanswered for a moment

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        fallen = silent(sight)
        broken = broken_paths(sight, fallen)
        for connection in fallen:
            yield self._finding(sight, connection, is_alone=subnet_of(connection.socket.remote.address) not in broken)

    def _finding(self, sight: Sight, connection: Connection, *, is_alone: bool) -> Finding:
        backend = sight.backend_of.get(connection.id)
        socket = connection.socket
        evidence: Evidence = {
            "pgsonar.evidence.tcp": tcp_text(connection),
            "pgsonar.evidence.unanswered": _UNANSWERED.get(socket.timer, "the peer is silent"),
        }
        if backend is None:
            return Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=f"?@{socket.remote.address}",
                address=socket.remote.address,
                port=socket.remote.port,
                onset=connection.silent_since,
                onset_source=seen_to_begin(connection.silent_since, connection),
                severity=Severity.HIGH,
                opens=is_alone,
                evidence=evidence,
            )
        return Finding(
            kind=self.kind,
            server=sight.server.id,
            identity=who(backend),
            **client_of(backend),
            onset=connection.silent_since,
            onset_source=seen_to_begin(connection.silent_since, connection),
            severity=Severity.HIGH,
            opens=is_alone,
            evidence=evidence | slot_evidence(backend, sight),
            alternative="packets are lost on the way: it comes back when they pass again",
        )
