"""The native scanner from Python: against the slow parser, on plain files, and on the kernel's own tables."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
import reference_procnet
from pgsonar.errors import ScanError
from pgsonar.model import ChangeKind, Endpoint, ScanStats, Socket, TcpState
from pgsonar.sources import sockets
from pgsonar.sources.sockets import (
    CHANGE_FIELDS,
    Sampler,
    address_text,
    ffi,
    lib,
    parse,
    read_listeners,
    read_table,
    source_name,
    to_socket,
)

HEADER = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = struct.Struct("=16s16sHHBBBxIIIIIIQQ")


# --- against the reference ---------------------------------------------------------------------------------------


def parse_natively(text, family, ports, *, remote_too):
    capacity = text.count(b"\n")
    rows, result = ffi.new("pgs_row[]", capacity), ffi.new("pgs_parse_result *")
    chosen = ffi.new("uint16_t[]", list(ports))
    lib.pgs_parse(ffi.from_buffer(text), len(text), family, chosen, len(ports), remote_too, rows, capacity, result)
    unpacked = [reference_procnet.Row(*row) for row in ROW.iter_unpack(ffi.buffer(rows, result.rows * ROW.size))]
    return reference_procnet.Parsed(unpacked, result.lines, result.skipped, result.malformed, result.consumed)


def hexadecimal(digits):
    return st.integers(0, 16**digits - 1).map(lambda value: b"%0*X" % (digits, value))


PORTS = st.sampled_from([5432, 6432, 40000, 0, 65535])


@st.composite
def lines(draw, family):
    words = 4 if family == 6 else 1
    address = st.lists(hexadecimal(8), min_size=words, max_size=words).map(b"".join)
    tail = draw(st.sampled_from([b"", b" 1 00000000bada8ac7", b" 2 0000000000000000 20 4 30 10 -1"]))
    line = b"%4d: %s:%04X %s:%04X %02X %s:%s %s:%s %s %5d %8d %d%s" % (
        draw(st.sampled_from([0, 9999, 10000, 1234567])),
        draw(address),
        draw(PORTS),
        draw(address),
        draw(PORTS),
        draw(st.integers(0, 14)),
        draw(hexadecimal(8)),
        draw(hexadecimal(8)),
        draw(hexadecimal(2)),
        draw(st.one_of(hexadecimal(8), hexadecimal(9), hexadecimal(16))),
        draw(hexadecimal(8)),
        draw(st.integers(0, 1 << 33)),
        draw(st.integers(-1, 300)),
        draw(st.integers(0, 1 << 65)),
        tail,
    )
    return line.ljust(149) if family == 4 else line


@st.composite
def tables(draw):
    """Text of one family: mostly rows, some of them damaged, and its end cut off anywhere."""
    family = draw(st.sampled_from([4, 6]))
    text = draw(st.sampled_from([b"", HEADER])) + b"".join(
        line + b"\n" for line in draw(st.lists(st.one_of(lines(family), st.binary(max_size=300)), max_size=8))
    )
    damaged = bytearray(text)
    for _ in range(draw(st.integers(0, 2)) if damaged else 0):
        damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.sampled_from(b" :\n0Fx\x00\xff"))
    return bytes(damaged)[: draw(st.integers(0, len(damaged)))] if draw(st.booleans()) else bytes(damaged), family


ASKED = st.lists(PORTS, max_size=3, unique=True)


@given(tables(), ASKED, st.booleans())
@settings(max_examples=600, deadline=None)
def test_generated_tables_are_read_as_the_reference_reads_them(table, ports, remote_too):
    expected = reference_procnet.parse(*table, ports, remote_too=remote_too)

    assert parse_natively(*table, ports, remote_too=remote_too) == expected


@given(st.binary(max_size=600), st.sampled_from([4, 6]), ASKED, st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_as_the_reference_reads_them(text, family, ports, remote_too):
    expected = reference_procnet.parse(text, family, ports, remote_too=remote_too)

    assert parse_natively(text, family, ports, remote_too=remote_too) == expected


def test_the_kernels_own_tables_are_read_as_the_reference_reads_them():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        text = Path("/proc/self/net/tcp").read_bytes()
        port = server.getsockname()[1]

    read = parse_natively(text, 4, [], remote_too=False)

    assert read == reference_procnet.parse(text, 4)
    assert read.malformed == 0
    assert (port, TcpState.LISTEN) in [(row.local_port, row.state) for row in read.rows]
    assert (port, TcpState.ESTABLISHED) in [(row.remote_port, row.state) for row in read.rows]


# --- shapes ------------------------------------------------------------------------------------------------------


def test_addresses_are_written_as_people_write_them():
    assert address_text(bytes(10) + b"\xff\xff\x0a\x00\x00\x01") == "10.0.0.1"
    assert address_text(bytes(15) + b"\x01") == "::1"
    assert address_text(bytes(16)) == "::"


def test_every_column_of_a_row_comes_back_in_its_own_field():
    line = b"   0: %08X:1538 %08X:9C40 08 00000011:00000034 04:000AFC80 00000009   101        7 4026531840 1 0\n"
    words = struct.unpack("=II", bytes([10, 1, 2, 3, 192, 168, 77, 5]))

    (read,) = parse(line % words, 4)

    assert read == Socket(
        local=Endpoint("10.1.2.3", 5432),
        remote=Endpoint("192.168.77.5", 40000),
        state=TcpState.CLOSE_WAIT,
        timer=4,
        tx_queue=0x11,
        rx_queue=0x34,
        retransmits=9,
        probes=7,
        uid=101,
        inode=4026531840,
    )


def test_the_stats_are_unpacked_in_the_order_of_the_header():
    record = ffi.new("pgs_scan_stats *")
    names = [name for name, _ in ffi.typeof("pgs_scan_stats").fields if name != "reserved"]
    for number, name in enumerate(names):
        setattr(record, name, number + 1)

    unpacked = ScanStats(*sockets._stats_record.unpack(ffi.buffer(record)))

    assert unpacked._asdict() == {name: number + 1 for number, name in enumerate(ScanStats._fields)}
    assert ScanStats._fields == tuple(names)


def test_the_fields_of_a_change_are_those_of_the_header_in_its_order():
    names = [name for name, _ in ffi.typeof("pgs_change").fields]
    names[names.index("row") : names.index("row") + 1] = [name for name, _ in ffi.typeof("pgs_row").fields]
    names.remove("reserved")

    assert [name.removesuffix("_address") for name in names] == list(CHANGE_FIELDS)


# --- on plain files ----------------------------------------------------------------------------------------------


def row_text(port, state=TcpState.ESTABLISHED, inode=1):
    return b"   0: 0100007F:1538 0100007F:%04X %02X 00000000:00000000 02:000AFC80 00000000  101 0 %d\n" % (
        port,
        state,
        inode,
    )


@pytest.fixture
def net(tmp_path):
    """A directory that stands for /proc/PID/net, and a way to rewrite its tcp."""

    def write(*rows):
        (tmp_path / "tcp").write_bytes(HEADER + b"".join(rows))
        return str(tmp_path)

    write()
    return write


@pytest.fixture
def sampler(net):
    with Sampler(0.001, 16) as sampler:
        sampler.watch(7, net(), [5432])
        yield sampler


def kinds(sampler):
    return [(ChangeKind(kind).name, previous, seen.state) for _, _, _, kind, previous, seen, _ in sampler.changes()]


def test_changes_come_oldest_first_with_their_socket(net, sampler):
    for rows in ([row_text(40000)], [row_text(40000, TcpState.CLOSE_WAIT)], [], []):
        net(*rows)
        sampler.scan()

    assert kinds(sampler) == [
        ("OPENED", 0, TcpState.ESTABLISHED),
        ("STATE", TcpState.ESTABLISHED, TcpState.CLOSE_WAIT),
        ("CLOSED", TcpState.CLOSE_WAIT, TcpState.CLOSE_WAIT),
    ]


def test_flat_changes_and_changes_with_sockets_tell_the_same(net, sampler):
    net(row_text(40000))
    sampler.scan()
    (flat,) = sampler.snapshot(7)

    assert next(sampler.changes()) == (*flat[:5], to_socket(flat), None)
    assert len(flat) == len(CHANGE_FIELDS)


def test_changes_already_drained_stay_valid_whatever_the_sampler_does(net, sampler):
    net(row_text(40000))
    sampler.scan()
    drained = sampler.drain()
    net(row_text(40001))
    sampler.scan()
    list(sampler.drain())
    sampler.close()

    assert [change[CHANGE_FIELDS.index("remote_port")] for change in drained] == [40000]


def test_a_snapshot_has_every_connection_however_many_there_are(net, sampler):
    net(*(row_text(port) for port in range(20000, 23000)))
    sampler.scan()

    present = list(sampler.open_connections(7))

    assert {seen.remote.port for *_, seen, _ in present} == set(range(20000, 23000))
    assert sampler.stats(7).lost_changes == 3000 - 16
    assert sampler.stats(7).resyncs == 1
    assert list(sampler.changes()) == []


def test_a_truncated_table_is_counted_and_closes_nothing(net, sampler):
    net(row_text(40000))
    sampler.scan()
    for _ in range(3):
        net(row_text(40001)[:-1])
        sampler.scan()

    assert kinds(sampler) == [("OPENED", 0, TcpState.ESTABLISHED)]
    assert sampler.stats(7).incomplete == 3


def test_rows_of_other_ports_are_left_out_and_counted(net, sampler):
    net(row_text(40000), row_text(5432))
    sampler.set_ports(7, [40000])
    sampler.scan()
    assert kinds(sampler) == []

    sampler.set_ports(7, [40000], remote_too=True)
    sampler.scan()
    assert [seen.remote.port for *_, seen, _ in sampler.changes()] == [40000]
    assert sampler.stats(7).rows_skipped == 1


def test_a_missing_table_says_which_and_why(tmp_path, sampler):
    with pytest.raises(ScanError, match=r"nowhere.*No such file") as caught:
        sampler.watch(8, str(tmp_path / "nowhere"), [])

    assert caught.value.hint


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda sampler: sampler.watch(1 << 32, "/proc/self/net", []), "32 bits"),
        (lambda sampler: sampler.watch(8, "/proc/self/net", range(1, 100)), "out of range"),
        (lambda sampler: sampler.watch(8, "/proc/self/net", [70000]), "70000"),
        (lambda sampler: sampler.watch(7, "/proc/self/net", []), "in use"),
        (lambda sampler: sampler.stats(8), "not watched"),
        (lambda sampler: sampler.snapshot(8), "not watched"),
        (lambda sampler: sampler.unwatch(8), "not watched"),
        (lambda sampler: sampler.set_interval(0), "out of range"),
        (lambda _: Sampler(0), "above 0"),
        (lambda _: Sampler(1, 0), "above 0"),
    ],
)
def test_what_cannot_be_done_is_said(sampler, call, said):
    with pytest.raises(ScanError, match=said):
        call(sampler)


def test_a_closed_sampler_refuses_instead_of_crashing(net):
    sampler = Sampler(1)
    sampler.close()
    sampler.close()

    with pytest.raises(ScanError, match="closed"):
        sampler.watch(7, net(), [])


def test_one_reading_for_discovery_needs_no_tcp6(net, tmp_path):
    directory = net(row_text(40000), row_text(40001))
    assert [seen.remote.port for seen in read_table(directory)] == [40000, 40001]
    assert read_table(directory, [6432]) == []

    (tmp_path / "tcp").unlink()
    with pytest.raises(FileNotFoundError):
        read_table(directory)


# --- on the kernel -----------------------------------------------------------------------------------------------


def wait_for(condition, seen=()):
    """Waits for what must come; that it never comes is a failure, how soon it comes is not measured."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"it never came after {seen}"
        time.sleep(0.005)


