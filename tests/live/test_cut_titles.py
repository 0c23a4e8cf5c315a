"""Titles without room for all they would say, and names that nobody can take apart; on real servers."""

import contextlib
import json
import time

import pytest

from pgsonar.demo.clients import WireClient
from pgsonar.model import BackendKind
from pgsonar.sources.backends import BackendReader
from pgsonar.sources.processes import Processes
from playing import Agent, ask, finder, postgres

pytestmark = pytest.mark.live
MAJORS = [15, 16, 18]
BEFORE = len("postgres: ")


class Unprivileged(Processes):
    """What may be read of the processes of others."""

    def title_room(self, pid):
        return None

    def link(self, pid, name):
        return None


def only(port):
    (found,) = [server for server in finder().find() if server.port == port]
    return found


def sightings(server, processes):
    reader = BackendReader(processes)
    reader.read(server, at=1)  # one title tells the room of others
    seen = {sighting.pid: sighting.title for sighting in reader.read(server, at=2)}
    reader.forget(server)
    return seen


def names_for(room, after):
    """A role and a database so long that the cut falls so many bytes behind them."""
    database = "d" * (room - 59)
    return "r" * (room - BEFORE - len(f" {database}") - after), database


# Where the room ends, in bytes behind the database: ` 127.0.0.1(36190) idle in transaction`.
IDLE = 22
CUTS = {"database": -4, "host": 5, "port": 14, "activity": 21, "in transaction": 29, "all but one": 36}


@pytest.mark.parametrize("major", MAJORS)
def test_a_cut_title_holds_its_slot_and_is_never_a_worker_nor_busy(major, tmp_path):
    with postgres(major, superuser_reserved_connections=0) as server, contextlib.ExitStack() as stack:
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute("create role app_service_account login")
        with contextlib.closing(client(server, "app_service_account")) as twin:
            whole = sightings(only(server.port), Processes())
            assert (whole[twin.backend_pid].user, whole[twin.backend_pid].is_cut) == ("app_service_account", False)
            assert not any("titles are cut" in sentence for sentence in scanned(server, tmp_path)["missing"])

        server.stop()
        short = server.data_directory.parent / "i"
        short.symlink_to(server.binaries.parent)
        server.start(program=[str(short / "bin" / "postgres")], environment={})
        room = Processes().title_room(server.pid)
        pids = {}
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute(f"create database {names_for(room, 0)[1]}")
            role, database = names_for(room, IDLE)
            admin.execute(f"create role {role} login")
            with contextlib.closing(client(server, role, database)) as alone:
                alone.execute("begin")
                title = sightings(only(server.port), Processes())[alone.backend_pid]
                assert (title.is_cut, title.activity, title.text[-6:]) == (True, None, ") idle"), title
            for place, after in CUTS.items():
                role, database = names_for(room, after)
                admin.execute(f"create role {role} login")
                one = stack.enter_context(contextlib.closing(client(server, role, database)))
                one.execute("begin")
                pids[one.backend_pid] = place
        found = only(server.port)
        for processes in (Processes(), Unprivileged()):
            seen = sightings(found, processes)
            for pid, place in pids.items():
                title = seen[pid]
                assert title.is_cut, (place, title)
                assert title.kind in (BackendKind.CLIENT, BackendKind.UNKNOWN), (place, title)
                assert title.activity in (None, "idle in transaction"), (place, title)
            known = {place: seen[pid].activity for pid, place in pids.items()}
            assert known["in transaction"] == known["all but one"] == "idle in transaction"
            workers = [t for pid, t in seen.items() if pid not in pids and t.kind is not BackendKind.WORKER]
            assert not [title for title in workers if title.kind is not BackendKind.CLIENT]
        told = scanned(server, tmp_path)

    assert told["ledgers"][0]["used"] == len(CUTS)
    assert any("idle_leak cannot be told: its process titles are cut" in sentence for sentence in told["missing"])


def client(server, role, database="postgres"):
    return WireClient(server.port, role, database=database)


def scanned(server, tmp_path):
    _, told = ask(tmp_path, "scan", f"{{sockets: {{targets: [{{port: {server.port}}}]}}}}", "--format", "json")
    return json.loads(told)


@pytest.mark.parametrize("major", MAJORS)
def test_roles_with_blanks_are_two_identities_and_both_leaks_are_told(major, tmp_path):
    roles = ("Prod DB Readonly", "Stock (idle) walsender")
    with postgres(major, max_connections=120) as server, contextlib.ExitStack() as stack:
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute('create database "Sales DB"')
            for role in (*roles, "at rest"):
                admin.execute(f'create role "{role}" login')
        leaks = "idle_leak: {idle_after: 1s, window: 1s, min_members: 3}"
        for _ in range(4):  # a pool with such a name beside them
            stack.enter_context(contextlib.closing(client(server, "at rest", "Sales DB")))
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", leaks=leaks)
        try:
            opened = set()

            def both():
                time.sleep(0.2)
                for role in roles:
                    stack.enter_context(contextlib.closing(client(server, role, "Sales DB")))
                events = agent.events("idle_leak", "opened")
                opened.update(event["attributes"]["pgsonar.leak.identity"] for event in events)
                return len(opened) >= len(roles)

            agent.wait_for(both, 15, "not both leaks are told")
        finally:
            agent.stop()

    assert opened == {f"{role} Sales DB@127.0.0.1" for role in roles}
