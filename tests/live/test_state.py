"""What is open survives a restart of the agent: the same ids, the same onset, one span in the end."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from pgsonar.daemon.storage import MIGRATIONS, NAME
from pgsonar.demo.clients import WireClient
from playing import STUCK_USER, Agent, environment, killed_during, postgres

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server():
    with postgres(16, authentication_timeout=600) as running:
        with contextlib.closing(WireClient(running.port, "postgres")) as admin:
            admin.execute(f"create role app login superuser; create role {STUCK_USER} login password 'x'")
        yield running


def started(folder, server, state):
    settings = (f"extensions.file_storage.directory={state}", "service.extensions=[file_storage]")
    target = f"[{{name: db, port: {server.port}}}]"
    return Agent(folder, target, settings=settings)


def leaking(server, stack):
    """Leaks of which a new agent could not tell since when they stand; ended by closing the stack."""
    over_tcp, over_unix = (
        stack.enter_context(contextlib.closing(WireClient(server.port, "app", host=host)))
        for host in ("127.0.0.1", str(server.data_directory.parent))
    )
    for client in (over_tcp, over_unix):
        client.execute("begin")
        client.execute("select 1")
    orphan, _ = killed_during(server.port, "select pg_sleep(600)")
    reset = WireClient(server.port, "app")
    reset.send_query("select generate_series(1, 100)")
    time.sleep(0.4)
    reset.send_query("select pg_sleep(600)")
    time.sleep(0.2)
    reset.reset()
    stuck = WireClient(server.port, STUCK_USER, login=False)
    stack.callback(stuck.socket.close)

    def end():
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute(f"select pg_terminate_backend({orphan}), pg_terminate_backend({reset.backend_pid})")

    stack.callback(end)


KINDS = {"idle_in_transaction", "orphaned_backend", "orphaned_backend_no_socket", "auth_stuck"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_open_leaks_go_on_with_the_same_ids(server, tmp_path, how):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as leaks:
        first = started(folders[0], server, tmp_path / "state")
        leaks.callback(first.process.kill)
        leaking(server, leaks)
        first.wait_for(lambda: {kind_of(e) for e in first.events(None, "opened")} >= KINDS, 15, "not all were opened")
        opened = {e["attributes"]["pgsonar.leak.id"]: e for e in first.events(None, "opened")}
        time.sleep(1)
        first.process.send_signal(how)
        first.process.wait(6)
        second = started(folders[1], server, tmp_path / "state")
        try:
            time.sleep(5)
            assert second.events(None, "opened") == second.events(None, "resolved") == []
            leaks.close()
            second.wait_for(lambda: len(second.events(None, "resolved")) == len(opened), 10, "not all have ended")
        finally:
            second.stop()
    ended = {e["attributes"]["pgsonar.leak.id"]: e for e in second.events(None, "resolved")}

    assert first.spans() == []
    assert ended.keys() == opened.keys()
    assert second.events(None, "opened") == []
    for number, event in ended.items():
        assert (event["traceId"], event["spanId"]) == (opened[number]["traceId"], opened[number]["spanId"])
        onset = opened[number]["attributes"]["pgsonar.leak.onset"]
        assert abs(event["attributes"]["pgsonar.leak.onset"] - onset) < 1e9
    assert {span["traceId"] for span in second.spans()} == {event["traceId"] for event in opened.values()}


def kind_of(event):
    return event["attributes"]["pgsonar.leak.kind"]


def run(state):
    command = [sys.executable, "-m", "pgsonar", "run", "--set", f"extensions.file_storage.directory={state}"]
    command += ["--set", "service.extensions=[file_storage]", "--set", "exporters.debug="]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=20, check=False)


def test_a_second_agent_in_the_same_directory_is_refused(server, tmp_path):
    agent = started(tmp_path, server, tmp_path / "state")
    refused = run(tmp_path / "state")
    agent.stop()

    assert refused.returncode == 2
    assert "another pgsonar uses" in refused.stderr
    assert "hint: each agent needs a directory of its own" in refused.stderr


def test_a_file_of_a_later_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / NAME
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    refused = run(tmp_path)

    assert refused.returncode == 2
    assert "hint: a later pgsonar wrote it" in refused.stderr
    assert path.read_bytes()[:16] == before[:16]
