"""Servers are found by themselves: real ones, and the odd ones on a /proc of the tests' own."""

import contextlib
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pgsonar.config.schema import Target
from pgsonar.demo.clients import WireClient
from pgsonar.model import BackendKind, Endpoint, Socket, TcpState
from pgsonar.sources.backends import BackendReader
from pgsonar.sources.processes import Processes, voluntary_switches
from playing import finder, postgres


def with_port(found, port):
    return [server for server in found if server.port == port]


@pytest.mark.live
def test_a_server_is_found_with_all_that_can_be_read():
    with postgres(16) as server:
        pid = server.pid
        (found,) = with_port(finder().find(), server.port)

    assert (found.pid, found.version, found.role, found.port_guessed) == (pid, "16", "primary", False)
    assert found.data_directory == str(server.data_directory)
    assert (found.limits.max_connections, found.limits.ceiling, found.limits.source) == (30, 27, "pg_control")
    assert found.netns == os.stat("/proc/self/ns/net").st_ino
    assert found.missing == ()


@pytest.mark.live
def test_the_running_limit_is_told_also_where_it_was_given_on_the_command_line_and_a_restart_keeps_the_key():
    with postgres(16) as server:
        watch = finder()
        (before,) = with_port(watch.find(), server.port)
        server.stop()
        assert with_port(watch.find(), server.port) == []
        server.start("-c", "max_connections=41", "-c", "superuser_reserved_connections=1")
        (after,) = with_port(watch.find(), server.port)

    assert (after.limits.max_connections, after.limits.ceiling) == (41, 40)
    assert before.id == after.id
    assert before.pid != after.pid


@pytest.mark.live
def test_several_servers_are_told_apart_and_targets_choose_among_them():
    with postgres(16) as one, postgres(18, listen_addresses="", cluster_name="other/main") as other:
        both = finder().find()
        assert {one.port, other.port} <= {server.port for server in both}
        (chosen,) = with_port(both, other.port)
        assert (chosen.version, chosen.cluster_name) == ("18", "other/main")

        by = finder(
            targets=[
                Target(name="a", port=one.port, cluster="c1", max_connections=5),
                Target(name="b", data_directory=f"{other.data_directory}/"),
                Target(name="nobody", port=1),
            ]
        )
        named = {server.name: server for server in by.find()}

    assert {name: server.port for name, server in named.items()} == {"a": one.port, "b": other.port}
    assert (named["a"].id, named["a"].attributes) == ("a", (("cluster", "c1"),))
    assert named["a"].limits.max_connections == 30, "what runs is believed before what is configured"
    assert [target.name for target in by.unmatched()] == ["nobody"]


def asleep(pid):
    """Whether process `pid` waits (state S of proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def of_proc():
    """Our descriptors of files of /proc; sockets are other tests', and go when they are collected."""
    links = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    return sorted(link for link in links if link.startswith("/proc/") and ":" not in link)


@pytest.mark.live
def test_sessions_are_read_with_their_titles_and_no_descriptor_is_left_open():
    with postgres(16) as server:
        (found,) = with_port(finder().find(), server.port)
        reader = BackendReader(Processes())
        reader.read(found, at=1)
        before = of_proc()
        clients = [WireClient(server.port, "postgres") for _ in range(10)]
        clients[0].execute("begin")
        while not asleep(clients[0].backend_pid):  # it answers before it waits for the next command: one switch later
            pass
        sessions = [s for s in reader.read(found, at=2) if s.title.kind is BackendKind.CLIENT]
        later = reader.read(found, at=3)
        again = {s.pid: s.switches for s in later if s.title.activity == "idle in transaction"}
        idle_again = {s.switches for s in later if s.title.activity == "idle"}
        for client in clients:
            client.close()
        while any(s.title.kind is BackendKind.CLIENT for s in reader.read(found, at=4)):
            pass
        after = of_proc()

    assert {s.pid for s in sessions} == {client.backend_pid for client in clients}
    assert {s.title.port for s in sessions if s.title.activity == "idle in transaction"}
    open_one = next(s for s in sessions if s.title.activity == "idle in transaction")
    assert again == {open_one.pid: open_one.switches}
    assert all(s.switches is not None for s in sessions if s.title.activity == "idle")
    assert idle_again == {None}, "of idle sessions they are read now and then"
    assert after == before


