"""The kernel's TCP sockets, through the native scanner.

The rule: this is the only importer of the compiled module (owners.py takes it from here), `_check` is the only place
where its codes become exceptions, and native memory never leaves a function: records are copied out in one piece,
then unpacked.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop
from types import TracebackType
from typing import Any, Self

from pgsonar._native import ffi, lib
from pgsonar.errors import ScanError
from pgsonar.model import Details, Endpoint, ScanStats, Socket, TcpState, Transferred

__all__ = [
    "CHANGE_FIELDS",
    "RawChange",
    "Sampler",
    "SocketChange",
    "Step",
    "address_text",
    "ffi",
    "lib",
    "parse",
    "read_listeners",
    "read_table",
    "source_name",
    "to_socket",
]

# One pgs_change as a flat tuple; `local` and `remote` are 16 bytes, IPv4 as IPv4-mapped IPv6.
CHANGE_FIELDS = (
    *("connection", "at", "netns", "kind", "previous_state", "is_final"),
    *("local", "remote", "local_port", "remote_port", "state", "timer", "family"),
    *("tx_queue", "rx_queue", "bound_interface", "retransmits", "probes", "uid", "inode", "cookie"),
    *("bytes_sent", "bytes_received"),
)
_ROW = "16s16sHHBBBxIIIIIIQQ"
_row_records = struct.Struct(f"={_ROW}")
_change_records = struct.Struct(f"=QQIBBH{_ROW}QQ")
_details_records = struct.Struct("=8Q6I")
_stats_record = struct.Struct("=22QII7i4x")

RawChange = tuple[Any, ...]  # of CHANGE_FIELDS
SocketChange = tuple[int, int, int, int, int, Socket, Transferred | None]

_SIZES = {
    "pgs_row": _row_records,
    "pgs_change": _change_records,
    "pgs_details": _details_records,
    "pgs_scan_stats": _stats_record,
}
for _name, _record in _SIZES.items():
    if _record.size != ffi.sizeof(_name):
        raise ImportError(f"{_name} has {ffi.sizeof(_name)} bytes, this module was written for {_record.size}")

_V4_MAPPED = bytes(10) + b"\xff\xff"
_STATES = {int(state): state for state in TcpState}
SOURCES = {"auto": lib.PGS_AUTO, "procfs": lib.PGS_PROCFS, "sock_diag": lib.PGS_SOCK_DIAG}
EVENTS = {"auto": lib.PGS_EVENTS_AUTO, "always": lib.PGS_EVENTS_ALWAYS, "never": lib.PGS_EVENTS_NEVER}
_SOURCE_NAMES = {code: name for name, code in SOURCES.items()}

_REASONS = {
    lib.PGS_E_NOMEM: ("out of memory or file descriptors", "raise the limit of open files (ulimit -n)"),
    lib.PGS_E_OPEN: ("cannot be opened", "is /proc of the host mounted, and does the process still run?"),
    lib.PGS_E_READ: ("cannot be read", ""),
    lib.PGS_E_ARG: ("argument out of range", f"at most {lib.PGS_MAX_PORTS} ports of one namespace can be watched"),
    lib.PGS_E_EXISTS: ("in use already", "a namespace is watched once, and a sampler scans in one thread"),
    lib.PGS_E_NOENT: ("not watched", ""),
    lib.PGS_E_REFUSED: (
        "sock_diag is refused",
        "set receivers.sockets.source to auto; another network namespace takes CAP_SYS_ADMIN",
    ),
    lib.PGS_E_THREAD: ("no thread can be started", "raise the limit of processes (ulimit -u, pids.max)"),
}
_WITH_REASON = {lib.PGS_E_OPEN, lib.PGS_E_READ, lib.PGS_E_THREAD, lib.PGS_E_REFUSED}


class Step(IntEnum):
    """What one step in the caller's thread does (enum pgs_step of native/pgsonar.h)."""

    TICK = 0
    WALK = 1
    LOOKUP = 2
    DETAILS = 3


def _check(code: int, subject: str) -> int:
    """Passes on what is no error code."""
    if code >= 0:
        return code
    reason, hint = _REASONS[code]
    detail = f" ({os.strerror(ffi.errno)})" if code in _WITH_REASON else ""
    raise ScanError(f"{subject}: {reason}{detail}", hint)


@lru_cache(maxsize=4096)
def address_text(address: bytes) -> str:
    """16 bytes in network order as text; an IPv4-mapped address as IPv4."""
    if address.startswith(_V4_MAPPED):
        return inet_ntop(AF_INET, address[12:])
    return inet_ntop(AF_INET6, address)


