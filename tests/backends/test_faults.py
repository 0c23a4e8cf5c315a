"""Between an agent and a real Collector everything fails in turn; afterwards the account is exact.

Every event and span that the agent told has arrived behind the Collector once or more, every counter's last value is
the same there, and where a queue is too small what is missing is what the agent counted as dropped.
"""

import contextlib
import json
import signal
import time
import urllib.request
from collections import Counter

import pytest

import told
from leaking import leak, server_with_users
from parts import needed
from pgsonar.demo.receiver import Receiver
from playing import Agent
from proxy import Fault, Proxy
from running import Collector, free_port, passing_to, until

pytestmark = pytest.mark.backends
QUICK = "timeout: 3s, retry_on_failure: {initial_interval: 200ms, max_interval: 1s}"
HOLD = 5.0  # seconds that each fault lasts at least: several exports of metrics


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

    def __init__(self, folder, server, protocol, receiver):
        self.folder, self.server, self.protocol = folder, server, protocol
        self.collector = forwarding(folder / "collector", receiver)
        self.collector.start()
        self.proxy = Proxy(self.collector.port if protocol == "otlp_http" else self.collector.grpc_port)
        self.proxy.__enter__()
        self.users = iter(range(100))
        self.agents = []
        self.open = []

    def start_agent(self, *more):
        folder = self.folder / f"agent{len(self.agents)}"
        folder.mkdir()
        settings = (
            f"exporters.{self.protocol}={{endpoint: '{self.proxy.endpoint}', {QUICK}}}",
            f"extensions.file_storage.directory={self.folder / 'state'}",
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

    def rows(self):
        return [row for agent in self.agents for row in told.of_file(agent.path)]

    def close(self):
        for client in self.open:
            client.close()
        for agent in self.agents:
            agent.process.kill()
            agent.process.wait()
        self.proxy.__exit__(None, None, None)
        self.collector.end()


@pytest.fixture
def play(server, tmp_path, request):
    with Receiver() as receiver:
        it = Play(tmp_path, server, request.param, receiver)
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


@pytest.mark.parametrize("play", ["otlp_http", "otlp_grpc"], indirect=True)
def test_everything_arrives_whatever_fails_between(play):
    it, receiver = play
    it.start_agent()
    faults = [Fault.CUT, Fault.SLOW, Fault.SILENT]
    if it.protocol == "otlp_http":
        faults += [Fault.BUSY, Fault.LIMIT]
    for fault in faults:
        it.under(fault)
        it.proxy.become(Fault.NONE)
        it.one_more_leak()
    for how in (signal.SIGTERM, signal.SIGKILL):
        it.collector.end(how)
        it.one_more_leak()
        it.collector.start()
        it.one_more_leak()
    # The agent is killed while it cannot send, and started again before it can.
    it.under(Fault.CUT)
    it.agents[-1].process.send_signal(signal.SIGKILL)
    it.agents[-1].process.wait()
    it.start_agent()
    it.one_more_leak()
    it.proxy.become(Fault.NONE)
    while it.open:
        it.open.pop().close()
    number = next(it.users)
    until(lambda: len({n for n in names_of(it.rows()) if n[0] == "span"}) == number, "not all leaks have ended", 20)
    time.sleep(2.5)  # the counters' last values are told
    it.agents[-1].stop()

    expected = set(it.rows())
    until(lambda: expected <= set(told.of_receiver(receiver)), lambda: missing(expected, receiver))
    arrived = told.of_receiver(receiver)

    assert set(arrived) == expected
    assert len(arrived) > len(expected), "no answer was lost, so nothing was sent twice"
    assert Counter(name for name, _ in names_of(expected)) == {
        "pgsonar.leak.opened": number,
        "pgsonar.leak.resolved": number,
        "span": number,
    }
    assert told.totals(arrived) == told.totals(list(expected))
    counted = {series: value for series, value in told.totals(arrived).items() if series.name == "pgsonar.leak.count"}
    assert len({series.start for series in counted}) == 2, "the agent was started twice"
    assert sum(counted.values()) == number


def missing(expected, receiver):
    lost = expected - set(told.of_receiver(receiver))
    return f"{len(lost)} of {len(expected)} rows did not arrive, by signal {Counter(row.signal for row in lost)}"


@pytest.mark.parametrize("play", ["otlp_http"], indirect=True)
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