class Tree:
    """A /proc of the tests' own."""

    def __init__(self, root: Path):
        self.root = root

    def add(
        self, pid, *, comm="postgres", parent=1, cmdline=b"/usr/lib/postgresql/15/bin/postgres\0", children=(), uid=26
    ):
        folder = self.root / str(pid)
        (folder / "task" / str(pid)).mkdir(parents=True)
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "cmdline").write_bytes(cmdline)
        numbers = [str(parent), *["0"] * 17, "500", *["0"] * 10]
        (folder / "stat").write_text(f"{pid} ({comm}) S {' '.join(numbers)}\n")
        (folder / "status").write_text(
            f"Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{pid}\t7\n"
            "voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t99\n"
        )
        (folder / "task" / str(pid) / "children").write_text("".join(f"{child} " for child in children))


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def listening(port, uid=26):
    return Socket(Endpoint("10.0.0.1", port), Endpoint("0.0.0.0", 0), TcpState.LISTEN, 0, 0, 0, 0, 0, uid, 5)


def found_on(tree, *rows, targets="auto"):
    return finder(Processes(str(tree.root)), lambda directory: list(rows), targets).find()


def test_children_and_programs_that_serve_nobody_are_no_servers(tree):
    tree.add(10, children=[11])
    tree.add(11, parent=10, cmdline=b"postgres: checkpointer \0")
    tree.add(12, cmdline=b"postgres\0--single\0-D\0/x\0")
    tree.add(13, cmdline=b"postgres\0-C\0max_connections\0")
    tree.add(14, comm="bash", cmdline=b"bash\0postgres\0")
    tree.add(15, comm="a) (b", cmdline=b"x\0")

    assert [server.pid for server in found_on(tree)] == [10]


def test_among_several_ports_of_one_user_most_clients_in_the_titles_decide(tree):
    clients = [f"postgres: app shop 10.0.0.7({port}) idle".encode() for port in (40001, 40002, 40003)]
    tree.add(10, children=[11, 12, 13])
    for pid, title in zip((11, 12, 13), clients, strict=True):
        tree.add(pid, parent=10, cmdline=title)

    def row(local, remote, inode=7):
        ends = Endpoint("10.0.0.1", local), Endpoint("10.0.0.7", remote)
        return Socket(*ends, TcpState.ESTABLISHED if inode else TcpState.TIME_WAIT, 2, 0, 0, 0, 0, 26, inode)

    own = [row(5433, port) for port in (40001, 40002, 40003)]
    # The same client is at the other server with one of these ports, and was there with all of them.
    other = [row(5432, 40001), *(row(5432, port, inode=0) for port in (40002, 40003))]
    (server,) = found_on(tree, listening(5432), listening(5433), *other, *own)

    assert (server.port, server.port_guessed) == (5433, True)


def test_without_access_the_port_is_that_of_the_only_listener_of_its_user_and_a_guess(tree):
    tree.add(10)
    (server,) = found_on(tree, listening(5433), listening(22, uid=0))

    assert (server.port, server.port_guessed, server.address, server.version) == (5433, True, "10.0.0.1", "15")
    assert server.limits.max_connections is None
    assert "run as the postgres user" in server.missing[0]


def test_among_several_listeners_the_titles_tell_the_port(tree):
    tree.add(10, children=[11])
    tree.add(11, parent=10, cmdline=b"postgres: app shop 10.0.0.7(40000) idle\0")
    session = listening(5433)._replace(remote=Endpoint("10.0.0.7", 40000), state=TcpState.ESTABLISHED)
    (server,) = found_on(tree, listening(6432), listening(5433), session)

    assert (server.port, server.port_guessed) == (5433, True)