class Watcher:
    """Collects what a running sampler tells of one local port."""

    def __init__(self, sampler, port):
        self._sampler, self._port, self.seen = sampler, port, []

    def wait_for(self, kinds, state=None):
        def is_seen():
            self.seen += [c for c in self._sampler.changes() if c[5].local.port == self._port]
            return any(c[3] in kinds and state in {None, c[5].state} for c in self.seen)

        wait_for(is_seen, self.seen)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_life_of_a_real_connection_is_told(family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"cannot be installed: {host}: {error}")
    with Sampler(0.005) as sampler, contextlib.ExitStack() as stack:
        stack.enter_context(server)
        port = server.getsockname()[1]
        sampler.watch(7, "/proc/self/net", [port])
        sampler.start()
        watcher = Watcher(sampler, port)
        watcher.wait_for({ChangeKind.OPENED}, TcpState.LISTEN)

        client = stack.enter_context(socket.create_connection((host, port)))
        watcher.wait_for({ChangeKind.OPENED, ChangeKind.STATE}, TcpState.ESTABLISHED)  # it may be met in SYN_RECV
        watcher.wait_for({ChangeKind.QUEUE}, TcpState.LISTEN)
        accepted = stack.enter_context(server.accept()[0])
        watcher.wait_for({ChangeKind.INODE}, TcpState.ESTABLISHED)
        client.send(b"x")
        watcher.wait_for({ChangeKind.QUEUE}, TcpState.ESTABLISHED)
        peer, inode = client.getsockname(), os.fstat(accepted.fileno()).st_ino
        client.close()
        watcher.wait_for({ChangeKind.STATE}, TcpState.CLOSE_WAIT)
        accepted.close()
        watcher.wait_for({ChangeKind.CLOSED})

        life = [c for c in watcher.seen if c[5].remote.port == peer[1]]
        assert len({c[0] for c in life}) == 1
        assert {c[5].remote for c in life} == {Endpoint(host, peer[1])}
        assert inode in {c[5].inode for c in life}
        assert [c[1] for c in life] == sorted(c[1] for c in life)
        assert sampler.stats(7).incomplete == 0


