"""Reading the kernel's sockets: procfs beside its floor and `cat`, netlink beside procfs, the gate, and lookups.

All in namespaces of 262144 buckets. "Wanted" rows touch port 5432; both ends of a connection count as rows.
"""

import os
import socket
from contextlib import contextmanager

import pytest
from pairs import compare, cpu_of, cpu_of_command
from worlds import floor_library, rows, say

from pgsonar.sources.sockets import Sampler, Step

PORT = 5432
NETNS = 7
NETLINK = (socket.AF_NETLINK, socket.SOCK_RAW, 4)  # NETLINK_SOCK_DIAG


@contextmanager
def sampler(source, port=PORT):
    """Watches the namespace this process is in; a short interval, so that nothing but what is asked for is due."""
    with Sampler(0.001, 1 << 17) as made:
        made.watch(NETNS, "/proc/self/net", [port], source=source, events="never")
        made.step(Step.WALK)
        made.step(Step.WALK)
        list(made.drain())
        yield made
        assert made.stats(NETNS).incomplete == 0


@contextmanager
def tables():
    files = [os.open(f"/proc/self/net/{name}", os.O_RDONLY) for name in ("tcp", "tcp6")]
    try:
        yield files
    finally:
        for file in files:
            os.close(file)


def walk(of):
    return lambda: cpu_of(lambda: of.step(Step.WALK))


@pytest.mark.parametrize(("count", "goal", "pairs"), [(1000, 1.03, 61), (10_000, 1.03, 41), (50_000, 1.05, 31)])
def test_procfs_with_diff_beside_its_floor(benchmark, goals, count, goal, pairs):
    if goals.short and count > 10_000:
        pytest.skip("the long form's")
    say(f"procfs, {count} rows, all wanted")
    floor = floor_library()
    with rows(count, 1), tables() as files, sampler("procfs") as text:
        ratio = compare(walk(text), lambda: cpu_of(lambda: floor.floor_of(*files)), goals.pairs(pairs))
        benchmark.pedantic(text.step, (Step.WALK,), rounds=5)
    goals.ratio(f"procfs scan / the same reads, {count} rows", ratio, goal, benchmark)


@pytest.mark.parametrize(("count", "goal"), [(100, 0.55), (1000, 0.65), (10_000, 1.0)])
def test_procfs_beside_cat(benchmark, goals, count, goal):
    """One table each: `cat` reads tcp only, so its reads of tcp6 are added, done the same way."""
    floor = floor_library()
    with rows(count, 1), tables() as files, sampler("procfs") as text:

        def cat():
            return cpu_of(lambda: [floor.read_to_end(file) for file in files])

        ratio = compare(walk(text), cat, goals.pairs(41))
        real = compare(walk(text), lambda: cpu_of_command(["cat", "/proc/self/net/tcp"]), goals.pairs(15))
        benchmark.pedantic(text.step, (Step.WALK,), rounds=5)
    goals.ratio(f"procfs scan / reading to the end, {count} rows", ratio, goal, benchmark)
    goals.ratio(f"both tables by procfs / cat of tcp, {count} rows", real, None, note="with its start")


@pytest.mark.parametrize(("wanted", "goal"), [(0.01, 0.06), (1, 0.45)])
def test_dump_beside_procfs(benchmark, goals, wanted, goal):
    say(f"10000 rows, {wanted:.0%} wanted")
    with rows(10_000, wanted), sampler("procfs") as text, sampler("sock_diag") as netlink:
        ratio = compare(walk(netlink), walk(text), goals.pairs(41))
        benchmark.pedantic(netlink.step, (Step.WALK,), rounds=5)
    goals.ratio(f"dump / procfs scan, 10000 rows, {wanted:.0%} wanted", ratio, goal, benchmark)


@pytest.mark.parametrize("wanted", [0.01, 1])
def test_dump_with_diff_beside_the_dump_alone(goals, wanted):
    """What of a dump is ours: the kernel answers the same question, and the answer is thrown away."""
    floor = floor_library()
    with rows(10_000, wanted), sampler("sock_diag") as netlink, socket.socket(*NETLINK) as question:
        ratio = compare(walk(netlink), lambda: cpu_of(lambda: floor.dump_of(question.fileno(), PORT)), goals.pairs(41))
    goals.ratio(f"dump with diff / the dump alone, 10000 rows, {wanted:.0%}", ratio, 1.1)


def test_lookups_beside_procfs(benchmark, goals):
    with rows(10_000, 0.01), sampler("procfs") as text, sampler("sock_diag") as netlink:
        before = netlink.stats(NETNS).lookups
        ratio = compare(lambda: cpu_of(lambda: netlink.step(Step.LOOKUP), 5), walk(text), goals.pairs(41))
        benchmark.pedantic(netlink.step, (Step.LOOKUP,), rounds=5)
        assert netlink.stats(NETNS).lookups > before
    goals.ratio("lookups / procfs scan, 10000 rows, 1% wanted", ratio, 0.01, benchmark)


def gate(of):
    """Ticks while nothing moves and nothing is due: a walk stands before them."""

    def work():
        of.step(Step.WALK)
        walks = of.stats(NETNS).walks
        cost = cpu_of(lambda: of.step(Step.TICK), 100)
        assert of.stats(NETNS).walks == walks
        return cost

    return work


def test_the_gate_beside_a_dump(benchmark, goals):
    with rows(10_000, 0.01), sampler("sock_diag", port=1) as still, sampler("sock_diag") as netlink:
        ratio = compare(gate(still), walk(netlink), goals.pairs(41))
        benchmark.pedantic(still.step, (Step.TICK,), rounds=50)
    goals.ratio("still gate / dump, 10000 rows, 1% wanted", ratio, 0.03, benchmark)


def test_the_gate_costs_the_same_at_any_size(goals):
    costs = {}
    for count in (1000, 10_000) if goals.short else (1000, 10_000, 100_000):
        say(f"gate, {count} rows")
        with rows(count, 0.01), sampler("sock_diag", port=1) as still:
            measured = compare(gate(still), gate(still), goals.pairs(31))
            costs[count] = measured.left
    largest = max(costs)
    note = ", ".join(f"{count} rows {cost * 1e6:.1f} us" for count, cost in costs.items())
    goals.figure(f"still gate, {largest} rows / 1000 rows", costs[largest] / costs[1000], 1.5, note=note)


def test_a_large_namespace(goals):
    """100000 rows of which 1 % wanted: what each way costs, without a goal of its own."""
    if goals.short:
        pytest.skip("the long form's")
    say("100000 rows, 1 % wanted")
    with rows(100_000, 0.01), sampler("procfs") as text, sampler("sock_diag") as netlink:
        dump = compare(walk(netlink), walk(text), 9)
        exact = compare(lambda: cpu_of(lambda: netlink.step(Step.LOOKUP)), walk(text), 9)
    for name, ratio in (("dump", dump), ("lookups", exact)):
        goals.ratio(f"{name} / procfs scan, 100000 rows, 1% wanted", ratio, None)
