"""The stages together, on sources that misbehave on demand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from build import NETNS, PORT, START, database_reading, server, tcp, title
from pgsonar.config.schema import LeaksProcessor, Telemetry
from pgsonar.daemon.condition import blind, degraded, lacks
from pgsonar.errors import ScanError
from pgsonar.model import (
    SECOND,
    BackendSighting,
    ChangeKind,
    Limits,
    Moment,
    Pooler,
    PoolerEnds,
    ScanStats,
    Session,
    TcpState,
)
from pgsonar.pipeline.budget import Budget
from pgsonar.pipeline.pipeline import Pipeline
from pgsonar.pipeline.reporting import Reporter
from pgsonar.pipeline.world import Sources
from pgsonar.signals.identity import Identity
from pgsonar.sources.processes import Processes
from pgsonar.sources.serverlog import LogReader, ServerLogs

WALL = 1_700_000_000 * SECOND


def moment(seconds):
    at = round(seconds * SECOND)
    return Moment(START + at, WALL + at)


class World:
    """Sources that say what they are told to, and the batches that came out."""

    def __init__(self):
        self.servers = [server()]
        self.changes = []
        self.sightings = []
        self.stats = dict.fromkeys(ScanStats._fields, 0)
        self.present = None  # None: what the changes have told
        self.rows = {}
        self.details = {}
        self.watched = {}
        self.refuse = False
        self.batches = []
        self.overflows = 0
        self.clients = {}
        self.interval = 0.1

    def take_changes(self):
        taken, self.changes = self.changes, []
        for change in taken:
            self.rows[change[0]] = change
            if change[3] == ChangeKind.CLOSED:
                del self.rows[change[0]]
        return taken

    def watch(self, netns, directory, ports, **how):
        assert how == {
            "netns_file": directory.replace("/net", "/ns/net"),
            "source": "auto",
            "events": "auto",
            "remote_too": False,
        }
        if self.refuse:
            raise ScanError("cannot be opened", "try this")
        self.watched[netns] = (directory, set(ports))

    def pipeline(self):
        sampler = SimpleNamespace(
            watch=self.watch,
            set_ports=lambda netns, ports, remote_too: self.watched.update(
                {netns: (self.watched[netns][0], set(ports))}
            ),
            unwatch=self.watched.pop,
            changes=self.take_changes,
            stats=lambda netns: ScanStats(**self.stats),
            open_connections=lambda netns: self.rows.values() if self.present is None else self.present,
            details=lambda netns: self.details,
        )
        sources = Sources(
            sampler=sampler,
            finder=SimpleNamespace(find=lambda: self.servers),
            backends=SimpleNamespace(
                read=lambda of, at: [s._replace(at=at) for s in self.sightings], forget=lambda of: None
            ),
            owners=SimpleNamespace(inodes=lambda pid, postmaster: None, forget=lambda postmaster: None),
            clients=SimpleNamespace(
                find=lambda hops: {hop: self.clients.get(hop.remote) for hop in hops},
                find_local=dict.fromkeys,
                astray=set(),
            ),
            poolers=SimpleNamespace(find=list, ends=lambda pooler, ports: PoolerEnds({})),
            listen_overflows=lambda directory: self.overflows,
            budget=Budget(0.02, self.interval),
        )
        outlet = SimpleNamespace(export=self.batches.append)
        outlets = {key: [outlet] for key in ("metrics", "logs", "traces")}
        identity = Identity(host="h", host_id=None, version="1", extra={})
        return Pipeline(sources, LeaksProcessor(), Reporter(outlets, identity, moment(0).unix, Telemetry()))

    def scanned(self, seconds):
        self.stats["last_at"] = START + round(seconds * SECOND)

    def told(self, signal):
        return [row for batch in self.batches if batch.signal == signal for _, rows in batch.resources for row in rows]


@pytest.fixture
def world():
    return World()


def step(pipeline, world, seconds, *, scan=True):
    if scan:
        world.scanned(seconds)
    pipeline.fast_tick()
    pipeline.title_tick(moment(seconds).at)
    return pipeline.slow_tick(moment(seconds))


def orphan(world, pipeline):
    world.sightings = [BackendSighting(4711, START, title("SELECT"))]
    world.changes = [
        (1, START, NETNS, ChangeKind.OPENED, 0, tcp(40000), None),
        (1, START + SECOND, NETNS, ChangeKind.STATE, 1, tcp(40000, TcpState.CLOSE_WAIT, rx=1), None),
    ]
    pipeline.discover(moment(0))
    step(pipeline, world, 1)
    step(pipeline, world, 3)


def test_a_leak_passes_from_the_kernel_to_an_event_a_span_and_a_metric(world):
    pipeline = world.pipeline()
    orphan(world, pipeline)
    world.changes = [(1, START + 4 * SECOND, NETNS, ChangeKind.CLOSED, 8, tcp(40000, TcpState.CLOSE_WAIT, rx=1), None)]
    world.sightings = []
    step(pipeline, world, 4)
    step(pipeline, world, 5.5)
    pipeline.export_tick(moment(6))
    opened, resolved = world.told("logs")
    (span,) = world.told("traces")

    assert (opened.event_name, opened.attributes["postgresql.pid"]) == ("pgsonar.leak.opened", 4711)
    assert resolved.event_name == "pgsonar.leak.resolved"
    assert (span.start_unix, span.span_id) == (WALL + SECOND, opened.span_id)
    (count,) = [row for row in world.told("metrics") if row.name == "pgsonar.leak.count"]
    assert [(p.value, p.exemplars[0].trace_id) for p in count.points] == [(1, opened.trace_id)]


def test_all_servers_of_a_namespace_are_scanned_once(world):
    world.servers = [server(), server(id="s2", pid=200, port=5433), server(id="s3", pid=300, netns=7)]
    world.pipeline().discover(moment(0))

    assert world.watched == {NETNS: ("/proc/100/net", {PORT, 5433}), 7: ("/proc/300/net", {PORT})}


def test_ports_follow_the_servers_and_a_namespace_without_one_is_let_go(world):
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    world.servers = [server(port=5433)]
    pipeline.discover(moment(2))
    assert world.watched[NETNS][1] == {5433}

    world.servers = []
    pipeline.discover(moment(4))
    assert world.watched == {}


def test_a_namespace_that_cannot_be_read_is_said_once_and_in_health(world, caplog):
    world.refuse = True
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    pipeline.discover(moment(2))

    assert [r.getMessage() for r in caplog.records if "cannot scan" in r.getMessage()] == [
        "cannot scan the sockets of db-1:5432: cannot be opened (try this)"
    ]
    assert "cannot be read" in degraded(pipeline)[0]
    assert blind(pipeline, moment(9).at) == []


def test_what_is_missing_is_told_by_part_and_name_with_what_it_costs(world):
    world.servers = [server(limits=Limits(), missing=("pg_control: run with CAP_DAC_READ_SEARCH", "names"))]
    world.sightings = [BackendSighting(4711, START, title("SELECT"))]
    pipeline = world.pipeline()
    silent = SimpleNamespace(problem="receivers.postgresql/a: refused", take=lambda: None, holds=SECOND)
    logs = SimpleNamespace(read=lambda servers: {}, problems=lambda: ["the log x cannot be read"])
    probe = SimpleNamespace(problem="half_open.probe: run with CAP_SYS_PTRACE", settle=lambda at, silent: None)
    pipeline.sources = replace(pipeline.sources, databases=(silent,), logs=logs, probe=probe)
    world.stats |= {"source": 0, "refusal": 1, "events_refusal": 1}
    pipeline.discover(moment(0))
    step(pipeline, world, 1)
    told = lacks(pipeline)

    assert sorted({(lack.part, lack.name) for lack in told}) == [
        ("capability", "CAP_DAC_READ_SEARCH"),
        ("capability", "CAP_SYS_ADMIN"),
        ("capability", "CAP_SYS_PTRACE"),
        ("log", "receivers.serverlog"),
        ("login", "receivers.postgresql/a"),
        ("source", "destroy_events"),
        ("source", "limit"),
        ("source", "server"),
    ]
    assert [lack.text for lack in told if lack.part == "login"] == [
        "receivers.postgresql/a: refused; what only it tells is missing"
    ]
    assert [lack.subject for lack in told if lack.name == "CAP_SYS_PTRACE"] == ["", "db-1:5432"]
    assert [lack.text for lack in told] == degraded(pipeline)[: len(told)], "health says the same"


def test_refusals_of_days_ago_open_nothing_when_their_server_comes_back(world, tmp_path):
    log = tmp_path / "server.log"
    refused = "2026-01-02 03:04:05 UTC [77] app@shop FATAL:  sorry, too many clients already\n"
    log.write_text("2026-01-02 03:04:05 UTC [1] LOG:  database system is ready to accept connections\n")
    pipeline = world.pipeline()
    pipeline.sources = replace(pipeline.sources, logs=ServerLogs([LogReader([str(log)])], Processes()))

    def look(seconds, *, refuses=False, there=True):
        world.servers = [server()] if there else []
        with log.open("a") as file:
            file.write(refused if refuses else "")
        pipeline.discover(moment(seconds))
        step(pipeline, world, seconds)
        return [(row.event_name.rpartition(".")[2], row.attributes["pgsonar.leak.kind"]) for row in world.told("logs")]

    days = 3 * 86400
    assert look(1) == []
    assert look(2, refuses=True) == [("opened", "pool_exhausted")]
    assert look(100)[1:] == [("resolved", "pool_exhausted")]
    assert len(look(days)) == 2
    assert len(look(days + 1, there=False)) == 2
    assert len(look(days + 2)) == 2, "it is as old as before"
    assert look(days + 3, refuses=True)[2:] == [("opened", "pool_exhausted")]


def test_while_scans_fail_nothing_is_judged_and_open_leaks_are_lost_from_sight_not_resolved(world):
    pipeline = world.pipeline()
    orphan(world, pipeline)
    world.changes = []
    assert step(pipeline, world, 7, scan=False) == []
    step(pipeline, world, 9, scan=False)

    assert [row.attributes.get("pgsonar.leak.end_reason") for row in world.told("logs")] == [None, "lost_from_sight"]
    assert "no complete scan" in blind(pipeline, moment(9).at)[0]


def test_lost_changes_are_made_good_from_a_snapshot(world):
    pipeline = world.pipeline()
    world.changes = [(n, START, NETNS, ChangeKind.OPENED, 0, tcp(n), None) for n in (1, 2)]
    pipeline.discover(moment(0))
    step(pipeline, world, 1)
    world.stats["lost_changes"] = 5
    world.present = [
        (2, START, NETNS, ChangeKind.OPENED, 0, tcp(2), None),
        (3, START, NETNS, ChangeKind.OPENED, 0, tcp(3), None),
    ]
    step(pipeline, world, 2)

    assert set(pipeline.connections.connections) == {2, 3}


def test_an_unknown_limit_is_said_once_and_names_the_key_and_the_privilege(world, caplog):
    world.servers = [server(limits=Limits())]
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    pipeline.discover(moment(2))
    said = [r.getMessage() for r in caplog.records if "limit" in r.getMessage()]

    assert len(said) == 1
    assert "receivers.sockets.targets[].max_connections" in said[0]
    assert "postgres user" in said[0]
    step(pipeline, world, 2)
    pipeline.export_tick(moment(2))
    assert [reason for reason in degraded(pipeline) if "pool_exhausted cannot be told: the limit is unknown" in reason]


def test_overflows_count_from_the_first_look_and_stand_for_a_while(world):
    world.overflows = 100
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    step(pipeline, world, 1)
    world.overflows = 103
    (now,) = step(pipeline, world, 2)
    (later,) = step(pipeline, world, 13)
    pipeline.export_tick(moment(13))
    (row,) = [row for row in world.told("metrics") if row.name == "pgsonar.listener.overflow"]

    assert (now.overflowing, later.overflowing) == (True, False)
    assert row.points[0].value == 3


def test_a_server_keeps_its_counts_when_what_the_kernel_counts_begins_anew(world):
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    world.overflows = 100
    step(pipeline, world, 1)
    world.overflows = 103
    step(pipeline, world, 2)
    world.servers = [server(netns=NETNS + 1, pid=200, started=START)]  # its container has started again
    pipeline.discover(moment(3))
    world.overflows = 1
    step(pipeline, world, 3)
    world.overflows = 2
    step(pipeline, world, 4)
    pipeline.export_tick(moment(4))
    (row,) = [row for row in world.told("metrics") if row.name == "pgsonar.listener.overflow"]

    assert row.points[0].value == 4


def test_the_blind_window_is_the_longest_of_an_export_interval(world):
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    for seconds, gap in ((1, 5), (2, 9), (3, 4)):
        world.stats["max_gap"] = gap * SECOND
        step(pipeline, world, seconds)
    pipeline.export_tick(moment(3))
    (row,) = [row for row in world.told("metrics") if row.name == "pgsonar.scan.blind_window"]

    assert row.points[0].value == 9


def test_where_looking_into_processes_is_refused_it_is_not_tried_again(world):
    asked = []
    pipeline = world.pipeline()
    pipeline.sources.owners.inodes = lambda pid, postmaster: asked.append(pid)
    world.sightings = [BackendSighting(pid, START, title(port=pid)) for pid in (1, 2, 3)]
    pipeline.discover(moment(0))
    step(pipeline, world, 1)

    assert asked == [1]


def test_scans_that_are_meant_to_be_rare_are_not_blindness(world):
    world.interval = 5.0
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    step(pipeline, world, 1)

    assert len(step(pipeline, world, 14, scan=False)) == 1
    assert step(pipeline, world, 16.5, scan=False) == []


def test_what_a_login_told_long_ago_is_not_said_of_a_session_any_more(world):
    told = [database_reading(Session(7, "client backend", START, application="billing"))]
    poller = SimpleNamespace(take=lambda: told.pop() if told else None, holds=8 * SECOND, problem=None)
    world.sightings = [BackendSighting(7, START, title("idle"))]
    pipeline = world.pipeline()
    pipeline.sources = replace(pipeline.sources, databases=(poller,))
    pipeline.discover(moment(0))
    pipeline.title_tick(moment(0).at)
    world.scanned(1)
    (sight,) = pipeline.slow_tick(moment(1))
    assert sight.backends[0].session.application == "billing"
    assert sight.reading is not None

    world.scanned(20)
    (sight,) = pipeline.slow_tick(moment(20))
    assert sight.backends[0].session is None
    assert sight.reading is None


def test_what_has_nothing_to_tell_is_not_sent(world):
    idle = Pooler("p", (7,), NETNS, 6432, "10.0.0.9")
    pipeline = world.pipeline()
    pipeline.discover(moment(0))
    pipeline.poolers.poolers = {"p": idle}
    pipeline.export_tick(moment(1))

    batches = [batch for batch in world.batches if batch.signal == "metrics"]
    assert batches
    assert all(rows for batch in batches for _, rows in batch.resources)