def test_a_limit_that_cannot_be_read_can_be_configured(tree):
    tree.add(10)
    (server,) = found_on(tree, listening(5433), targets=[Target(port=5433, max_connections=200)])

    assert (server.limits.max_connections, server.limits.ceiling, server.limits.source) == (200, 197, "configured")


def test_the_command_line_tells_port_and_limit_without_any_privilege(tree):
    tree.add(10, cmdline=b"postgres\0-p\x005444\0-c\0max_connections=50\0")
    (server,) = found_on(tree)

    assert (server.port, server.port_guessed) == (5444, False)
    assert (server.limits.max_connections, server.limits.source) == (50, "command line")


def test_children_are_searched_for_where_the_kernel_keeps_no_list(tree):
    tree.add(10)
    tree.add(11, parent=10)
    (tree.root / "10" / "task" / "10" / "children").unlink()

    assert Processes(str(tree.root)).children(10) == [11]


def test_a_file_longer_than_a_page_is_read_whole():
    """The kernel hands such files out page by page: a thousand children do not fit one."""
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            for end in socket.socketpair():
                stack.enter_context(end)
        lines = Processes().read(os.getpid(), "net/unix").splitlines()

    assert len(lines) > 300


def test_a_program_executed_under_a_known_pid_is_found_at_the_third_look_at_the_latest(tree):
    tree.add(10, comm="bash", cmdline=b"bash\0entrypoint\0")
    looking = finder(Processes(str(tree.root)), lambda _: [])
    assert looking.find() == []
    (tree.root / "10" / "comm").write_text("postgres\n")
    (tree.root / "10" / "cmdline").write_bytes(b"postgres\0")

    assert [server.pid for _ in range(3) for server in looking.find()][:1] == [10]


def test_a_process_that_has_gone_is_nothing(tree):
    processes = Processes(str(tree.root))

    assert (processes.stat(9), processes.comm(9), processes.cmdline(9), processes.uid(9)) == (None, "", b"", None)
    assert processes.children(9) == []


def test_numbers_of_a_process_are_read_past_a_hostile_name(tree):
    tree.add(10, comm="x) S 99 (y", parent=3)
    processes = Processes(str(tree.root))

    assert processes.stat(10).parent == 3
    assert processes.stat(10).started == 500 * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert processes.pids_in_namespaces(10) == [10, 7]
    assert voluntary_switches(processes.read(10, "status")) == 12
    assert voluntary_switches(b"Name:\tx\n") is None


POSTGRES = b"/opt/edb/bin/edb-postgres\0-D\0/data\0"
TITLES = (b"postgres: checkpointer \0", b"postgres: background writer \0", b"postgres: walwriter \0")


def started(tree, postmaster=10, comm="edb-postgres", cmdline=POSTGRES, parent=1):
    """A postmaster and its first children."""
    children = range(postmaster + 1, postmaster + 1 + len(TITLES))
    tree.add(postmaster, comm=comm, cmdline=cmdline, parent=parent, children=children)
    for pid, title in zip(children, TITLES, strict=True):
        tree.add(pid, comm=comm, cmdline=title, parent=postmaster)


@pytest.mark.parametrize("comm", ["edb-postgres", ".postgres-wrappe", "gpdb-seg0", "a) (b", "postgres"])
def test_a_server_is_told_by_the_titles_of_its_children_whatever_it_is_called(tree, comm):
    started(tree, comm=comm)
    tree.add(30, comm=comm, cmdline=POSTGRES, parent=10)  # a fresh fork

    assert [server.pid for server in found_on(tree)] == [10]


def test_programs_that_fork_and_are_no_server_are_none(tree):
    tree.add(20, comm="nginx", cmdline=b"nginx: master\0")
    for pid in (21, 22, 23):
        tree.add(pid, comm="nginx", cmdline=b"nginx: worker\0", parent=20)

    assert found_on(tree) == []


