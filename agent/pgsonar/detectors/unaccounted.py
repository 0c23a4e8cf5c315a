"""Slots that are held and that the database does not list: two views of one server that do not agree.

The processes are one view, pg_stat_activity through a login the other; the gap is believed once it stands in two
readings in a row. Clients that never sent their password are its usual cause, and auth_stuck names these first.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgsonar.detectors.evidence import client_of, slot_evidence
from pgsonar.detectors.seeing import no_own_processes
from pgsonar.model import Finding, Severity, Sight


class Unaccounted:
    """Finds slots that pg_stat_activity does not show."""

    kind = "unaccounted"
    after = 10.0
    minimum = 0.0

    def cannot_tell(self, sight: Sight) -> str | None:
        if sight.server.pid and sight.reading is None:
            return "what the database itself lists is not known: add receivers.postgresql"
        if sight.reading is not None and not sight.reading.sees_all:
            return "the login does not see all sessions: grant pg_monitor to it"
        return no_own_processes(sight)

    def examine(self, sight: Sight) -> Iterator[Finding]:
        if not sight.unlisted or sight.reading is None:
            return
        for backend in sight.backends:
            since = sight.unlisted.get((backend.pid, backend.started))
            if since is None:
                continue
            yield Finding(
                kind=self.kind,
                server=sight.server.id,
                identity="",
                **client_of(backend),
                onset=since,
                onset_source="estimated",  # to the interval of the readings
                counts_until=sight.reading.at,
                severity=Severity.WARNING,
                evidence=slot_evidence(backend, sight)
                | {
                    "pgsonar.gap.count": len(sight.unlisted),
                    "pgsonar.gap.database_sees": sight.ledger.database_sees or 0,
                    "pgsonar.gap.cause": sight.ledger.cause or "unknown",
                },
            )
