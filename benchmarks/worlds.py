"""Network namespaces full of connections, made by the benchmarks themselves.

The rule: no setting of the host changes, and everything is gone when a world is left. The size of a namespace's socket
hash is inherited from the namespace that creates it (net.ipv4.tcp_child_ehash_entries), so a first one is entered, the
size set there, and a second one entered from it. The measuring process itself goes in: only then do /proc/self/net and
netlink, unprivileged, mean that namespace.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EHASH = 262144  # what a host with 32 GB has
PAIRS_OF_ONE = 9000  # two descriptors each, of the 20000 that are often the limit
CLONE_NEWNET = 0x40000000
CHILD_EHASH = Path("/proc/sys/net/ipv4/tcp_child_ehash_entries")
HEADER = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode".ljust(149)
libc = ctypes.CDLL(None, use_errno=True)


@cache
def built(kind: str) -> str:
    """native/world.c as a program or a library, in build/."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler")
    target = HERE.parent / "build" / "benchmarks" / f"world.{kind}"
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-fPIC"] if kind == "so" else []
    source = HERE / "native" / "world.c"
    subprocess.run([compiler, "-O2", "-D_GNU_SOURCE", *flags, "-o", target, source], check=True)
    return str(target)


@cache
def floor_library() -> ctypes.CDLL:
    library = ctypes.CDLL(built("so"))
    for name in ("floor_of", "dump_of", "read_to_end", "walk_descriptors"):
        getattr(library, name).restype = ctypes.c_long
    return library


def unshare_network() -> None:
    if libc.unshare(CLONE_NEWNET):
        pytest.skip(f"a network namespace of its own is refused here: {os.strerror(ctypes.get_errno())}")


def return_to(network: int) -> None:
    if libc.setns(network, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot return to the host's network namespace")


@contextmanager
def namespace(ehash: int = EHASH) -> Iterator[None]:
    """This process in a fresh network namespace with so many buckets; back again afterwards."""
    with ExitStack() as undo:
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, own)
        unshare_network()
        undo.callback(return_to, own)
        if not CHILD_EHASH.exists():
            pytest.skip("needs a kernel that gives a namespace a socket hash of its own (6.1)")
        CHILD_EHASH.write_text(str(ehash), encoding="ascii")
        unshare_network()
        granted = int(Path("/proc/sys/net/ipv4/tcp_ehash_entries").read_text(encoding="ascii"))
        if granted != ehash:  # negative where the table is shared with the host, which is what no memory comes to
            pytest.skip(f"asked for a socket hash of {ehash} buckets, got {granted}")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield


@contextmanager
def talking(command: list[str]) -> Iterator[str]:
    """A process that says one line and stays until its input ends; the line."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline()
        finally:
            process.stdin.close()


@contextmanager
def rows(count: int, wanted: float, ehash: int = EHASH) -> Iterator[None]:
    """A namespace with `count` rows, both ends of a connection counted, of which a share touches port 5432."""
    pairs = count // 2
    with namespace(ehash), ExitStack() as holders:
        number = 0
        while pairs:
            number += 1
            held = min(pairs, PAIRS_OF_ONE)
            command = [built("run"), "holder", str(held), str(round(held * wanted)), str(number)]
            assert holders.enter_context(talking(command)) == "ready\n"
            pairs -= held
        yield


def say(text: str) -> None:
    """Long work shows progress."""
    sys.stderr.write(f"  {text}\n")


def write_rows(directory, unread):
    """A kernel's table of a thousand rows, with so many bytes unread in each."""
    row = b"%4d: 0100007F:1538 0100007F:%04X 01 00000000:%08X 02:000AFC80 00000000   101        0 %d 1"
    lines = [HEADER, *(row % (number, 20000 + number, unread, number + 1) for number in range(1000))]
    (directory / "tcp").write_bytes(b"".join(line.ljust(149) + b"\n" for line in lines))