def test_listeners_are_found_without_their_connections():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        local, inode = Endpoint(*server.getsockname()), os.fstat(server.fileno()).st_ino
        found = read_listeners("/proc/self")
        by_text = [row for row in read_table("/proc/self/net", [local.port]) if row.state == TcpState.LISTEN]

    assert {row.state for row in found} == {TcpState.LISTEN}
    for rows in (found, by_text):  # others listen beside it, and come and go
        assert [row.inode for row in rows if row.local == local] == [inode]


def test_an_ipv4_client_of_a_dual_stack_listener_has_an_ipv4_address():
    if not socket.has_dualstack_ipv6():
        pytest.skip("cannot be installed: a dual stack")
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client,
    ):
        seen = read_table("/proc/self/net", [server.getsockname()[1]])
        own = client.getsockname()[1]

    assert Endpoint("127.0.0.1", own) in [row.remote for row in seen]


IN_A_NAMESPACE = """
import os, socket, sys
os.unshare(os.CLONE_NEWNET) if hasattr(os, "unshare") else __import__("ctypes").CDLL(None).unshare(0x40000000)
server = socket.create_server(("0.0.0.0", 5432))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.netns
@pytest.mark.parametrize("source", ["procfs", "sock_diag"])
def test_another_namespace_is_watched_from_outside_and_survives_its_process(source):
    needs.namespaces()
    command = [sys.executable, "-c", IN_A_NAMESPACE]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        Sampler(0.005) as sampler,
    ):
        assert process.stdout.readline() == b"ready\n"
        directory = f"/proc/{process.pid}"
        sampler.watch(8, f"{directory}/net", [5432], netns_file=f"{directory}/ns/net", source=source)
        sampler.scan()
        told = list(sampler.changes())
        process.communicate()  # it ends
        sampler.scan()
        sampler.scan()
        closed = list(sampler.changes())
        stats = sampler.stats(8)

    assert [(c[2], c[3], c[5].local) for c in told] == [(8, ChangeKind.OPENED, Endpoint("0.0.0.0", 5432))]
    assert [c[3] for c in closed] == [ChangeKind.CLOSED]
    assert (stats.scans, stats.incomplete) == (3, 0)
    assert source_name(stats.source) == source


@pytest.mark.netns
def test_many_namespaces_are_watched_by_one_thread_each_by_itself():
    """The same port in each: connections are told by their namespace, and read by netlink in each."""
    needs.namespaces()
    command = [sys.executable, "-c", IN_A_NAMESPACE]
    others = set(os.listdir("/proc/self/task"))
    with contextlib.ExitStack() as stack, Sampler(0.01) as sampler:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(12)
        ]
        for number, process in enumerate(processes):
            assert process.stdout.readline() == b"ready\n"
            directory = f"/proc/{process.pid}"
            sampler.watch(number, f"{directory}/net", [5432], netns_file=f"{directory}/ns/net")
        sampler.start()
        seen = set()

        def all_seen():
            seen.update(change[2] for change in sampler.changes())
            return len(seen) == len(processes)

        wait_for(all_seen, seen)
        assert {source_name(sampler.stats(number).source) for number in seen} == {"sock_diag"}
        # One thread for all; those that enter a namespace are gone.
        wait_for(lambda: len(set(os.listdir("/proc/self/task")) - others) == 1)
        for process in processes:
            process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
def test_without_privilege_another_namespace_is_read_as_text_and_the_reason_told():
    """In a process of its own, because privileges do not come back."""
    program = """
