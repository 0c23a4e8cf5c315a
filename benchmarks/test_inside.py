"""What happens between the kernel and Python: instructions of a row, changes into tuples, punctuality, attribution."""

import os
import re
import shutil
import statistics
import struct
import subprocess
from pathlib import Path

import pytest
from pairs import compare, cpu_of
from punctuality import lateness
from worlds import built, floor_library, say, talking, write_rows

from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.processes import Processes
from pgsonar.sources.sockets import Sampler, Step, _change_records

ROOT = Path(__file__).parents[1]
SOURCES = ("procnet.c", "merge.c", "table.c", "row.c", "entries.c", "told.c", "ring.c")


def instructions(program, kind, rounds, rows=1000):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, kind, str(rows), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


@pytest.mark.parametrize(
    ("build", "kind", "goal"),
    [
        ("", "wanted", 65),
        ("-DPGS_PORTABLE", "wanted", 110),
        ("", "filtered", 22),
        ("", "wanted6", None),
        ("", "filtered6", None),
    ],
)
def test_instructions_of_a_row(goals, tmp_path, build, kind, goal):
    """All but the time left is compared. What 20 rounds more cost: neither start-up nor the first scan counts."""
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is not here")
    program = tmp_path / "instructions"
    sources = [ROOT / "benchmarks" / "native" / "instructions.c", *(ROOT / "native" / name for name in SOURCES)]
    flags = ["-std=c11", "-O2", "-D_GNU_SOURCE", f"-I{ROOT / 'native'}", *([build] if build else [])]
    subprocess.run(["cc", *flags, *sources, "-o", program], check=True)
    each = (instructions(program, kind, 40) - instructions(program, kind, 20)) / (20 * 1000)
    text = {"wanted": "unchanged row", "filtered": "row filtered out"}[kind.rstrip("6")]
    family = " of tcp6" if kind.endswith("6") else ""
    how = ", plain C" if build else ""
    goals.figure(f"instructions, {text}{family}{how}", each, goal, unit="instr")


def test_changes_into_tuples(benchmark, goals, tmp_path):
    write_rows(tmp_path, 1)
    with Sampler(1) as sampler:
        sampler.watch(7, str(tmp_path), [], source="procfs")
        sampler.step(Step.WALK)
        records = bytearray(_change_records.size * 1000)
        for at, change in enumerate(sampler.drain()):
            _change_records.pack_into(records, at * _change_records.size, *change)
        same, unread = bytes(records), [1]

        def drain():
            unread[0] = 1 - unread[0]
            write_rows(tmp_path, unread[0])
            sampler.step(Step.WALK)
            cost = cpu_of(lambda: drained.extend(sampler.drain()))
            assert len(drained) == 1000
            drained.clear()
            return cost

        drained = []
        bare = struct.Struct(_change_records.format)
        ratio = compare(drain, lambda: cpu_of(lambda: list(bare.iter_unpack(same))), goals.pairs(101))
        benchmark.pedantic(lambda: list(bare.iter_unpack(same)), rounds=20)
    goals.ratio("1000 changes as tuples / struct.iter_unpack", ratio, 1.15, benchmark)


def test_punctuality_beside_a_busy_thread(goals, tmp_path):
    """A hundred ticks a second while another Python thread computes."""
    write_rows(tmp_path, 1)
    seconds = 3 if goals.short else 10

    def compute(stop):
        while not stop.is_set():
            sum(range(1000))

    with Sampler(0.01) as sampler:
        sampler.watch(7, str(tmp_path), [], source="procfs")
        ours, theirs = lateness(sampler, seconds, compute)
    left, right = statistics.median(ours), statistics.median(theirs)
    note = f"median {left * 1e6:.0f} us, {right * 1e6:.0f} us; of {len(ours)} and {len(theirs)} ticks"
    goals.figure("lateness of a tick / of a Python thread", left / right, 1 / 20, note=note)


def test_a_new_backend_among_a_thousand(benchmark, goals):
    """Its postmaster's children, one link at the descriptor learned; beside all descriptors of all processes, in C."""
    say("1000 processes with 53 descriptors")
    floor = floor_library()
    with talking([built("run"), "backends", "1000", "53"]) as line:
        postmaster, newest = map(int, line.split())
        owners, processes = OwnerReader(), Processes()
        owners.inodes(newest - 1, postmaster=postmaster)

        def attribute():
            assert newest in processes.children(postmaster)
            assert len(owners.inodes(newest, postmaster=postmaster)) == 1

        ratio = compare(lambda: cpu_of(attribute, 5), lambda: cpu_of(floor.walk_descriptors), goals.pairs(31))
        benchmark.pedantic(attribute, rounds=20)
    goals.ratio("a new backend among 1000 / all descriptors", ratio, 1 / 250, benchmark)
    assert os.getpid() != postmaster
