"""Where something is missing: no processes to be seen (a sidecar), or no server on this host (a managed database)."""

import contextlib
import json
import subprocess
import time

import pytest

import needs
from majors import binaries
from pgsonar.demo.clients import WireClient
from playing import Agent, ask, killed_during, postgres

pytestmark = pytest.mark.live
APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]  # shares the network, sees no process


@pytest.fixture(scope="module")
def server():
    with postgres(16) as running:
        with contextlib.closing(WireClient(running.port, "postgres")) as admin:
            admin.execute("create role watcher login; grant pg_monitor to watcher; create role app login")
        yield running


@pytest.fixture
def sidecar():
    needs.root("to create pid namespaces")
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot be installed: the right to create pid namespaces")
    return APART


def scan(port, tmp_path, *more, before=(), login=""):
    targets = f"sockets: {{targets: [{{name: db, port: {port}, max_connections: 30}}]}}"
    return ask(tmp_path, "scan", f"{{{targets}{login}}}", *more, before=before)


def test_a_sidecar_sees_sockets_and_says_what_it_cannot_tell(server, sidecar, tmp_path):
    with contextlib.closing(WireClient(server.port, "app")):
        code, told = scan(server.port, tmp_path, "--format", "json", before=sidecar)
        _, text = scan(server.port, tmp_path, before=sidecar)

    assert code == 0
    told = json.loads(told)
    (known,) = told["servers"]
    assert (known["id"], known["pid"], known["port"]) == ("db", None, server.port)
    assert [row["state"] for row in told["connections"] if row["inode"]] == ["established"]
    (ledger,) = told["ledgers"]
    assert (ledger["used"], ledger["holders"]) == (None, None)
    assert any("shareProcessNamespace" in sentence for sentence in told["missing"])
    assert "SLOTS cannot be told" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_sidecar_with_a_login_tells_slots_by_sessions_joined_to_sockets(server, sidecar, tmp_path):
    login = f", postgresql: {{endpoint: '127.0.0.1:{server.port}', username: watcher}}"
    with contextlib.closing(WireClient(server.port, "app")) as client:
        client.execute("begin")
        _, told = scan(server.port, tmp_path, "--format", "json", before=sidecar, login=login)
        port, pid = client.port, client.backend_pid

    told = json.loads(told)
    (ledger,) = told["ledgers"]
    assert (ledger["used"], ledger["holders"]["session"]) == (2, 2)
    (row,) = [row for row in told["connections"] if row["remote_port"] == port]
    assert (row["backend_pid"], row["user"], row["activity"]) == (pid, "app", "idle in transaction")


def test_a_sidecar_finds_a_backend_whose_client_is_gone(server, sidecar, tmp_path):
    agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", before=sidecar)
    try:
        pid, port = killed_during(server.port, "select pg_sleep(30)")
        began = time.time()
        event = agent.wait_event("orphaned_backend", "opened", lambda told: told["client.port"] == port, 6)
        assert abs(event["attributes"]["pgsonar.leak.onset"] / 1e9 - began) < 1
        assert "pgsonar.not_seen" in event["attributes"]
        assert agent.points("pgsonar.slot.used") == []
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute(f"select pg_terminate_backend({pid})")
    finally:
        agent.process.kill()  # and with it what it unshared
        agent.process.wait()


def test_a_database_elsewhere_is_watched_by_its_login_alone(sidecar, tmp_path):
    """In another network and pid namespace, with no process and no socket of it to be seen."""
    with postgres(15, unix_socket_permissions="0777") as server:
        directory = server.data_directory.parent
        with contextlib.closing(WireClient(server.port, "postgres")) as client:
            client.execute("begin")
            login = f"{{postgresql: {{endpoint: '{directory}:{server.port}', username: postgres}}}}"
            code, told = ask(tmp_path, "scan", login, "--format", "json", before=[*sidecar, "--net"])
            pid = client.backend_pid

    assert code == 0
    told = json.loads(told)
    (known,) = told["servers"]
    assert (known["pid"], known["limit"], known["limit_source"], known["role"]) == (None, 30, "login", "primary")
    (ledger,) = told["ledgers"]
    assert (ledger["used"], ledger["unix"], ledger["gap"]) == (2, 1, None)
    activities = {row["backend_pid"]: row["activity"] for row in told["connections"]}
    assert activities[pid] == "idle in transaction"
    assert any("does not run on this host" in sentence for sentence in told["missing"])


def test_a_port_nobody_listens_on_is_no_server(sidecar, tmp_path):
    assert binaries(16)
    code, text = scan(1, tmp_path, before=sidecar)
    assert code == 1
    assert "the target db matches no running server" in text
