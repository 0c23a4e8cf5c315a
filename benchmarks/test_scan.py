"""What a scan costs: parsing, the walk of the kernel's own tables, the diff, and the way of the changes into Python.

Each figure stands beside its floor, in one run: `pytest benchmarks --benchmark-group-by=group`.
"""

import os
import random

import pytest

from pgsonar.model import TcpState
from pgsonar.sources.sockets import Sampler, _change_records, ffi, lib

ROWS = 10_000
HEADER = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode".ljust(149)


def table(rows, state=TcpState.ESTABLISHED, share=0.01):
    """Text of /proc/net/tcp, of whose rows a share is on port 5432; the order is one of a hash table."""
    chance = random.Random(1)
    lines = [HEADER]
    for number in range(rows):
        port = 5432 if chance.random() < share else 8080
        lines.append(
            b"%4d: 0100007F:%04X %08X:%04X %02X 00000000:00000000 02:000AFC80 00000000   101        0 %d 1 0 20"
            % (number, port, chance.getrandbits(32), number % 60000 + 1, state, number + 1)
        )
    return b"".join(line.ljust(149) + b"\n" for line in lines)


@pytest.mark.benchmark(group="parse 10k rows")
@pytest.mark.parametrize("ports", [[], [5432]], ids=["all", "1 % wanted"])
def test_parse(benchmark, ports):
    text = table(ROWS)
    out, result = ffi.new("pgs_row[]", ROWS), ffi.new("pgs_parse_result *")
    chosen, source = ffi.new("uint16_t[]", ports), ffi.from_buffer(text)

    benchmark(lib.pgs_parse, source, len(text), 4, chosen, len(ports), 0, out, ROWS, result)

    assert result.lines == ROWS + 1
    assert result.rows + result.skipped == ROWS


@pytest.fixture
def own_namespace():
    with Sampler(1) as sampler:
        sampler.watch(7, "/proc/self/net", [5432])
        yield sampler


@pytest.mark.benchmark(group="scan of this namespace")
def test_scan_of_this_namespace(benchmark, own_namespace):
    benchmark(own_namespace.scan)

    assert own_namespace.stats(7).incomplete == 0


@pytest.mark.benchmark(group="scan of this namespace")
def test_floor_both_tables_read_to_their_end(benchmark):
    files = [os.open(f"/proc/self/net/{name}", os.O_RDONLY) for name in ("tcp", "tcp6")]

    def read_all():
        for file in files:
            at = 0
            while got := len(os.pread(file, 65536, at)):
                at += got

    benchmark(read_all)
    for file in files:
        os.close(file)


@pytest.fixture
def net(tmp_path):
    (tmp_path / "tcp").write_bytes(table(ROWS, share=1))
    return tmp_path


@pytest.mark.benchmark(group="scan 10k rows of a file, all wanted")
def test_scan_without_changes(benchmark, net):
    with Sampler(1) as sampler:
        sampler.watch(7, str(net), [])
        sampler.scan()
        list(sampler.drain())

        benchmark(sampler.scan)

        assert list(sampler.drain()) == []


@pytest.mark.benchmark(group="scan 10k rows of a file, all wanted")
def test_floor_the_file_is_read(benchmark, net):
    benchmark((net / "tcp").read_bytes)


@pytest.fixture
def raw_changes(tmp_path):
    """A sampler and a way to give it 1000 changes to tell."""
    texts = [table(1000, state, share=1) for state in (TcpState.CLOSE_WAIT, TcpState.LAST_ACK)]
    with Sampler(1) as sampler:

        def change_all():
            texts.reverse()
            (tmp_path / "tcp").write_bytes(texts[0])
            sampler.scan()

        (tmp_path / "tcp").write_bytes(texts[0])
        sampler.watch(7, str(tmp_path), [])
        sampler.scan()
        list(sampler.drain())
        yield sampler, change_all


@pytest.mark.benchmark(group="1000 changes")
@pytest.mark.parametrize("form", ["drain", "changes"])
def test_changes_become_python_values(benchmark, raw_changes, form):
    sampler, change_all = raw_changes

    told = benchmark.pedantic(lambda: list(getattr(sampler, form)()), setup=change_all, rounds=300)

    assert len(told) == 1000


@pytest.mark.benchmark(group="1000 changes")
def test_floor_the_same_records_are_unpacked(benchmark, raw_changes):
    sampler, change_all = raw_changes
    change_all()
    records = b"".join(_change_records.pack(*change) for change in sampler.drain())

    told = benchmark.pedantic(lambda: list(_change_records.iter_unpack(records)), setup=change_all, rounds=300)

    assert len(told) == 1000
