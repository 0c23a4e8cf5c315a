"""The same job by what a user would otherwise run: state, both ends and inode of every socket, 10000 rows, 1 % wanted.

CPU of a filtered dump, and of lookups of all known, over that of the peer. A peer that is missing is told as skipped.
Those that also find owners (`-p`, `net_connections`) have few processes with descriptors to look through here.
"""

import shutil

import psutil
import pytest
from pairs import compare, cpu_of, cpu_of_command
from parsers import read_by_slices, read_plainly
from test_scan import sampler, walk
from worlds import rows, say

from pgsonar.sources.sockets import Step

GAWK = (
    """FNR > 1 { key = $2 " " $3; now[key] = $4 " " $10; if (was[key] != now[key]) changed++ } END { print changed }"""
)


def psutil_without_pids():
    """psutil's own parser of the table, without its walk over all descriptors."""
    inner = psutil._pslinux.NetConnections()
    inner._procfs_path = "/proc"
    found = list(inner.process_inet("/proc/self/net/tcp", 2, 1, {}))
    return found + list(inner.process_inet("/proc/self/net/tcp6", 10, 1, {}))


def in_python(read):
    known = {"seen": read(type(read({} if read is read_plainly else set())[0])())[0]}

    def work():
        known["seen"], _ = read(known["seen"])

    return lambda: cpu_of(work)


def command(*words):
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not here")
    return lambda: cpu_of_command(list(words))


# Name, how it is run, and how many times dearer than a dump it should be (None: no goal).
PEERS = {
    "ss -Htan": (lambda: command("ss", "-Htan"), 10),
    "psutil without pids": (lambda: lambda: cpu_of(psutil_without_pids), 30),
    "ss -Htanp": (lambda: command("ss", "-Htanp"), 60),
    "psutil.net_connections": (lambda: lambda: cpu_of(lambda: psutil.net_connections("tcp")), 80),
    "gawk": (lambda: command("gawk", GAWK, "/proc/self/net/tcp"), None),
    "plain Python": (lambda: in_python(read_plainly), None),
    "best Python": (lambda: in_python(read_by_slices), None),
}


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_beside_a_dump(goals, name):
    make, times = PEERS[name]
    say(name)
    with rows(10_000, 0.01), sampler("sock_diag") as netlink:
        ratio = compare(walk(netlink), make(), goals.pairs(31))
    goals.ratio(f"dump / {name}", ratio, 1 / times if times else 1.0)


def test_lookups_beside_psutil(goals):
    with rows(10_000, 0.01), sampler("sock_diag") as netlink:
        lookups = lambda: cpu_of(lambda: netlink.step(Step.LOOKUP), 5)  # noqa: E731 - named where it is used
        ratio = compare(lookups, lambda: cpu_of(lambda: psutil.net_connections("tcp")), goals.pairs(31))
    goals.ratio("lookups / psutil.net_connections", ratio, 1 / 800)