@pytest.mark.parametrize("comm", ["postgres", "bash"])
def test_a_wrapper_that_stays_before_the_server_is_none(tree, comm):
    tree.add(5, comm=comm, cmdline=b"/bin/bash\0/usr/local/bin/postgres\0", children=[10])
    started(tree, comm="postgres", parent=5)

    assert [server.pid for server in found_on(tree)] == [10]


def test_a_server_that_a_wrapper_has_just_started_is_found_before_it_has_children(tree):
    tree.add(5, cmdline=b"/bin/bash\0/usr/local/bin/postgres\0", children=[10])
    tree.add(10, parent=5)

    assert [server.pid for server in found_on(tree)] == [10]


def test_a_server_started_from_a_session_of_another_is_found_too(tree):
    started(tree, comm="postgres")
    tree.add(14, parent=10, cmdline=b"postgres: app shop [local] COPY\0", children=[20])
    started(tree, 20, comm="postgres", parent=14, cmdline=b"postgres\0-D\0/other\0")

    assert [server.pid for server in found_on(tree)] == [10, 20]


def runs(tree, pid, program):
    file = tree.root / f"program-{program}"
    file.touch()
    (tree.root / str(pid) / "exe").symlink_to(file)


def adopting(tree, *, is_readable):
    """A postmaster that is the first process of a container, two clients, and what it was given."""
    cmdline = b"postgres\0"
    tree.add(10, cmdline=cmdline, children=[11, 12, 13, 14, 15])
    tree.add(11, parent=10, cmdline=b"postgres: app shop 10.0.0.7(40001) idle\0")
    tree.add(12, parent=10, cmdline=cmdline)
    tree.add(13, parent=10, comm="sleep", cmdline=b"sleep\x003600\0")
    tree.add(14, parent=10, comm="sleep", cmdline=b"sleep\x003600\0")
    tree.add(15, parent=10, comm="pg_isready", cmdline=b"postgres: app shop [local] idle\0" if is_readable else b"x\0")
    if is_readable:
        for pid, program in ((10, "pg"), (11, "pg"), (12, "pg"), (13, "sleep"), (14, "sleep"), (15, "other")):
            runs(tree, pid, program)


@pytest.mark.parametrize("is_readable", [True, False], ids=["programs can be read", "they cannot"])
def test_what_a_postmaster_has_only_been_given_is_no_backend_and_is_named(tree, is_readable):
    adopting(tree, is_readable=is_readable)
    (server,) = found_on(tree)
    reader = BackendReader(Processes(str(tree.root)))
    kinds = {s.pid: s.title.kind for s in reader.read(server, at=1)}

    assert kinds == {11: BackendKind.CLIENT, 12: BackendKind.PRESTARTUP}
    (note,) = server.notes
    assert "another program hold no slot: 2 sleep, 1 pg_isready (" in note


def test_a_process_of_another_user_is_no_backend_whatever_it_says_it_runs(tree, monkeypatch):
    """In a mount namespace of its own anybody has any file at any path."""
    tree.add(10, cmdline=b"postgres\0", children=[11])
    tree.add(11, parent=10, cmdline=b"postgres: app shop [local] idle\0")
    for pid in (10, 11):
        runs(tree, pid, "pg")
    (server,) = found_on(tree)
    processes = Processes(str(tree.root))
    assert [s.pid for s in BackendReader(processes).read(server, at=1)] == [11]

    monkeypatch.setattr(processes, "owner", {10: 26, 11: 1000}.get)

    assert BackendReader(processes).read(server, at=1) == []


def test_a_child_that_executes_another_program_is_no_backend_any_more(tree):
    tree.add(10, cmdline=b"postgres\0", children=[11])
    tree.add(11, parent=10, cmdline=b"postgres\0")
    (server,) = found_on(tree)
    reader = BackendReader(Processes(str(tree.root)))
    assert [s.title.kind for s in reader.read(server, at=1)] == [BackendKind.PRESTARTUP]

    (tree.root / "11" / "comm").write_text("sh\n")
    (tree.root / "11" / "cmdline").write_bytes(b"sh\0-c\0cat /secret\0")

    assert reader.read(server, at=2) == []


