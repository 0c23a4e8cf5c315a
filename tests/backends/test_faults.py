"""Between an agent and a real Collector everything fails in turn; afterwards the account is exact.

Every event and span that the agent told has arrived behind the Collector once or more, every counter's last value is
the same there, and where a queue is too small what is missing is what the agent counted as dropped.
"""

import contextlib
import json
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

import needs
import told
from leaking import leak, server_with_users
from parts import needed
from pgsonar.demo.receiver import Receiver
from playing import Agent
from ports import free_port
from proxy import Fault, Proxy
from running import Collector, passing_to, until

pytestmark = pytest.mark.backends
QUICK = "timeout: 3s, retry_on_failure: {initial_interval: 200ms, max_interval: 1s}"
HOLD = 5.0  # seconds that each fault lasts at least: several exports of metrics
DISK = 8_000_000  # bytes of the disk that the agent keeps its state on, so that it can be filled
GROWTH = 8_000_000  # bytes that an agent's memory may be above where it was


@pytest.fixture(scope="module")
def server():
    with server_with_users() as running:
        yield running


def forwarding(folder, receiver):
    """A Collector that says yes only when the receiver behind it has: its own end loses nothing it has taken."""
    nothing_kept = {"sending_queue": {"enabled": False}, "retry_on_failure": {"enabled": False}}
    exporter = {"endpoint": receiver.endpoint, "compression": "none", **nothing_kept}
    return Collector(needed("collector"), folder, passing_to(otlp_http=exporter))


class Play:
    """An agent that sends through a proxy to the Collector, and leaks of one user after the other."""

    def __init__(self, folder, server, protocol, temporality, receiver):
        self.folder, self.server, self.protocol = folder, server, protocol
        self.temporality = f"temporality: {temporality}"
        with contextlib.ExitStack() as stack:
            self.disk = stack.enter_context(small_disk(folder))
            self.collector = stack.enter_context(forwarding(folder / "collector", receiver))
            port = self.collector.port if protocol == "otlp_http" else self.collector.grpc_port
            self.proxy = stack.enter_context(Proxy(port))
            self._running = stack.pop_all()
        self.users = iter(range(100))
        self.agents = []
        self.open = []

    def start_agent(self, *more):
        folder = self.folder / f"agent{len(self.agents)}"
        folder.mkdir()
        settings = (
            f"exporters.{self.protocol}={{endpoint: '{self.proxy.endpoint}', {QUICK}, {self.temporality}}}",
            f"extensions.file_storage.directory={self.disk / 'state'}",
            "service.extensions=[file_storage]",
            *more,
        )
        self.agents.append(Agent(folder, f"[{{name: db, port: {self.server.port}}}]", settings=settings))

    def one_more_leak(self):
        """Another leak is told to be open, and with it one that was open has ended."""
        agent = self.agents[-1]
        before, ended = len(agent.events(None, "opened")), len(agent.spans())
        self.open.append(leak(self.server, next(self.users)))
        agent.wait_for(lambda: len(agent.events(None, "opened")) > before, 15, "the leak was not opened")
        if len(self.open) > 2:
            self.open.pop(0).close()
            agent.wait_for(lambda: len(agent.spans()) > ended, 15, "the leak has not ended")

    def under(self, fault):
        """A leak is told while this fails, for so long that metrics wait as well."""
        self.proxy.become(fault)
        begun, before = time.monotonic(), self.proxy.hits[fault]
        self.one_more_leak()
        time.sleep(max(0, begun + HOLD - time.monotonic()))
        until(lambda: self.proxy.hits[fault] > before, f"nothing was sent under {fault}")

    def full_disk(self):
        """A leak is told while nothing can be sent and nothing written down."""
        ballast = self.disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        self.under(Fault.CUT)
        self.agents[-1].wait_for(
            lambda: "waits in memory" in self.agents[-1].log.read_text(), 5, "the disk is not full"
        )
        self.proxy.become(Fault.NONE)
        ballast.unlink()

    def reload(self):
        """The configuration is read anew while everything waits."""
        agent = self.agents[-1]
        self.under(Fault.CUT)
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for(lambda: "was read anew" in agent.log.read_text(), 5, "the configuration was not read anew")
        self.proxy.become(Fault.NONE)

    def restart_collector(self, how):
        self.collector.end(how)
        self.one_more_leak()
        self.collector.start()

    def restart_agent(self):
        """The agent is killed while it cannot send, and started again before it can."""
        self.under(Fault.CUT)
        self.agents[-1].process.send_signal(signal.SIGKILL)
        self.agents[-1].process.wait()
        self.start_agent()
        self.one_more_leak()
        self.proxy.become(Fault.NONE)

    def memory(self):
        """Bytes that the agent now has in memory."""
        status = Path(f"/proc/{self.agents[-1].process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def rows(self):
        return [row for agent in self.agents for row in told.of_file(agent.path)]

    def close(self):
        for client in self.open:
            client.close()
        for agent in self.agents:
            agent.process.kill()
            agent.process.wait()
        self._running.close()


@contextlib.contextmanager
def small_disk(folder):
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "pgsonar-test", str(disk)]
    needs.root("to mount a small disk")
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot be installed: the right to mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def play(server, tmp_path, request):
    with Receiver() as receiver:
        it = Play(tmp_path, server, *request.param, receiver)
        with contextlib.closing(it):
            yield it, receiver


