"""Which sockets a process has open: by the learned descriptor, by the whole list, and by what a privilege allows."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pgsonar.sources import owners
from pgsonar.sources.owners import OwnerReader


@pytest.fixture
def proc(tmp_path):
    """A /proc whose processes are made of links, as {descriptor: target}."""

    def add(pid, links):
        directory = tmp_path / str(pid) / "fd"
        directory.mkdir(parents=True)
        for descriptor, target in links.items():
            (directory / str(descriptor)).symlink_to(target)
        return str(tmp_path)

    return add


def inode_of(opened):
    return os.fstat(opened.fileno()).st_ino


def test_the_sockets_of_a_process_are_listed_and_nothing_else(proc):
    root = proc(10, {0: "/dev/null", 1: "pipe:[5]", 8: "anon_inode:[eventpoll]", 9: "socket:[77]", 12: "socket:[78]"})

    assert sorted(OwnerReader(root).inodes(10, postmaster=1, first_only=False)) == [77, 78]


def test_the_descriptor_of_the_last_backend_is_enough_for_the_next(proc):
    proc(10, {0: "/dev/null", 9: "socket:[77]"})
    root = proc(11, {5: "socket:[1]", 9: "socket:[88]"})
    reader = OwnerReader(root)

    assert reader.inodes(10, postmaster=1) == (77,)
    assert reader.inodes(11, postmaster=1) == (88,)
    assert sorted(reader.inodes(11, postmaster=2)) == [1, 88]


def test_a_backend_with_its_client_elsewhere_is_searched_and_learned(proc):
    proc(10, {9: "socket:[77]"})
    proc(11, {9: "pipe:[5]", 14: "socket:[88]"})
    root = proc(12, {3: "socket:[1]", 14: "socket:[99]"})
    reader = OwnerReader(root)
    reader.inodes(10, postmaster=1)

    assert reader.inodes(11, postmaster=1) == (88,)
    assert reader.inodes(12, postmaster=1) == (99,)


def test_what_was_learned_of_a_gone_postmaster_is_forgotten(proc):
    proc(10, {9: "socket:[77]"})
    root = proc(11, {5: "socket:[1]", 9: "socket:[88]"})
    reader = OwnerReader(root)
    reader.inodes(10, postmaster=1)
    reader.forget(1)

    assert sorted(reader.inodes(11, postmaster=1)) == [1, 88]


def test_a_process_without_sockets_owns_nothing(proc):
    reader = OwnerReader(proc(10, {0: "/dev/null"}))

    assert reader.inodes(10, postmaster=1) == ()
    assert (reader.refused, reader.vanished) == (0, 0)


def test_a_vanished_process_owns_nothing_and_is_counted(tmp_path):
    reader = OwnerReader(str(tmp_path))

    assert reader.inodes(10, postmaster=1) == ()
    assert (reader.refused, reader.vanished) == (0, 1)


def test_more_sockets_than_a_backend_ever_has_are_all_listed(proc):
    count = 5 * len(OwnerReader()._inodes)
    root = proc(10, {descriptor: f"socket:[{1000 + descriptor}]" for descriptor in range(count)})

    assert set(OwnerReader(root).inodes(10, postmaster=1)) == set(range(1000, 1000 + count))


def test_a_real_process_shows_the_inode_of_its_socket():
    with socket.socket() as opened:
        assert inode_of(opened) in OwnerReader().inodes(os.getpid(), postmaster=1, first_only=False)


ASK = """
import sys
from pgsonar.sources.owners import OwnerReader
print(OwnerReader().inodes(int(sys.argv[1]), postmaster=1))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
@pytest.mark.parametrize(
    ("capabilities", "is_allowed"),
    [
        ("-all", False),
        ("-all,+dac_read_search", False),
        ("-all,+sys_ptrace", True),  # through fdinfo: the links need another capability too
        ("-all,+sys_ptrace,+dac_read_search", True),
    ],
)
def test_a_process_of_another_user_is_open_to_who_may_trace(capabilities, is_allowed):
    agent = str(Path(owners.__file__).parents[2])
    with socket.socket() as opened:
        sleeper = subprocess.Popen(["sleep", "600"], stdin=opened, user=65534, group=65534, extra_groups=[])
    try:
        told = subprocess.run(
            ["setpriv", f"--bounding-set={capabilities}", sys.executable, "-c", ASK, str(sleeper.pid)],
            env={**os.environ, "PYTHONPATH": agent},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        inode = Path(f"/proc/{sleeper.pid}/fd/0").readlink().name.removeprefix("socket:[").removesuffix("]")
    finally:
        sleeper.kill()
        sleeper.wait()

    assert told == (f"({inode},)" if is_allowed else "None")