def test_backends_forked_after_the_program_was_upgraded_are_its_own(tree):
    tree.add(10, cmdline=b"postgres\0", children=[11, 12])
    for pid in (11, 12):
        tree.add(pid, parent=10, cmdline=b"postgres: app shop [local] idle\0")
    runs(tree, 10, "pg")
    runs(tree, 11, "pg")
    (tree.root / "12" / "exe").symlink_to(f"{tree.root}/program-pg (deleted)")  # as the kernel writes it then
    (server,) = found_on(tree)

    assert [s.pid for s in BackendReader(Processes(str(tree.root))).read(server, at=1)] == [11, 12]


def test_a_postmaster_whose_children_have_all_ended_is_one_still(tree):
    cmdline = b"/usr/lib/postgresql/15/bin/postgres\0"
    tree.add(10, cmdline=cmdline, children=[11, 12])
    for pid in (11, 12):  # zombies: nobody has waited for them yet
        tree.add(pid, parent=10, cmdline=b"")

    assert [server.pid for server in found_on(tree)] == [10]


def test_a_server_without_strangers_has_no_note(tree):
    started(tree)

    assert [server.notes for server in found_on(tree)] == [()]


def test_titles_read_before_the_cluster_name_was_known_are_read_again(tree):
    tree.add(10, children=[11])
    tree.add(11, parent=10, cmdline=b"postgres: 15/main: app shop 10.0.0.7(40001) idle" + bytes(20))
    (server,) = found_on(tree)
    reader = BackendReader(Processes(str(tree.root)))
    (before,) = reader.read(server, at=1)
    (after,) = reader.read(replace(server, cluster_name="15/main"), at=2)
    (still,) = reader.read(replace(server, cluster_name="15/main"), at=3)

    assert (before.title.user, after.title.user, after.title.database) == (None, "app", "shop")
    assert still.title is after.title


def test_the_cluster_name_is_taken_from_the_command_line_where_titles_are_too_short_to_tell_it(tree):
    tree.add(10, cmdline=b"postgres\0-c\0cluster_name=15/main\0", children=[11])
    tree.add(11, parent=10, cmdline=b"postgres: 15/main: checkpoi\0\0")
    (server,) = found_on(tree)

    assert server.cluster_name == "15/main"


def test_one_title_that_was_cut_tells_the_room_of_all_that_are_as_long(tree):
    """Nobody may read the room here, and `idle` alone may be a transaction's."""
    longer = [b"postgres: app shop 10.0.0.7(40001) idle", b"postgres: apps shop 10.0.0.7(40001) idl"]
    tree.add(10, cmdline=b"postgres\0", children=[11, 12])
    for pid, title in zip((11, 12), longer, strict=True):
        tree.add(pid, parent=10, cmdline=title + b"\0")
    (server,) = found_on(tree)
    reader = BackendReader(Processes(str(tree.root)))
    told = [[(s.title.activity, s.title.is_cut) for s in reader.read(server, at=look)] for look in (1, 2)]

    assert told == [[("idle", False), (None, True)], [(None, True), (None, True)]]

    (tree.root / "12" / "cmdline").write_bytes(b"postgres: apps shop 10.0.0.7(40001) idle in transaction\0")
    reader.read(server, at=3)  # a longer one: it was not the room
    assert [(s.title.activity, s.title.is_cut) for s in reader.read(server, at=4)] == [
        ("idle", False),
        ("idle in transaction", False),
    ]


def test_the_room_of_a_title_is_that_of_arguments_and_environment(tree):
    tree.add(10)
    numbers = ["0"] * 50
    numbers[44:48] = ["1000", "1060", "1060", "1100"]
    (tree.root / "10" / "stat").write_text(f"10 (x) S {' '.join(numbers)}\n")
    tree.add(11)
    processes = Processes(str(tree.root))

    assert processes.title_room(10) == 98
    assert processes.title_room(11) is None
    assert processes.title_room(12) is None