import os, sys
from pgsonar.errors import ScanError
from pgsonar.sources.sockets import Sampler, source_name
os.setgroups([]); os.setgid(65534); os.setuid(65534)
directory = "/proc/" + sys.argv[1]
with Sampler(1) as sampler:
    for number, of in enumerate((directory, "/proc/self")):
        sampler.watch(number, of + "/net", [5432], netns_file=of + "/ns/net")
    sampler.scan()
    print(*((source_name(s.source), os.strerror(s.refusal), s.rows) for s in map(sampler.stats, (0, 1))))
    try:
        sampler.watch(2, directory + "/net", [5432], netns_file=directory + "/ns/net", source="sock_diag")
    except ScanError as error:
        print(error, "|", error.hint)
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_NAMESPACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as there:
        assert there.stdout.readline() == b"ready\n"
        told = subprocess.run(
            [sys.executable, "-c", program, str(there.pid)],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        there.communicate()

    assert told[0].startswith("('procfs', 'Permission denied', 1) ('sock_diag', 'Success', ")
    assert "sock_diag is refused (Permission denied)" in told[1]
    assert "CAP_SYS_ADMIN" in told[1]


def test_the_thread_has_a_name_and_ends_with_its_sampler(net):
    def names():
        found = []
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append((task / "comm").read_text().strip())
        return found

    with Sampler(3600) as sampler:
        sampler.watch(7, net(), [])
        sampler.start()
        wait_for(lambda: "pgsonar-scan" in names())
        with pytest.raises(ScanError, match="in use"):
            sampler.scan()
        sampler.stop()
        assert "pgsonar-scan" not in names()
        sampler.scan()