def names_of(rows):
    """How often each kind of event was told of each episode, and its span."""
    counted = Counter()
    for row in rows:
        if row.signal == "metrics":
            continue
        fields = json.loads(row.fields)
        counted[fields.get("eventName", "span"), fields["traceId"]] += 1
    return counted


@pytest.mark.parametrize(
    "play", [("otlp_http", "cumulative"), ("otlp_grpc", "delta")], indirect=True, ids=["http", "grpc, delta"]
)
def test_everything_arrives_whatever_fails_between(play):
    it, receiver = play
    it.start_agent()
    faults = [Fault.CUT, Fault.SLOW, Fault.SILENT]
    if it.protocol == "otlp_http":
        faults += [Fault.BUSY, Fault.LIMIT]
    it.one_more_leak()
    at_first = it.memory()
    for fault in faults:
        it.under(fault)
        it.proxy.become(Fault.NONE)
        it.one_more_leak()
    it.full_disk()
    it.reload()
    it.one_more_leak()
    for how in (signal.SIGTERM, signal.SIGKILL):
        it.restart_collector(how)
        it.one_more_leak()
    grown = it.memory() - at_first
    it.restart_agent()
    while it.open:
        it.open.pop().close()
    number = next(it.users)
    until(lambda: len({n for n in names_of(it.rows()) if n[0] == "span"}) == number, "not all leaks have ended", 20)
    time.sleep(2.5)  # the counters' last values are told
    it.agents[-1].stop()

    told_by_it = set(it.rows())
    until(lambda: not any(missing(told_by_it, receiver)), lambda: f"did not arrive: {missing(told_by_it, receiver)}")
    arrived = told.of_receiver(receiver)

    assert without_metrics(arrived) == without_metrics(told_by_it)
    assert len(arrived) > len(set(arrived)), "no answer was lost, so nothing was sent twice"
    assert Counter(name for name, _ in names_of(told_by_it)) == {
        "pgsonar.leak.opened": number,
        "pgsonar.leak.resolved": number,
        "span": number,
    }
    totals, starts = told.totals(set(arrived))
    assert totals == pytest.approx(told.totals(told_by_it)[0])
    leaks = [series for series in totals if series.name == "pgsonar.leak.count"]
    assert sum(totals[series] for series in leaks) == number
    if it.temporality.endswith("cumulative"):
        assert set(arrived) == told_by_it
        assert len({start for series in leaks for start in starts[series]}) == 2, "the agent was started twice"
    assert grown < GROWTH


def without_metrics(rows):
    return {row for row in rows if row.signal != "metrics"}


def missing(told_by_it, receiver):
    """What has not arrived, of metrics the counters that do not add up yet: a file of them is always cumulative."""
    arrived = set(told.of_receiver(receiver))
    there, expected = told.totals(arrived)[0], told.totals(told_by_it)[0]
    almost = 1 - 1e-9  # fractions are added up in another order
    short = {series.name for series, value in expected.items() if there.get(series, 0) < value * almost}
    return Counter(row.signal for row in without_metrics(told_by_it) - arrived), short


@pytest.mark.parametrize("play", [("otlp_http", "cumulative")], indirect=True, ids=["http"])
def test_what_a_small_queue_drops_is_counted_to_the_row(play):
    it, receiver = play
    port = free_port()
    it.start_agent(
        "exporters.otlp_http.sending_queue.queue_size=4",
        f"extensions.health_check.endpoint=127.0.0.1:{port}",
        "service.extensions=[file_storage, health_check]",
    )
    it.under(Fault.CUT)
    time.sleep(HOLD)
    it.proxy.become(Fault.NONE)
    agent = it.agents[-1]
    agent.wait_for(lambda: figures(port)["queue"] <= 1, 10, "the queue was not emptied")
    dropped = figures(port)["dropped"]
    agent.stop()

    lost = Counter(row.signal for row in set(it.rows()) - set(told.of_receiver(receiver)))
    assert lost["metrics"] > 0
    assert lost == dropped


def figures(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return json.load(answer)["exporters"]["otlp_http"]
