"""From tables to a backend: points built, encoded, queued and sent, beside the SDK's own way with the same points.

CPU is that of all threads of this process; the receiver is another. PGSONAR_OUTAGE_MINUTES (10) says how long a backend
is away while the agent's memory is watched.
"""

import itertools
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import time
import zlib
from collections import deque

import pytest
from agents import MB, Agent, database, resident
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from pairs import compare, cpu_of
from punctuality import lateness
from worlds import say, write_rows

from pgsonar.config.schema import OtlpExporter, SendingQueue
from pgsonar.demo.receiver import Receiver
from pgsonar.exporters import Outbox, build, form_of, way_of
from pgsonar.exporters.durable import QueueFile
from pgsonar.exporters.encoding import Encoded
from pgsonar.exporters.queue import Queue
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, MetricRow, Point
from pgsonar.sources.sockets import Sampler

METRICS = 20
HERE = Resource((("server.address", "db-1"), ("server.port", 5432), ("service.instance.id", "x" * 36)))
SINK = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def sink():
    """The endpoint of a receiver that takes everything and looks at nothing."""
    process = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.wait()
    process.stdout.close()


def table(points):
    """What there is to tell: series by their attributes, with a value that moves."""
    return [
        {"server.address": "db-1", "server.port": 5432, "pgsonar.client": f"app-{number}", "state": "idle"}
        for number in range(points // METRICS)
    ]


def batch_of(series, value, now):
    rows = [
        MetricRow(
            f"pgsonar.benchmark.{number}",
            "counter" if number % 2 else "updowncounter",
            "{connection}",
            "Something that is counted.",
            [Point(dict(attributes), value, 1, now) for attributes in series],
        )
        for number in range(METRICS)
    ]
    return Batch("metrics", [(HERE, rows)])


class Ours:
    """As the agent exports: one encoder, a queue on disk, a sender."""

    def __init__(self, endpoint, directory):
        config = OtlpExporter(endpoint=endpoint)
        self._file = QueueFile(directory)
        self._exporter = build("otlp_http", way_of("otlp_http", config), self._file.of("otlp_http"))
        self._outbox = Outbox({"metrics": [(self._exporter, form_of(config))]})
        self._sent = 0

    def export(self, series, value):
        self._outbox.export(batch_of(series, value, time.time_ns()))
        self._sent += METRICS * len(series)
        while self._exporter.stats.sent["metrics"] < self._sent:
            time.sleep(0.001)

    def close(self):
        self._outbox.close(5)
        assert self._exporter.close(5) == 0
        self._file.close()


class Theirs:
    """The SDK's instruments, reader and exporter."""

    def __init__(self, endpoint):
        exporter = OTLPMetricExporter(f"{endpoint}/v1/metrics", compression=Compression.Gzip)
        self._reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        self._provider = MeterProvider([self._reader])
        meter = self._provider.get_meter("pgsonar")
        self._series, self._value = [], 0
        for number in range(METRICS):
            make = meter.create_observable_counter if number % 2 else meter.create_observable_up_down_counter
            make(f"pgsonar.benchmark.{number}", [self._observe], "{connection}", "Something that is counted.")

    def _observe(self, _):
        return [Observation(self._value, attributes) for attributes in self._series]

    def export(self, series, value):
        self._series, self._value = series, value
        assert self._reader.force_flush()

    def close(self):
        self._provider.shutdown()


def process_cpu(work):
    begun = time.process_time_ns()
    work()
    return (time.process_time_ns() - begun) / 1e9


@pytest.mark.parametrize("points", [2_000, 20_000])
def test_an_export_beside_the_sdks(benchmark, goals, tmp_path, sink, points):
    say(f"{points} points, beside the SDK")
    series, values = table(points), itertools.count(1)
    ours, theirs = Ours(sink, tmp_path), Theirs(sink)
    left = lambda: process_cpu(lambda: ours.export(series, next(values)))  # noqa: E731
    right = lambda: process_cpu(lambda: theirs.export(series, next(values)))  # noqa: E731
    ratio = compare(left, right, goals.pairs(31 if points < 10_000 else 15))
    benchmark.pedantic(lambda: ours.export(series, next(values)), rounds=5)
    ours.close()
    theirs.close()
    goals.ratio(f"export of {points} points / the SDK's", ratio, 0.75, benchmark)


def test_punctuality_during_exports(goals, tmp_path, sink):
    """A hundred ticks a second while 20000 points after 20000 leave."""
    write_rows(tmp_path, 1)
    seconds = 3 if goals.short else 10
    say(f"lateness while 20000 points leave, {seconds} s")
    folder = tmp_path / "queue"
    folder.mkdir()
    exporting, series = Ours(sink, folder), table(20_000)

    def export(stop):
        for value in itertools.count(1):
            if stop.is_set():
                return
            exporting.export(series, value)

    with Sampler(0.01) as sampler:
        sampler.watch(7, str(tmp_path), [], source="procfs")
        ours, theirs = lateness(sampler, seconds, export)
    exporting.close()
    left, right = statistics.median(ours), statistics.median(theirs)
    note = f"median {left * 1e6:.0f} us, {right * 1e6:.0f} us; of {len(ours)} and {len(theirs)} ticks"
    goals.figure("lateness of a tick / of a Python thread, exporting", left / right, 1 / 20, note=note)


def test_the_queue_beside_bare_sqlite(benchmark, goals, tmp_path):
    """A request of 18 KB put and taken out again, beside the same statements on the same bytes."""
    source = random.Random(1)
    body = "".join(f"server.address db-1 pgsonar.client app-{source.randrange(10**6)} " for _ in range(300)).encode()
    file = QueueFile(tmp_path)
    queue = Queue(SendingQueue(), file.of("otlp_http"))
    bare = sqlite3.connect(tmp_path / "bare.sqlite")
    for statement in ("pragma journal_mode = wal", "pragma synchronous = normal"):
        bare.execute(statement)
    bare.execute("create table request (number integer primary key, body blob)")
    numbers = itertools.count(1)

    def ours():
        queue.put(Encoded("metrics", body, 100))
        entry = queue.first("metrics")
        queue.read(entry)
        queue.remove(entry)

    def theirs():
        number, packed = next(numbers), zlib.compress(body, 1)
        with bare:
            bare.execute("insert into request values (?, ?)", (number, packed))
        zlib.decompress(bare.execute("select body from request where number = ?", (number,)).fetchone()[0])
        with bare:
            bare.execute("delete from request where number = ?", (number,))

    ratio = compare(lambda: cpu_of(ours, 50), lambda: cpu_of(theirs, 50), goals.pairs(31))
    benchmark.pedantic(ours, rounds=200)
    note = f"{len(body)} bytes; {1 / ratio.left:.0f} a second, {ratio.left * 1e6:.0f} us of CPU each"
    goals.ratio("a request through the queue / bare SQLite", ratio, 1.5, benchmark, note)
    bare.close()
    file.close()


def test_memory_over_an_outage(goals, tmp_path):
    """A backend that is away, and what the agent takes when it is back and everything has been sent."""
    minutes = float(os.environ.get("PGSONAR_OUTAGE_MINUTES", "0.25" if goals.short else "10"))
    say(f"a backend is away, {minutes:g} min")
    with database(0) as (port, receiver):
        agent = Agent(tmp_path, port, receiver, "100ms", "2%", state=tmp_path / "state")
        try:
            time.sleep(30 if not goals.short else 8)
            before = resident(agent.pid) / MB
            with Receiver() as away:
                nobody = away.port
            agent.point_to(nobody)
            during = deque(maxlen=30)
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                time.sleep(1)
                during.append(resident(agent.pid) / MB)
            with Receiver(port=nobody) as back:
                deadline = time.monotonic() + 120
                while agent.waiting() and time.monotonic() < deadline:
                    time.sleep(1)
                arrived = back.counts["requests"]
                time.sleep(5 if goals.short else 30)
                after = resident(agent.pid) / MB
        finally:
            agent.stop()
    note = f"{before:.1f} MB before, {max(during):.1f} during, {after:.1f} after; {arrived} requests had waited"
    goals.figure("memory after an outage, more than before", max(after - before, 0.0), 2.0, unit="MB", note=note)
    goals.figure("memory during an outage, more than before", max(max(during) - before, 0.0), 4.0, unit="MB")
