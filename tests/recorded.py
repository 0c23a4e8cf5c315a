"""A small world whose answers change, a pipeline that is recorded in it, and what is played of that."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec

from build import NETNS, START, server, tcp, title
from pgsonar.config.schema import Config, LeaksProcessor, Pipelines, SocketsReceiver, Telemetry
from pgsonar.model import (
    SECOND,
    BackendSighting,
    ChangeKind,
    ClientProcess,
    Details,
    Moment,
    PoolerEnds,
    ScanStats,
    TcpState,
)
from pgsonar.pipeline.budget import Budget
from pgsonar.pipeline.reporting import Reporter
from pgsonar.pipeline.world import Sources
from pgsonar.recording.hiding import Hiding
from pgsonar.recording.recorder import RecordedPipeline, Recorder, header_of
from pgsonar.signals.identity import Identity

WALL = 1_700_000_000 * SECOND
AFTER = LeaksProcessor()
LOGINS = ("postgresql", "pgbouncer", "serverlog")


def moment(seconds):
    at = round(seconds * SECOND)
    return Moment(START + at, WALL + at)


def config(**changes):
    known = {
        "sockets": SocketsReceiver(),
        "leaks": AFTER,
        "telemetry": Telemetry(),
        "pipelines": Pipelines(),
        **{name: {} for name in (*LOGINS, "exporters")},
    }
    left = {name: None for name in Config.__struct_fields__ if name not in {*known, "warnings"}}
    return Config(**(known | left | changes))


class World:
    """Answers, to be changed at will between ticks."""

    def __init__(self):
        self.servers = [server()]
        self.changes = []
        self.there = {}  # what a look at all connections finds, by number
        self.details = {}
        self.sightings = []
        self.overflows = 0
        self.clients = {}
        self.poolers = []
        self.ends = {}
        self.databases = []  # readings to come
        self.consoles = []
        self.logs = {}
        self.stats = dict.fromkeys(ScanStats._fields, 0)
        self.inodes = {}

    def sources(self):
        def poller(readings):
            return SimpleNamespace(
                take=lambda: readings.pop(0) if readings else None, holds=50 * SECOND, problem=None, name="p"
            )

        def take():
            changes, self.changes = self.changes, []
            for number, at, netns, kind, _, socket, _ in changes:
                since = self.there.pop(number, (0, at))[1]
                if kind != ChangeKind.CLOSED:
                    self.there[number] = (number, since, netns, ChangeKind.OPENED, 0, socket, None)
            return iter(changes)

        return Sources(
            sampler=SimpleNamespace(
                watch=lambda *_, **__: None,
                set_ports=lambda *_, **__: None,
                unwatch=lambda netns: None,
                changes=take,
                open_connections=lambda netns: iter(list(self.there.values())),
                details=lambda netns: self.details,
                stats=lambda netns: ScanStats(**self.stats),
            ),
            finder=SimpleNamespace(find=lambda: list(self.servers)),
            backends=SimpleNamespace(
                read=lambda of, at: [s._replace(at=at) for s in self.sightings], forget=lambda of: None
            ),
            owners=SimpleNamespace(inodes=lambda pid, postmaster: self.inodes.get(pid), forget=lambda pid: None),
            clients=SimpleNamespace(
                find=lambda hops, in_place=False: {hop: self.clients.get(hop.remote) for hop in hops},
                find_local=dict.fromkeys,
                astray=set(),
            ),
            poolers=SimpleNamespace(
                find=lambda: list(self.poolers), ends=lambda pooler, ports: self.ends.get(pooler.id, PoolerEnds({}))
            ),
            listen_overflows=lambda directory: self.overflows,
            budget=Budget(0.02, 0.1),
            databases=(poller(self.databases),),
            consoles=(poller(self.consoles),),
            logs=SimpleNamespace(read=lambda servers: self.logs, problems=list),
        )


class Memory:
    """A sink that keeps encoded entries; `wants` says that another key frame is due."""

    def __init__(self):
        self.entries = []
        self.wants = False

    def wants_key_frame(self, _):
        return self.wants

    def begin(self, header, key_frame, _):
        self.header = header
        self.entries.append(key_frame)
        self.wants = False

    def write(self, encoded, _):
        self.entries += encoded


class Outlet:
    def __init__(self):
        self.rows = []

    def export(self, batch):
        self.rows += [row for _, rows in batch.resources for row in rows]


class Recorded:
    """A pipeline in a world, with a recorder beside it; `told` are its events."""

    def __init__(self, sink, *, telemetry=None, leaks=AFTER):
        self.world = World()
        self.outlet = Outlet()
        telemetry = telemetry or Telemetry()
        identity = Identity(host="h", host_id=None, version="1", extra={})
        self.reporter = Reporter({"logs": [self.outlet]}, identity, moment(0).unix, telemetry)
        settings = config(telemetry=telemetry, **{name: {name: None} for name in LOGINS})
        hiding = Hiding(telemetry.redaction, self.reporter.redaction)
        header = msgspec.structs.replace(header_of(settings, hiding, "h", moment(0).unix), id="fixed")
        self.recorder = Recorder(sink, hiding, header)
        self.pipeline = RecordedPipeline(self.world.sources(), leaks, self.reporter, self.recorder)

    @property
    def told(self):
        return self.outlet.rows

    def step(self, seconds, *, discover=False):
        """One round of ticks."""
        self.world.stats["last_at"] = moment(seconds).at
        if discover:
            self.pipeline.discover(moment(seconds))
        self.pipeline.fast_tick()
        self.pipeline.title_tick(moment(seconds).at)
        self.pipeline.slow_tick(moment(seconds))

    def run(self, begin, end, every=0.5):
        seconds = begin
        while seconds < end:
            self.step(seconds, discover=seconds == begin or not seconds % 2)
            seconds += every


def leave_open(world, *, pid=4711, port=40000, user="app", address="10.0.0.7"):
    """A transaction that stands, and its connection."""
    world.changes.append((port, START, NETNS, ChangeKind.OPENED, 0, tcp(port, address=address), None))
    of = title("idle in transaction", port=port, user=user, host=address)
    world.sightings.append(BackendSighting(pid, START, of, 10, 0, pid))
    world.details = {port: told_details(START)}
    world.clients[tcp(port, address=address).remote] = ClientProcess(77, 1, "python3", user="web")


def orphan(world, *, pid=4712, port=40001, seconds=1.0):
    """A query whose client has gone."""
    at = START + round(seconds * SECOND)
    world.changes += [
        (port, at, NETNS, ChangeKind.OPENED, 0, tcp(port), None),
        (port, at, NETNS, ChangeKind.STATE, 1, tcp(port, TcpState.CLOSE_WAIT, rx=1), None),
    ]
    world.sightings.append(BackendSighting(pid, START, title("SELECT", port=port), None, 0, pid))


def told_details(at):
    return Details(at, 0, 100, 100, 0, 0, 0, 5, 5, 5, 0, 0, 0)
