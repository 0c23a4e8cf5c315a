"""What a busy host tells: servers, a pooler, episodes and the agent itself, as the batches that exporters are given."""

import itertools
from collections import Counter
from dataclasses import replace

from build import START, backend, connection, database_reading, server, settled, sight, tcp, title
from pgsonar.config.schema import Telemetry
from pgsonar.episodes.tracker import EpisodeTracker
from pgsonar.model import (
    SECOND,
    Endpoint,
    LogCounts,
    Moment,
    Pool,
    Pooler,
    PoolerEnds,
    PoolerReading,
    Pooling,
    ScanStats,
    Session,
    SessionCounts,
    Severity,
    Slots,
    TcpState,
)
from pgsonar.pipeline.reporting import Reporter
from pgsonar.signals.agent_metrics import AgentReading
from pgsonar.signals.identity import Identity
from pgsonar.signals.leak_metrics import LeakReading
from pgsonar.signals.server_metrics import REFUSALS, ServerReading
from pgsonar.tracking.earlier import EarlierRun

ACTIVITIES = (
    "idle",
    "idle in transaction",
    "idle in transaction (aborted)",
    "SELECT",
    "authentication",
    "startup",
    None,
)


class Taking:
    """An outlet that keeps what it is given."""

    def __init__(self):
        self.batches = []

    def export(self, batch):
        self.batches.append(batch)


class Host:
    """Tells of itself every ten seconds, until now. Two of its servers are told apart by their id alone."""

    def __init__(self, now, *, exports=3, clients=30, kinds=("auth_stuck",)):
        self._clients = clients
        self._kinds = kinds
        self._first = now - exports * 10 * SECOND
        self._servers = [server(), server(id="s2", netns=1), server(id="s3", address="db-3")]
        outlet = Taking()
        self._reporter = Reporter(
            {signal: [outlet] for signal in ("metrics", "logs", "traces")},
            Identity(host="h1", host_id="m1", version="1", extra={}),
            self._first - 3600 * SECOND,
            Telemetry(),
        )
        for number in range(1, exports + 1):
            self._report(number, Moment(START + number * 10 * SECOND, self._first + number * 10 * SECOND))
        self._tell(now)
        self.batches = outlet.batches

    def _report(self, number, moment):
        stats = ScanStats(*(number * n for n in range(1, len(ScanStats._fields) + 1)))
        self._reporter.report(
            servers=[self._server(of, number) for of in self._servers],
            poolers=[self._pooler(number)],
            destinations=[],
            leaks=[self._leaks(of, number) for of in self._servers],
            agent=AgentReading(
                {7: stats, 8: stats}, {7: 9.5, 8: 9.0}, 3, {7: "procfs", 8: "procfs"}, 0.1, "configured"
            ),
            now=moment,
        )

    def _server(self, of, number):
        each = range(self._clients)
        backends = [
            backend(title(activity, user=f"u{n}", database=f"d{n}", host=f"10.0.{n}.7"), pid=n)
            for n in each
            for activity in ACTIVITIES
        ]
        states = [state for state in TcpState if state is not TcpState.LISTEN]
        sockets = [connection(tcp(n + 1, state)) for n, state in enumerate(states)]
        login = database_reading(
            *(Session(n, "client backend", 0, user=f"u{n}", database=f"d{n}") for n in each),
            role_limits={f"u{n}": 9 for n in each},
            database_limits={f"d{n}": 9 for n in each},
            counts={f"d{n}": SessionCounts(100 * number, number, number, number) for n in each},
        )
        counted = Counter(dict.fromkeys((*REFUSALS, "authentication_timeout", "lost_client"), number))
        return ServerReading(
            sight=sight(
                backends, [*sockets, connection(tcp(0, TcpState.LISTEN, tx=244))], at=START, of=of, reading=login
            ),
            opened={f"10.0.{n}.7": 50 * number + n for n in each},
            closed={f"10.0.{n}.7": 40 * number for n in each},
            overflows=number,
            disagreements=0,
            clients=self._reporter.names(of.id),
            untold=dict.fromkeys(self._kinds, "why"),
            log=LogCounts(counted, {}, number),
        )

    def _pooler(self, number):
        each = range(self._clients)
        told = PoolerReading(
            at=0,
            endpoint=Endpoint("h", 6432),
            version="1.23",
            pools=tuple(Pool(f"d{n}", f"u{n}", 9, 3, 4, 2, 1, 7.5, "transaction", 5) for n in each),
            clients=(),
            servers=(),
            wait_time={f"d{n}": 1_000_000 * number for n in each},
            waits={f"d{n}": 4 * number for n in each},
        )
        states = [state for state in TcpState if state is not TcpState.LISTEN]
        ends = PoolerEnds({Endpoint("10.0.0.9", n): state for n, state in enumerate(states)}, frozenset(), 2)
        clients = [connection(tcp(n + 1, state)) for n, state in enumerate(states)]
        return Pooling(Pooler("p", (7,), 1, 6432, "10.0.0.9"), clients, ends, told)

    def _leaks(self, of, number):
        every = {(kind, severity): number for kind in self._kinds for severity in Severity}
        return LeakReading(of, every, every, dict.fromkeys(self._kinds, number), dict.fromkeys(self._kinds, number))

    def _tell(self, now):
        """An episode from its opening to its end; its oldest member ran a very long statement."""
        ids = itertools.count(1)
        bound = connection(tcp(40000))
        looked = sight([backend(title("idle in transaction"), bound=bound)], [bound], at=START + 400 * SECOND)
        slots = Slots(looked.ledger.used, looked.server.limits.ceiling)
        tracker = EpisodeTracker(lambda bits: next(ids), EarlierRun())
        at = Moment(START + 400 * SECOND, now)
        opened = tracker.update(settled(looked), {"s1": (looked.server, slots)}, at)
        for event in opened:
            oldest = event.episode.findings[0]
            event.episode.findings[0] = replace_evidence(oldest, "select " + "x, " * 3000)
        self._reporter.tell(opened)
        self._reporter.tell([event._replace(name="resolved", episode=ended(event.episode, now)) for event in opened])


def replace_evidence(finding, statement):
    """The finding with the text of a statement."""
    return replace(finding, evidence={**finding.evidence, "pgsonar.evidence.query": statement})


def ended(episode, now):
    """The episode after its end."""
    return replace(episode, ended_at=START + 401 * SECOND, ended_unix=now, end_reason="resolved")
