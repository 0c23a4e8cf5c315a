"""The stages wired: changes and titles in, episodes and metrics out.

The rule: the flow goes one way, and this is the only place that knows every stage. Ticks are called by the service;
they share no state with other threads but the sampler's ring and the exporters' queues.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import Rules, rules
from pgsonar.detectors.evidence import who
from pgsonar.episodes.overrides import Overrides
from pgsonar.episodes.tracker import EpisodeTracker, leak_readings
from pgsonar.episodes.verdicts import untold
from pgsonar.model import (
    REFUSALS_OF_SLOTS,
    BackendSighting,
    ClientSide,
    ClientSight,
    Connection,
    Destination,
    Episode,
    Finding,
    LogCounts,
    Moment,
    PoolerSight,
    Server,
    Sight,
    Slots,
)
from pgsonar.pipeline.attribution import Attribution
from pgsonar.pipeline.closer import CloserLook
from pgsonar.pipeline.destinations import Destinations
from pgsonar.pipeline.discovery import Discovery
from pgsonar.pipeline.namespaces import Namespaces
from pgsonar.pipeline.ownership import Ownership
from pgsonar.pipeline.probing import ask_suspects
from pgsonar.pipeline.reporting import Reporter
from pgsonar.pipeline.sights import Sights
from pgsonar.pipeline.world import AnswerSource, Sources
from pgsonar.signals.agent_metrics import AgentReading
from pgsonar.signals.server_metrics import ServerReading
from pgsonar.sources.sockets import source_name
from pgsonar.tracking.backends import BackendTable, attach
from pgsonar.tracking.client_side import NAMED
from pgsonar.tracking.connections import REMEMBERED, ConnectionTable
from pgsonar.tracking.correlation import Correlation
from pgsonar.tracking.earlier import EarlierRun
from pgsonar.tracking.growth import IdleGrowth
from pgsonar.tracking.poolers import PoolerTable, closed_at
from pgsonar.tracking.readings import Readings, sightings
from pgsonar.tracking.refusals import SLOTS, Refusals


def random_id(bits: int) -> int:
    """For episodes."""
    return secrets.randbits(bits) or 1


class Pipeline:
    """One pass from the kernel to the exporters, cut into ticks."""

    def __init__(
        self,
        sources: Sources,
        leaks: LeaksProcessor | None,
        reporter: Reporter,
        new_id: Callable[[int], int] = random_id,
    ) -> None:
        self.sources = sources
        self.earlier = EarlierRun()
        self.connections = ConnectionTable(reporter.places)
        self.backends = BackendTable()
        self.correlation = Correlation(self.earlier)
        self.readings = Readings(self.backends)
        self.poolers = PoolerTable(self.earlier)
        self.logs: dict[str, LogCounts] = {}
        self.log_problems: list[str] = []
        self.refusals = Refusals()
        self.attribution = Attribution(sources.clients, self.poolers)
        self.discovery = Discovery(sources, self.readings, self.poolers)
        self.growth = IdleGrowth(who, self.earlier, idle_after=0, window=1)
        self.episodes = EpisodeTracker(new_id, self.earlier)
        self._judge_by(leaks)
        self._ownership = Ownership(sources.owners)
        self._closer = CloserLook(sources.sampler, self.connections)
        self._overflows: dict[str, int] = {}  # by server, ever: what a namespace counts may begin anew
        self.untold: dict[str, dict[str, str]] = {}  # by server: the kinds that cannot be told, and why
        self.failures: Counter[str] = Counter()  # by stage, for health
        self._reporter = reporter
        self.namespaces = Namespaces(
            sources.sampler,
            sources.listen_overflows,
            source=sources.source,
            destroy_events=sources.destroy_events,
            proc=sources.proc,
        )
        self.sights = Sights(
            self.connections,
            self.backends,
            self.readings,
            self.poolers,
            self.refusals,
            self.growth,
            self.namespaces,
        )
        self._destinations = Destinations(self.connections, self.attribution, sources.names)

    def _judge_by(self, leaks: LeaksProcessor | None) -> None:
        self.rules = rules(leaks) if leaks is not None else Rules()
        leaks = leaks or LeaksProcessor()
        self.overrides = Overrides(self.rules, leaks)
        idle = leaks.idle_leak
        self.growth.configure(idle_after=round(idle.idle_after * 1e9), window=round(idle.window * 1e9))
        self.episodes.configure(round(leaks.max_duration * 1e9))

    def reconfigure(self, sources: Sources, leaks: LeaksProcessor | None, at: int) -> None:
        """Goes on with other sources and thresholds. What was learned and what is open stays."""
        self.sources = sources
        self._judge_by(leaks)
        self.attribution = Attribution(sources.clients, self.poolers)
        self.discovery.use(sources)
        self._destinations.use(self.attribution, sources.names)
        self._ownership = Ownership(sources.owners)
        given_up = self.namespaces.use(source=sources.source, destroy_events=sources.destroy_events)
        if not given_up:
            return
        for netns in given_up:
            self.connections.forget(netns)
        for server in self.servers:
            self.correlation.unbind(self.backends.of_server(server))
        self.episodes.hold(at)

    # --- which servers there are ---------------------------------------------------------------------------------

    @property
    def servers(self) -> dict[str, Server]:
        """By their identity, those that were found last."""
        return self.discovery.servers

    @property
    def sides(self) -> list[ClientSide]:
        """The namespaces of applications that are watched."""
        return self.discovery.sides

    def discover(self, now: Moment) -> None:
        """Finds the servers that run now, and watches their namespaces and ports."""
        for server in self.discovery.find_servers(now.at):
            self._forget(server.id)
        self._ownership.keep(self.servers.values())
        self.discovery.find_poolers(now.at)
        self.discovery.find_sides()
        self._destinations.served = self.discovery.served()
        self.connections.serve(self.discovery.listening())
        for netns in self.namespaces.watch(self.discovery.places(), now.at):
            self.connections.forget(netns)

    def _forget(self, server: str) -> None:
        self.backends.forget(server)
        self.correlation.forget(server)
        self.readings.forget(server)
        self.refusals.forget(server)
        self.growth.forget(server)
        self.episodes.subjects.pop(server, None)
        self._reporter.forget(server)

    # --- fast: what changed --------------------------------------------------------------------------------------

    def fast_tick(self) -> None:
        """Takes the sampler's changes in."""
        self.connections.apply(self.sources.sampler.changes())

    def title_tick(self, at: int) -> None:
        """Reads who the backends are and what they do, and binds them to their sockets."""
        for server in self.servers.values():
            self.backends.observe(server.id, self._look_at(server, at))
            backends = self.backends.of_server(server.id)
            if server.pid:
                self._ownership.read(server, backends, at)
            self.correlation.bind(server, backends, self.connections)

    def _look_at(self, server: Server, at: int) -> list[BackendSighting]:
        if server.pid:
            return self.sources.backends.read(server, at=at)
        reading = self.readings.of(server.id, at)
        return sightings(reading) if reading is not None else []

    # --- slow: what it means -------------------------------------------------------------------------------------

    def slow_tick(self, now: Moment) -> list[Sight]:
        """Looks at every server, and tells what has opened, grown worse or ended."""
        self.take_readings()
        for server in self.servers.values():
            if self.sources.databases and self.readings.of(server.id, now.at) is None:
                attach(self.backends.of_server(server.id), None)  # what a login told long ago is not true for ever
        self.join_poolers(now.at)
        self._read_logs(now.at)
        for netns in self.namespaces.read(now.at):
            self.connections.resync(netns, self.sources.sampler.open_connections(netns), now.at)
        for server in self.servers.values():
            overflows = self.namespaces.new_overflows(server.netns)
            if overflows is not None:
                self._overflows[server.id] = self._overflows.get(server.id, 0) + overflows
        while len(self._overflows) > REMEMBERED:
            del self._overflows[next(iter(self._overflows))]
        sessions = self.sights.sessions(self.servers.values(), now.at)
        self._closer.look(self.namespaces.watched(), sessions, now.at)
        sights = self._in_sight(now.at)
        poolers, clients = self.poolers.sights(now.at), self._destinations.sights(self.sides, now.at)
        findings = self.findings(sights, now, poolers, clients)
        findings = [self._reporter.redaction.finding(finding) for finding in findings]
        seen: dict[str, tuple[Server, Slots | None]] = {s.server.id: (s.server, None) for s in poolers}
        seen |= {s.server.id: (s.server, None) for s in clients}
        seen |= {s.server.id: (s.server, Slots(s.ledger.used, s.ledger.limits.ceiling)) for s in sights}
        self._reporter.tell(self.episodes.update(findings, seen, now))
        if self.sources.probe is not None:
            ask_suspects(self.sources.probe, sights, self.episodes.open, now.at)
        return sights

    def _in_sight(self, at: int) -> list[Sight]:
        """The servers of which nothing is older than a few scans."""
        return self.sights.fresh(self.servers.values(), at, self.sources.budget.patience)

    def findings(
        self,
        sights: Collection[Sight],
        now: Moment,
        poolers: Collection[PoolerSight] = (),
        clients: Collection[ClientSight] = (),
    ) -> list[Finding]:
        """What counts of all that the detectors say, with the processes behind it."""
        found = self.rules.examine(sights, poolers, clients)
        found = self.attribution.with_clients(found, sights, now.at)
        servers = {sight.server.id: sight.server for sight in sights}
        servers |= {sight.server.id: sight.server for sight in poolers}
        servers |= {sight.server.id: sight.server for sight in clients}
        return self.overrides.settle(found, servers, now.unix)

    def _read_logs(self, at: int) -> None:
        if self.sources.logs is None:
            return
        self.logs = self.sources.logs.read([server for server in self.servers.values() if server.pid])
        self.log_problems = self.sources.logs.problems()
        for server, counts in self.logs.items():
            self.refusals.note(server, SLOTS, sum(counts.by_class[name] for name in REFUSALS_OF_SLOTS), at)
            for limit, number in counts.by_name.items():
                self.refusals.note(server, limit, number, at)

    def join_poolers(self, at: int) -> None:
        """Takes in what the consoles have told, and finds who is behind the poolers."""
        for poller in self.sources.consoles:
            reading = poller.take()
            if reading is not None:
                self.poolers.take(reading, poller.holds)
        for server in self.servers.values():
            self.poolers.join(server, self.backends.of_server(server.id), at)
        lost = [b for server in self.servers.values() for b in self.backends.of_server(server.id) if closed_at(b)]
        if any(closed_at(backend) > self.poolers.ends_at for backend in lost):
            self.discovery.read_pooler_ends(at)
        self.poolers.judge(lost, at)

    def take_readings(self) -> None:
        """Takes in what the logins have told since the last time."""
        for poller in self.sources.databases:
            reading = poller.take()
            if reading is None:
                continue
            server = self.readings.take(reading, poller.holds, self.servers.values())
            if server is None:
                continue
            backends = self.backends.of_server(server.id)
            attach(backends, reading)
            self.readings.reconcile(server, backends, reading)

    # --- export --------------------------------------------------------------------------------------------------

    def export_tick(self, now: Moment) -> None:
        """Hands the metrics of every server in sight and of the agent to the exporters."""
        sights = self._in_sight(now.at)
        self.untold = {sight.server.id: untold(sight, self.rules) for sight in sights}
        self._reporter.report(
            servers=[self._server_reading(sight) for sight in sights],
            poolers=[self.sights.of_pooler(pooler, now.at) for pooler in self.poolers.poolers.values()],
            destinations=self.destinations()[:NAMED],
            leaks=leak_readings(self.episodes, self.overrides.silenced, self.servers),
            agent=self._agent_reading(now),
            now=now,
        )

    def destinations(self) -> list[tuple[Destination, list[Connection]]]:
        """The databases that connections of this host lead to, where the client's side is watched."""
        return self._destinations.of(self.sides)

    def _server_reading(self, sight: Sight) -> ServerReading:
        server = sight.server
        return ServerReading(
            sight=sight,
            opened=self.connections.opened.of(server.id),
            closed=self.connections.closed.of(server.id),
            overflows=self._overflows.get(server.id),
            disagreements=self.correlation.disagreements[server.id],
            clients=self._reporter.names(server.id),
            log=self.logs.get(server.id),
            untold=self.untold[server.id],
        )

    def _agent_reading(self, now: Moment) -> AgentReading:
        scans, rates = self.namespaces.take_rates(now.at)
        sources = {netns: source_name(stats.source) for netns, stats in scans.items()}
        budget = self.sources.budget
        return AgentReading(scans, rates, len(self.servers), sources, budget.interval, budget.reason)

    def pollers(self) -> list[AnswerSource[Any]]:
        """Everybody who is asked in a thread of its own."""
        return [*self.sources.databases, *self.sources.consoles, *([self.sources.names] if self.sources.names else [])]

    def resume(self, episodes: Iterable[Episode], at: int) -> None:
        """Goes on with what an earlier run of the agent left open."""
        episodes = list(episodes)
        self.earlier.leave(episodes, at)
        self.episodes.restore(episodes)

    def stop(self, now: Moment, *, ends: bool = True) -> None:
        """Sends the last metrics. What is open ends, unless another run will go on with it."""
        if self.sources.probe is not None:
            self.sources.probe.close()
        if ends:
            self._reporter.tell(self.episodes.end_all("agent_stopped", now))
        self.export_tick(now)
