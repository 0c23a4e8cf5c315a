"""What stands where a server's files should: pipes, devices, endless files, files that may not be read, and copies."""

import os
import resource
from pathlib import Path

import pytest

from pgsonar.config.schema import Target
from pgsonar.sources.backends import BackendReader
from pgsonar.sources.control_file import read_control_file
from pgsonar.sources.names import ProcessNames
from pgsonar.sources.processes import Processes
from pgsonar.sources.regular import RECORD_MOST, SETTINGS_MOST, read_regular
from pgsonar.sources.servers import ServerFinder

PRIMARY = (Path(__file__).parents[1] / "proc" / "pg_control" / "14.bin").read_bytes()


class Container:
    """One postmaster in a /proc of the tests' own, with a root directory of its own."""

    def __init__(self, folder, pid, port=5432):
        self.pid, self.process, self.root = pid, folder / "proc" / str(pid), folder / f"root{pid}"
        self.data = self.root / "data"
        (self.data / "global").mkdir(parents=True)
        (self.data / "global" / "pg_control").write_bytes(PRIMARY)
        (self.data / "postgresql.conf").write_text(f"port = {port}\n")
        (self.process / "task" / str(pid)).mkdir(parents=True)
        (self.process / "root").symlink_to(self.root)
        (self.process / "cwd").symlink_to("/data")
        for name, text in {
            "comm": "postgres\n",
            "cmdline": "/usr/bin/postgres\0",
            "stat": f"{pid} (postgres) S 1 {' '.join(['0'] * 17)} 500 {' '.join(['0'] * 10)}\n",
            "status": f"Uid:\t26\t26\t26\t26\nNSpid:\t{pid}\t1\n",
            f"task/{pid}/children": "",
        }.items():
            (self.process / name).write_text(text)


@pytest.fixture
def contained(tmp_path):
    return lambda pid, **how: Container(tmp_path, pid, **how)


@pytest.fixture
def find(tmp_path):
    def found(targets="auto"):
        processes = Processes(str(tmp_path / "proc"))
        finder = ServerFinder(
            processes,
            ProcessNames(processes),
            read_table=lambda _: [],
            read_listeners=lambda _: [],
            read_inodes=lambda _: None,
            targets=targets,
            hostname="h",
            host_id="m",
        )
        return finder.find()

    return found


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_only_a_regular_file_is_read(tmp_path, make):
    make(tmp_path / "it")

    with pytest.raises(OSError, match=r"not a regular|Is a directory"):
        read_regular(tmp_path / "it", 100)


def test_only_so_much_of_it_is_read(tmp_path):
    (tmp_path / "it").write_bytes(b"x" * 100)
    assert read_regular(tmp_path / "it", 100) == b"x" * 100

    (tmp_path / "it").write_bytes(b"x" * 101)
    with pytest.raises(OSError, match="longer than 100"):
        read_regular(tmp_path / "it", 100)


@pytest.mark.parametrize("name", ["postmaster.pid", "PG_VERSION", "postgresql.conf", "global/pg_control"])
def test_a_pipe_in_a_data_directory_holds_nothing_up(contained, find, name):
    server = contained(10)
    (server.data / name).unlink(missing_ok=True)
    os.mkfifo(server.data / name)

    (found,) = find()

    assert found.pid == 10
    if name == "postgresql.conf":
        assert "/data/postgresql.conf" in " ".join(found.missing)


def test_an_endless_settings_file_is_refused(contained, find):
    server = contained(10)
    (server.data / "postgresql.conf").write_bytes(b"#" * (SETTINGS_MOST + 1))

    (found,) = find()

    assert "/data/postgresql.conf" in " ".join(found.missing)
    assert read_control_file(server.data).system_identifier
    assert RECORD_MOST > 8192


def test_a_primary_and_its_standby_in_two_containers_have_keys_of_their_own(contained, find):
    for pid in (10, 11):
        contained(pid)

    first, second = find()

    assert first.id != second.id
    assert [server.id for server in find()] == [first.id, second.id], "looking again changes nothing"
    assert first.id.startswith(second.id.partition("#")[0]), "they share the system identifier and the path"


def test_a_containers_key_outlives_its_process(contained, find, tmp_path):
    before = contained(10)
    (key,) = (server.id for server in find())
    after = contained(12)
    os.rename(before.data, before.root / "moved")
    os.rename(after.data, after.root / "empty")
    os.rename(before.root / "moved", after.data)
    os.rename(before.process, tmp_path / "gone")

    assert [(server.pid, server.id) for server in find()] == [(12, key)]


def test_one_target_that_fits_two_servers_names_both_apart(contained, find, caplog):
    contained(10, port=5432)
    contained(11, port=5433)

    found = find([Target(name="orders", data_directory="/data")])

    assert [server.id for server in found] == ["orders#5432", "orders#5433"]
    assert [server.name for server in found] == ["orders", "orders"]
    assert "more than one server is orders" in caplog.text


def test_limits_are_a_guess_while_an_included_file_cannot_be_read(contained, find):
    server = contained(10)
    (server.data / "global" / "pg_control").unlink()
    (server.data / "postgresql.conf").write_text("max_connections = 50\ninclude 'extra.conf'\n")
    os.mkfifo(server.data / "extra.conf")

    (found,) = find()

    assert (found.limits.max_connections, found.limits.guessed) == (50, True)
    assert any("/data/extra.conf" in sentence for sentence in found.missing)


def test_descriptors_are_kept_for_half_of_what_may_be_opened(monkeypatch, tmp_path):
    for pid in range(20, 30):
        Container(tmp_path, pid)
    (tmp_path / "proc" / "20" / "task" / "20" / "children").write_text(" ".join(map(str, range(21, 30))))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (8, 8) if which == resource.RLIMIT_NOFILE else None)
    reader = BackendReader(Processes(str(tmp_path / "proc")))
    server = type("Server", (), {"id": "s", "pid": 20, "cluster_name": ""})()

    def kept():
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return sum(os.path.realpath(link).startswith(str(tmp_path)) for link in links)

    for at in (1, 2):
        assert {sighting.pid for sighting in reader.read(server, at=at)} == set(range(21, 30))
        assert kept() == 4
    reader.forget(server)
    assert kept() == 0
