"""A backend that works on though the kernel has no socket left for it.

A reset (the client died with replies unread) or a keepalive death takes the row out of every table at once, while the
backend runs its statement to the end and pg_stat_activity goes on showing the client. Only a row that was seen and
vanished counts: a title whose row was never seen may be in another namespace.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import believed_until, client_of, slot_evidence, who
from pgsonar.detectors.seeing import no_processes, no_sockets
from pgsonar.model import Finding, Severity, Sight


class OrphanedBackendNoSocket:
    """Finds backends whose socket was reset.

    High; critical when one waits for a lock.
    """

    kind = "orphaned_backend_no_socket"
    after = 2.0
    minimum = 1.0  # seconds: a backend that is ending loses its socket a moment before its process

    def cannot_tell(self, sight: Sight) -> str | None:
        return no_sockets(sight) or no_processes(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        for backend in sight.backends:
            # The process must have been seen alive after its socket had gone.
            lost = backend.socket_lost_at
            if lost is None or not backend.is_client or backend.seen_at <= lost:
                continue
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity=who(backend),
                **client_of(backend),
                onset=lost,
                counts_until=believed_until(backend, sight.at),
                severity=Severity.CRITICAL if backend.title.waiting else Severity.HIGH,
                evidence=slot_evidence(backend, sight)
                | {
                    "pgsonar.evidence.departure": "reset: the row left the kernel's tables, the process runs on",
                    "pgsonar.leak.waits_for_lock": backend.title.waiting,
                },
            )