def _socket(row: tuple[Any, ...]) -> Socket:
    local, remote, local_port, remote_port, state, timer, _, tx, rx, _, retransmits, probes, uid, inode, _ = row
    return Socket(
        Endpoint(address_text(local), local_port),
        Endpoint(address_text(remote), remote_port),
        _STATES[state],
        timer,
        tx,
        rx,
        retransmits,
        probes,
        uid,
        inode,
    )


def to_socket(change: RawChange) -> Socket:
    """The socket of a flat change."""
    return _socket(change[6:-2])


def _with_sockets(changes: Iterator[RawChange]) -> Iterator[SocketChange]:
    return (
        (*change[:5], _socket(change[6:-2]), Transferred(*change[-2:]) if change[5] else None) for change in changes
    )


def _ports(ports: Collection[int]) -> Any:
    for port in ports:
        if not 0 < port < 1 << 16:
            raise ScanError(f"port {port}: there is no such port")
    return ffi.new("uint16_t[]", sorted(set(ports)))


def _netns(netns: int) -> int:
    if not 0 <= netns < 1 << 32:
        raise ScanError(f"network namespace {netns}: its number must fit 32 bits")
    return netns


class Sampler:
    """Watches network namespaces from a thread of its own and tells what changed in them.

    One thread at a time may use one, except for stop() and what runs inside.
    """

    def __init__(self, interval: float, ring_capacity: int = 65536) -> None:
        """`interval` in seconds; the ring holds `ring_capacity` changes between two drains."""
        nanoseconds = round(interval * 1e9)
        if nanoseconds <= 0 or not 0 < ring_capacity < 1 << 32:
            raise ScanError(f"an interval of {interval} s and a ring of {ring_capacity} changes: both must be above 0")
        self._sampler = ffi.gc(lib.pgs_sampler_new(nanoseconds, ring_capacity), lib.pgs_sampler_free)
        if self._sampler == ffi.NULL:
            _check(lib.PGS_E_NOMEM, f"sampler of {ring_capacity} changes")
        self._changes = ffi.new("pgs_change **")
        self._stats = ffi.new("pgs_scan_stats *")
        self._snapshot_size = 1024

    def watch(
        self,
        netns: int,
        net_directory: str,
        ports: Collection[int],
        *,
        remote_too: bool = False,
        netns_file: str | None = None,
        source: str = "auto",
        events: str = "auto",
    ) -> None:
        """Watches the namespace whose `tcp`, `tcp6` and `snmp` lie in a directory, e.g. /proc/1234/net.

        No ports mean all. `netns_file`, e.g. /proc/1234/ns/net, is what another namespace is entered by, for sock_diag.
        """
        chosen = _ports(ports)
        path, file = os.fsencode(net_directory), ffi.NULL if netns_file is None else os.fsencode(netns_file)
        how = (SOURCES[source], EVENTS[events])
        code = lib.pgs_sampler_watch(self._open(), _netns(netns), path, file, *how, chosen, len(chosen), remote_too)
        _check(code, f"TCP sockets of {net_directory}")

    def set_ports(self, netns: int, ports: Collection[int], *, remote_too: bool = False) -> None:
        """Other ports from the next scan on; connections no longer covered are reported closed."""
        chosen = _ports(ports)
        code = lib.pgs_sampler_set_ports(self._open(), _netns(netns), chosen, len(chosen), remote_too)
        _check(code, f"network namespace {netns}")

    def unwatch(self, netns: int) -> None:
        """Forgets a namespace; its connections are lost from sight, not reported closed."""
        _check(lib.pgs_sampler_unwatch(self._open(), _netns(netns)), f"network namespace {netns}")

    def start(self) -> None:
        _check(lib.pgs_sampler_start(self._open()), "sampler")

    def stop(self) -> None:
        """Ends the thread after the scan under way; a sampler that does not run is left as it is."""
        _check(lib.pgs_sampler_stop(self._open()), "sampler")

    def step(self, step: Step) -> None:
        """Takes one step of every namespace, here and now; only while the thread does not run."""
        _check(lib.pgs_sampler_step(self._open(), step), "sampler")

    def scan(self) -> None:
        """Walks all sockets of every namespace, here and now; only while the thread does not run."""
        self.step(Step.WALK)

    def set_interval(self, seconds: float) -> None:
        _check(lib.pgs_sampler_set_interval(self._open(), max(0, round(seconds * 1e9))), f"interval of {seconds} s")

    def drain(self) -> Iterator[RawChange]:
        """The changes since the last call, the oldest first, as flat tuples of CHANGE_FIELDS."""
        count = lib.pgs_sampler_drain(self._open(), self._changes)
        return _unpack(self._changes[0], count)

    def changes(self) -> Iterator[SocketChange]:
        """drain(), as (connection, at, netns, kind, previous state, socket, bytes in all or None)."""
        return _with_sockets(self.drain())

    def snapshot(self, netns: int) -> Iterator[RawChange]:
        """Every connection of a namespace as flat tuples of kind OPENED.

        After lost changes it is the way back: it replaces what the ring still holds of that namespace.
        """
        while True:
            records = ffi.new("pgs_change[]", self._snapshot_size)
            code = lib.pgs_sampler_snapshot(self._open(), _netns(netns), records, self._snapshot_size)
            count = _check(code, f"network namespace {netns}")
            if count <= self._snapshot_size:
                return _unpack(records, count)
            self._snapshot_size = 2 * count

    def open_connections(self, netns: int) -> Iterator[SocketChange]:
        """snapshot(), in the shape of changes()."""
        return _with_sockets(self.snapshot(netns))

    def details(self, netns: int) -> dict[int, Details]:
        """What TCP_INFO told of the connections of a namespace, by their number; procfs has none."""
        while True:
            records = ffi.new("pgs_details[]", self._snapshot_size)
            code = lib.pgs_sampler_details(self._open(), _netns(netns), records, self._snapshot_size)
            count = _check(code, f"network namespace {netns}")
            if count <= self._snapshot_size:
                copy = ffi.buffer(records, count * _details_records.size)[:]
                return {record[0]: Details(*record[1:]) for record in _details_records.iter_unpack(copy)}
            self._snapshot_size = 2 * count

    def stats(self, netns: int) -> ScanStats:
        """The totals of a namespace; `max_gap` starts anew."""
        _check(lib.pgs_sampler_stats(self._open(), _netns(netns), self._stats), f"network namespace {netns}")
        return ScanStats(*_stats_record.unpack(ffi.buffer(self._stats)))

    def close(self) -> None:
        """Stops the thread and frees everything; may be called again."""
        if self._sampler is not None:
            ffi.release(self._sampler)
            self._sampler = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Any:
        if self._sampler is None:
            raise ScanError("the sampler is closed")
        return self._sampler


