"""The stages wired: changes and titles in, episodes and metrics out.

The rule: the flow goes one way, and this is the only place that knows every stage. Ticks are called by the service;
they share no state with other threads but the sampler's ring and the exporters' queues.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from pgsonar.attribution import Attribution
from pgsonar.backends import BackendTable
from pgsonar.causes import suspects
from pgsonar.client_side import NAMED, by_destination, outgoing
from pgsonar.closer import CloserLook, Sessions
from pgsonar.config.schema import LeaksProcessor
from pgsonar.connections import ConnectionTable
from pgsonar.correlation import Correlation, owners
from pgsonar.detectors import Rules, rules
from pgsonar.detectors.evidence import who
from pgsonar.episodes import EpisodeTracker, leak_readings
from pgsonar.growth import IdleGrowth
from pgsonar.ledger import slot_ledger
from pgsonar.model import (
    SECOND,
    Backend,
    BackendSighting,
    ClientSide,
    ClientSight,
    Connection,
    Destination,
    Episode,
    Finding,
    LogCounts,
    Moment,
    Pooler,
    PoolerSight,
    Pooling,
    Server,
    Sight,
    Slots,
    TcpState,
)
from pgsonar.namespaces import Namespaces, Place
from pgsonar.overrides import Overrides
from pgsonar.poolers import PoolerTable, closed_at, is_on, is_poolers
from pgsonar.readings import Readings, attach, improved, sightings
from pgsonar.refusals import SLOTS, Refusals
from pgsonar.reporting import Reporter
from pgsonar.signals.agent_metrics import AgentReading
from pgsonar.signals.server_metrics import ServerReading
from pgsonar.sources.serverlog import REFUSALS_OF_SLOTS
from pgsonar.sources.sockets import source_name
from pgsonar.verdicts import untold
from pgsonar.world import AnswerSource, Sources

log = logging.getLogger("pgsonar")

LIMIT_HINT = (
    "set receivers.sockets.targets[].max_connections, or run as the postgres user so that pg_control is readable"
)
POOLER_ENDS = 5 * SECOND  # between two looks at the connections of poolers to databases


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
        self.servers: dict[str, Server] = {}
        self.connections = ConnectionTable(reporter.places)
        self.backends = BackendTable()
        self.correlation = Correlation()
        self.readings = Readings()
        self.poolers = PoolerTable()
        self.logs: dict[str, LogCounts] = {}
        self.log_problems: list[str] = []
        self.refusals = Refusals()
        self.attribution = Attribution(sources.clients, self.poolers)
        self.sides: list[ClientSide] = []
        self._names: dict[str, str] = {}
        self.rules = rules(leaks) if leaks is not None else Rules()
        leaks = leaks or LeaksProcessor()
        self.overrides = Overrides(self.rules, leaks)
        self.growth = IdleGrowth(
            who, idle_after=round(leaks.idle_leak.idle_after * 1e9), window=round(leaks.idle_leak.window * 1e9)
        )
        self.episodes = EpisodeTracker(new_id, round(leaks.max_duration * 1e9))
        self._closer = CloserLook(sources.sampler, self.connections)
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
        self._refused: set[int] = set()  # postmasters whose children may not be looked into
        self._verified: dict[str, tuple[int, int]] = {}  # by server: when, and whose turn it was
        self._warned: set[tuple[str, str]] = set()

    # --- which servers there are ---------------------------------------------------------------------------------

    def discover(self, now: Moment) -> None:
        """Finds the servers that run now, and watches their namespaces and ports."""
        here = self.sources.finder.find() if self.sources.sees_servers else []
        self.readings.settle(here)
        found = {server.id: self._with_login(server, now.at) for server in here}
        found |= {server.id: server for server in self.readings.remote(now.at)}
        for known in self.servers.values():
            now_there = found.get(known.id)
            if now_there is None or now_there.pid != known.pid:
                self.sources.backends.forget(known)
                self.sources.owners.forget(known.pid)
            if now_there is None:
                log.info("server %s is gone", known.label)
                self.backends.forget(known.id)
                self.correlation.forget(known.id)
                self.readings.forget(known.id)
                self.refusals.forget(known.id)
                self.growth.forget(known.id)
                self.episodes.subjects.pop(known.id, None)
                self._reporter.forget(known.id)
                self._verified.pop(known.id, None)
        for server in found.values():
            if server.id not in self.servers:
                _announce(server)
            if server.limits.ceiling is None:
                self._warn_once(
                    server, "limit", f"slots of {server.label} are not judged: its limit is unknown", LIMIT_HINT
                )
        self.servers = found
        self._discover_poolers(now.at)
        self._refused &= {server.pid for server in found.values()}
        places: list[Place] = [s for s in found.values() if s.netns]
        places += self.poolers.poolers.values()
        self.sides = self.sources.applications.find() if self.sources.applications is not None else []
        self.connections.served = {
            side.netns: {place.port for place in places if place.netns == side.netns and place.port}
            for side in self.sides
        }
        places += self.sides
        for netns in self.namespaces.watch(places, now.at):
            self.connections.forget(netns)

    def _discover_poolers(self, at: int) -> None:
        if not self.sources.sees_servers:
            return
        table = self.poolers
        found = {pooler.id: pooler for pooler in self.sources.poolers.find()}
        for key, pooler in found.items():
            if key not in table.poolers:
                log.info("found PgBouncer at %s, pid %s", pooler.label, ", ".join(map(str, pooler.pids)))
        table.poolers = found
        if at - table.ends_at >= POOLER_ENDS or table.ends.keys() != found.keys():
            self._read_pooler_ends(at)

    def _read_pooler_ends(self, at: int) -> None:
        ports = sorted({server.port for server in self.servers.values() if server.port is not None})
        poolers = self.poolers.poolers.items()
        self.poolers.ends_at = at
        self.poolers.ends = {key: self.sources.poolers.ends(pooler, ports) for key, pooler in poolers}

    def _with_login(self, server: Server, at: int) -> Server:
        reading = self.readings.of(server.id, at)
        return server if reading is None else improved(server, reading)

    def _warn_once(self, server: Server, what: str, message: str, hint: str) -> None:
        if (server.id, what) not in self._warned:
            self._warned.add((server.id, what))
            log.warning("%s (%s)", message, hint)

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
                for backend in backends:
                    if backend.inodes is None and backend.kind_may_have_socket:
                        self._read_inodes(server, backend)
                self._verify_one(server, backends, at)
            self.correlation.bind(server, backends, self.connections)

    def _look_at(self, server: Server, at: int) -> list[BackendSighting]:
        if server.pid:
            return self.sources.backends.read(server, at=at)
        reading = self.readings.of(server.id, at)
        return sightings(reading) if reading is not None else []

    def _read_inodes(self, server: Server, backend: Backend) -> None:
        if server.pid in self._refused:
            return
        inodes = self.sources.owners.inodes(backend.pid, postmaster=server.pid)
        if inodes is None:
            self._refused.add(server.pid)
            return
        backend.inodes = inodes

    def _verify_one(self, server: Server, backends: list[Backend], at: int) -> None:
        """Reads the sockets of one backend a second again, each in its turn: what was learned is not taken on trust."""
        last, turn = self._verified.get(server.id, (0, 0))
        if not backends or at - last < SECOND:
            return
        self._verified[server.id] = at, turn + 1
        backend = backends[turn % len(backends)]
        if backend.inodes is not None:
            self._read_inodes(server, backend)

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
        self._closer.look(self.namespaces.watched(), self._sessions(now.at), now.at)
        sights = [self.sight(server, now.at) for server in self._in_sight(now.at)]
        poolers, clients = self.poolers.sights(now.at), self._client_sights(now.at)
        findings = self.findings(sights, now, poolers, clients)
        findings = [self._reporter.redaction.finding(finding) for finding in findings]
        seen: dict[str, tuple[Server, Slots | None]] = {sight.server.id: (sight.server, None) for sight in poolers}
        seen |= {sight.server.id: (sight.server, None) for sight in clients}
        seen |= {
            sight.server.id: (sight.server, Slots(sight.ledger.used, sight.ledger.limits.ceiling)) for sight in sights
        }
        self._reporter.tell(self.episodes.update(findings, seen, now))
        self._probe(sights, now.at)
        return sights

    def _probe(self, sights: Iterable[Sight], at: int) -> None:
        """Asks the clients of idle sessions that are suspected already whether they are still there."""
        if self.sources.probe is None:
            return
        for sight in sights:
            for backend in suspects(sight, self.episodes.open):
                self.sources.probe.ask(backend.pid, backend.connection.socket.inode if backend.connection else 0, at)
        there = (b for sight in sights for b in sight.backends if b.connection is not None)
        self.sources.probe.settle(at, {b.pid for b in there if b.connection and b.connection.silent_since is not None})

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

    def _sessions(self, at: int) -> list[Sessions]:
        """Every server's backends, and when its login has told of them last."""
        sessions = []
        for server in self.servers.values():
            reading = self.readings.of(server.id, at)
            told_at = reading.at if reading is not None else None
            sessions.append(Sessions(server.netns, self.backends.of_server(server.id), told_at))
        return sessions

    def _client_sights(self, at: int) -> list[ClientSight]:
        """This host's connections to databases, with the processes of those that their server has closed."""
        sights = []
        for place, there in self.destinations():
            left = [c for c in there if c.socket.state == TcpState.CLOSE_WAIT]
            self.attribution.name_outgoing(left, at)
            server = Server(
                id=f"to {place.label}", pid=0, started=0, netns=0, port=place.port, address=place.address, what="client"
            )
            sights.append(ClientSight(server, there, at))
        return sights

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
            self._read_pooler_ends(at)
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

    def sight(self, server: Server, at: int) -> Sight:
        """All that is known of one server now."""
        backends = self.backends.of_server(server.id)
        reading = self.readings.of(server.id, at)
        poolers = [p for p in self.poolers.poolers.values() if p.port == server.port and p.netns == server.netns]
        on_port = [
            c
            for c in self.connections.of_namespace(server.netns)
            if c.socket.local.port == server.port and not (poolers and is_poolers(c, poolers))
        ]
        refused = self.refusals.lately(server.id)
        reconciliation = self.readings.reconciliations.get(server.id) if reading else None
        return Sight(
            server=server,
            backends=backends,
            connections=[c for c in on_port if c.socket.state != TcpState.LISTEN],
            listeners=[c for c in on_port if c.socket.state == TcpState.LISTEN],
            ledger=slot_ledger(server, backends, reconciliation),
            at=at,
            backend_of=owners(backends),
            overflowing=self.namespaces.is_overflowing(server.netns, at),
            reading=reading,
            refused=refused.pop(SLOTS, 0),
            refused_by=refused,
            growth=self.growth.observe(server.id, backends, at),
            thrash=tuple(self.connections.churn.thrashing(server.netns, server.port or 0, at)),
            unlisted=reconciliation.standing if reconciliation is not None else {},
        )

    def _in_sight(self, at: int) -> list[Server]:
        """Servers of which nothing is older than a few scans."""
        patience = self.sources.budget.patience
        return [
            s
            for s in self.servers.values()
            if s.port is None or not s.netns or self.namespaces.is_fresh(s.netns, at, patience)
        ]

    # --- export --------------------------------------------------------------------------------------------------

    def export_tick(self, now: Moment) -> None:
        """Hands the metrics of every server in sight and of the agent to the exporters."""
        sights = [self.sight(server, now.at) for server in self._in_sight(now.at)]
        self.untold = {sight.server.id: untold(sight, self.rules) for sight in sights}
        self._reporter.report(
            servers=[self._server_reading(sight) for sight in sights],
            poolers=[self.pooling(pooler, now.at) for pooler in self.poolers.poolers.values()],
            destinations=self.destinations()[:NAMED],
            leaks=leak_readings(self.episodes, self.overrides.silenced, self.servers),
            agent=self._agent_reading(now),
            now=now,
        )

    def destinations(self) -> list[tuple[Destination, list[Connection]]]:
        """The databases that connections of this host lead to, where the client's side is watched."""
        if self.sources.names is not None:
            self._names = self.sources.names.take() or self._names
        connections = [
            connection
            for side in self.sides
            for connection in outgoing(
                self.connections.of_namespace(side.netns), side.ports, self.connections.served[side.netns]
            )
        ]
        return by_destination(connections, self._names)

    def pooling(self, pooler: Pooler, at: int) -> Pooling:
        """All that is known of one pooler now."""
        clients = [c for c in self.connections.of_namespace(pooler.netns) if is_on(c, pooler)]
        return Pooling(pooler, clients, self.poolers.ends_of(pooler), self.poolers.of(pooler, at))

    def _server_reading(self, sight: Sight) -> ServerReading:
        server = sight.server
        port = server.port or 0
        return ServerReading(
            sight=sight,
            opened=self.connections.opened.of(server.netns, port),
            closed=self.connections.closed.of(server.netns, port),
            overflows=self.namespaces.overflows(server.netns),
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
        self.episodes.restore(episodes, at)
        for episode in episodes:
            server, members = episode.server.id, episode.members
            if episode.kind == "idle_leak":
                self.growth.restore(server, episode, at)
            for member in members:
                if episode.kind == "orphaned_backend_no_socket":
                    self.correlation.recall_lost(server, member.pid or 0, member.port or 0, member.onset)
                if episode.kind == "pooler_forgotten_server":
                    self.poolers.recall_forgotten(server, member.pid or 0, episode.identity)

    def stop(self, now: Moment, *, ends: bool = True) -> None:
        """Sends the last metrics. What is open ends, unless another run will go on with it."""
        if self.sources.probe is not None:
            self.sources.probe.close()
        if ends:
            self._reporter.tell(self.episodes.end_all("agent_stopped", now))
        self.export_tick(now)


def _announce(server: Server) -> None:
    limits = server.limits
    ceiling = (
        f"{limits.ceiling} slots for applications ({limits.source}{', a guess' if limits.guessed else ''})"
        if limits.ceiling is not None
        else "limit unknown"
    )
    log.info("found PostgreSQL %s at %s, %s, %s", server.version or "?", server.label, server.seen_by, ceiling)
