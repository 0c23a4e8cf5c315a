"""What is told, and to whom: episodes as events and spans, readings as metrics, each to the exporters of its signal.

The rule: nothing here waits; an exporter has its own queue and thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from pgsonar.config.schema import Telemetry
from pgsonar.model import Connection, Destination, EpisodeEvent, Moment, Pooling, Resource
from pgsonar.signals.agent_metrics import AgentReading
from pgsonar.signals.identity import Identity
from pgsonar.signals.leak_metrics import LeakReading
from pgsonar.signals.leaks import event_row, span_row
from pgsonar.signals.metrics import agent_rows, client_rows, leak_rows, own_rows, pooler_rows, server_rows
from pgsonar.signals.names import StickyNames
from pgsonar.signals.own_metrics import OwnReading
from pgsonar.signals.redaction import Redaction
from pgsonar.signals.rows import Batch, Exemplar, Row
from pgsonar.signals.server_metrics import ServerReading

log = logging.getLogger("pgsonar")


class Outlet(Protocol):
    """Where batches go: an exporter's queue. Never blocks."""

    def export(self, batch: Batch) -> None: ...


class Own(Protocol):
    """What a running agent tells of itself, and who wants nothing but that."""

    def read(self) -> OwnReading: ...
    def export(self, batch: Batch) -> None: ...


class Reporter:
    """Sends to the outlets of each signal, and keeps what an export needs of the ones before it."""

    def __init__(
        self,
        outlets: dict[str, list[Outlet]],
        identity: Identity,
        started_unix: int,
        telemetry: Telemetry,
        journal: Callable[[list[EpisodeEvent]], None] = lambda _: None,
    ) -> None:
        self._outlets = outlets
        self._journal = journal
        self._identity = identity
        self._started = started_unix
        self.own: Own | None = None
        self.places = telemetry.metrics.clients
        self.redaction = Redaction(telemetry.redaction)
        self._names: dict[str, StickyNames] = {}
        self._exemplars: dict[str, dict[tuple[str, str], tuple[Exemplar, ...]]] = {}

    def configure(self, identity: Identity, telemetry: Telemetry) -> None:
        """Goes on as another configuration has it; only what is hidden stays as it was."""
        self._identity = identity
        if telemetry.metrics.clients != self.places:
            self.places = telemetry.metrics.clients
            self._names.clear()

    def names(self, server: str) -> StickyNames:
        """The clients of a server that have names of their own in its metrics."""
        return self._names.setdefault(server, StickyNames(self.places))

    def forget(self, server: str) -> None:
        """A server is gone."""
        self._names.pop(server, None)
        self._exemplars.pop(server, None)

    def tell(self, events: list[EpisodeEvent]) -> None:
        """Sends what has happened to episodes, at once; it is in the journal before."""
        if not events:
            return
        self._journal(events)
        spans: list[tuple[Resource, list[Row]]] = []
        records: list[tuple[Resource, list[Row]]] = []
        for event in events:
            resource = self._identity.of(event.episode.server)
            if event.name in ("resolved", "continued"):
                spans.append((resource, [span_row(event.episode)]))
            if event.name == "continued":
                continue
            row = event_row(event)
            log.info("%s", row.body, extra={"pgsonar": {"event": row.event_name, "kind": event.episode.kind}})
            records.append((resource, [row]))
            if event.name == "opened":
                self._remember_exemplar(event)
        for batch in (Batch("logs", records), Batch("traces", spans)):
            if batch.resources:
                self._send(batch)

    def _remember_exemplar(self, event: EpisodeEvent) -> None:
        episode = event.episode
        exemplar = Exemplar(event.moment.unix, 1, episode.trace_id, episode.span_id)
        self._exemplars.setdefault(episode.server.id, {})[episode.kind, episode.severity.word] = (exemplar,)

    def report(
        self,
        *,
        servers: list[ServerReading],
        poolers: list[Pooling],
        destinations: list[tuple[Destination, list[Connection]]],
        leaks: list[LeakReading],
        agent: AgentReading,
        now: Moment,
    ) -> None:
        """Sends all metrics as one batch."""
        resources: dict[Resource, list[Row]] = {}
        for reading in servers:
            rows = self.redaction.rows(server_rows(reading, self._started, now))
            resources[self._identity.server(reading.sight.server)] = list(rows)
        for pooling in poolers:
            resources[self._identity.pooler(pooling.pooler)] = list(
                pooler_rows(self.redaction.pooling(pooling), self._started, now)
            )
        for destination, connections in destinations:
            resources[self._identity.destination(destination)] = list(
                client_rows(destination, connections, self._started, now)
            )
        for told in leaks:
            exemplars = self._exemplars.pop(told.server.id, {})
            resources.setdefault(self._identity.of(told.server), []).extend(
                leak_rows(told, self._started, now, exemplars)
            )
        own: list[Row] = list(agent_rows(agent, self._started, now))
        if self.own is not None:
            own += own_rows(self.own.read(), self._started, now)
            self.own.export(Batch("metrics", [(self._identity.agent(), own)]))
        resources[self._identity.agent()] = own
        # A pooler that nobody uses has nothing to tell.
        self._send(Batch("metrics", [(resource, rows) for resource, rows in resources.items() if rows]))

    def _send(self, batch: Batch) -> None:
        for outlet in self._outlets.get(batch.signal, ()):
            outlet.export(batch)