def source_name(code: int) -> str:
    """The name of ScanStats.source."""
    return _SOURCE_NAMES[code]


def _unpack(records: Any, count: int) -> Iterator[RawChange]:
    # One memcpy of 120 bytes a change: an iterator that is kept can then never read memory the scanner reuses.
    copy = ffi.buffer(records, count * _change_records.size)[:]
    return _change_records.iter_unpack(copy)


def read_table(net_directory: str, ports: Collection[int] = (), *, remote_too: bool = False) -> list[Socket]:
    """Reads the tables in a directory once. Without `ports` every socket is returned; a missing tcp6 is normal."""
    directory = Path(net_directory)
    sockets = parse((directory / "tcp").read_bytes(), 4, ports, remote_too=remote_too)
    try:
        text6 = (directory / "tcp6").read_bytes()
    except FileNotFoundError:  # a kernel without IPv6
        return sockets
    return sockets + parse(text6, 6, ports, remote_too=remote_too)


def read_listeners(process_directory: str) -> list[Socket]:
    """The listening sockets of the network namespace of a process, e.g. /proc/1234; its connections are not walked."""
    asked = _ask_once(process_directory, ())
    if asked is not None:
        return asked
    return [row for row in read_table(f"{process_directory}/net") if row.state == TcpState.LISTEN]


def read_connections(process_directory: str, ports: Collection[int]) -> list[Socket]:
    """The sockets of the network namespace of a process that have one of these ports at either end."""
    asked = _ask_once(process_directory, ports)
    return read_table(f"{process_directory}/net", ports, remote_too=True) if asked is None else asked


def _ask_once(process_directory: str, ports: Collection[int]) -> list[Socket] | None:
    """What sock_diag answers; None where it is refused, or there are too many ports to ask for."""
    chosen, size = _ports(ports), 256
    net_directory, netns_file = (os.fsencode(f"{process_directory}/{name}") for name in ("net", "ns/net"))
    while True:
        rows = ffi.new("pgs_row[]", size)
        count = lib.pgs_sockets(net_directory, netns_file, chosen, len(chosen), rows, size)
        if count < 0:
            return None
        if count <= size:
            return [_socket(row) for row in _row_records.iter_unpack(ffi.buffer(rows, count * _row_records.size)[:])]
        size = 2 * count


def parse(text: bytes, family: int, ports: Collection[int] = (), *, remote_too: bool = False) -> list[Socket]:
    """The sockets in the text of one table; `family` is 4 or 6. With `remote_too` a port may be at either end."""
    chosen = _ports(ports)
    capacity = text.count(b"\n")
    rows = ffi.new("pgs_row[]", capacity)
    result = ffi.new("pgs_parse_result *")
    lib.pgs_parse(ffi.from_buffer(text), len(text), family, chosen, len(chosen), remote_too, rows, capacity, result)
    return [_socket(row) for row in _row_records.iter_unpack(ffi.buffer(rows, result.rows * _row_records.size)[:])]
