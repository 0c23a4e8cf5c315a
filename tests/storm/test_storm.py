"""A thousand connections that stay, and thousands a second that come and go, in a hash table far too small for them.

The rule of the scanner under test: a scan is not atomic, and nothing follows from one absence. `make storm` plays a
minute; the suite a few seconds of it.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import needs
from pgsonar.model import ChangeKind
from pgsonar.sources.sockets import CHANGE_FIELDS, Sampler, source_name

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("PGSONAR_STORM_SECONDS", "8"))
STABLE, RATE = 1000, 8000
KIND, PORT = CHANGE_FIELDS.index("kind"), CHANGE_FIELDS.index("remote_port")

# Enters a namespace whose table has 256 buckets: the number is inherited from the namespace that creates it.
IN_A_SMALL_TABLE = """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
for setting in ({"net.ipv4.tcp_child_ehash_entries": "256"}, {"net.ipv4.tcp_max_tw_buckets": "2000"}):
    if libc.unshare(0x40000000):
        sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
    for name, value in setting.items():
        with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
            file.write(value)
with open("/proc/sys/net/ipv4/tcp_ehash_entries") as file:
    if (buckets := int(file.read())) != 256:
        sys.exit(f"asked for a socket hash of 256 buckets, got {buckets}")
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = needs.either("cc", "gcc")
    built = tmp_path_factory.mktemp("storm") / "storm"
    subprocess.run([compiler, "-O2", "-D_GNU_SOURCE", "-o", built, HERE / "storm.c"], check=True)
    return built


@pytest.fixture
def storm(program):
    needs.namespaces()
    needs.programs("ip")
    if not Path("/proc/sys/net/ipv4/tcp_child_ehash_entries").exists():
        pytest.skip("cannot be installed: a kernel that gives a namespace a socket hash of its own (6.1)")
    command = [sys.executable, "-c", IN_A_SMALL_TABLE, program, str(STABLE), str(RATE), str(SECONDS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()
        assert process.wait(20) == 0


class Observer:
    """Follows what a sampler tells of every connection."""

    def __init__(self, sampler):
        self.sampler = sampler
        self.told = Counter()  # by (connection, kind)
        self.ports = {}

    def drain(self):
        for change in self.sampler.drain():
            if change[KIND] in {ChangeKind.OPENED, ChangeKind.CLOSED}:
                self.told[change[0], change[KIND]] += 1
                self.ports[change[0]] = change[PORT]

    def wait(self, seconds, until=lambda: False):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            time.sleep(0.02)
            self.drain()

    def count(self, kind, connections):
        return Counter(self.told[connection, kind] for connection in connections)


def ask(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


@pytest.mark.netns
@pytest.mark.parametrize(
    ("source", "events", "interval"),
    [
        ("procfs", "never", 0.1),
        ("sock_diag", "never", 0.1),
        ("sock_diag", "never", 0.01),
        ("sock_diag", "auto", 0.1),
        ("sock_diag", "always", 0.1),
    ],
)
def test_nothing_stable_is_lost_and_everything_else_is_accounted_for(storm, source, events, interval):
    process = f"/proc/{storm.pid}"
    with Sampler(interval, 1 << 19) as sampler:
        observer = Observer(sampler)
        sampler.watch(7, f"{process}/net", [5432], netns_file=f"{process}/ns/net", source=source, events=events)
        sampler.start()
        observer.wait(10, lambda: len(observer.ports) == STABLE + 1)
        stable = {number for number, port in observer.ports.items() if port}
        assert len(stable) == STABLE

        ask(storm, "go")
        observer.wait(SECONDS + 0.5)
        stormed = int(storm.stdout.readline().split()[1])
        observer.wait(2)
        stats = sampler.stats(7)
        came = {number for number, port in observer.ports.items() if port} - stable

        assert observer.count(ChangeKind.OPENED, stable) == {1: STABLE}
        assert observer.count(ChangeKind.CLOSED, stable) == {0: STABLE}
        assert observer.count(ChangeKind.OPENED, came) in ({1: len(came)}, {})
        assert observer.count(ChangeKind.CLOSED, came) in ({1: len(came)}, {})
        assert source_name(stats.source) == source
        assert (stats.lost_changes, stats.incomplete, stats.malformed) == (0, 0, 0)
        assert stats.opened == len(came) == stats.closed
        assert len(came) <= stormed, stats
        assert stormed - len(came) <= stats.unseen
        if events == "always":
            assert (len(came), stats.unseen) == (stormed, 0) or stats.lost_events
        if events == "auto":
            assert stats.events_on
            assert len(came) > (SECONDS - 4) / SECONDS * stormed
        print(f"{source} {events}: {stormed} came and went, {len(came)} seen, {stats}")

        ask(storm, "close")
        assert storm.stdout.readline() == "closed\n"
        observer.wait(2, lambda: observer.count(ChangeKind.CLOSED, stable) == {1: STABLE})
        assert observer.count(ChangeKind.CLOSED, stable) == {1: STABLE}
