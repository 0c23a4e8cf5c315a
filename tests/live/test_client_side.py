"""On the application's host: connections to databases, whose process holds them, and which of them are leaked there."""

import contextlib
import json
import subprocess
import sys
import time

import pytest

from pgsonar.demo.clients import WireClient
from playing import ask, environment, flat, postgres
from wire import DIALS, SERVER, SERVES, apart

pytestmark = pytest.mark.live
APPLICATION = """
import sys
from pgsonar.demo.clients import WireClient
held = [WireClient(int(sys.argv[1]), "app") for _ in range(3)]
print(*(client.backend_pid for client in held), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def world():
    """A server, and an application of which one session was ended by the server and never closed."""
    with postgres(16) as server, contextlib.closing(WireClient(server.port, "postgres")) as admin:
        admin.execute("create role app login")
        command = [sys.executable, "-c", APPLICATION, str(server.port)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        ) as application:
            first = int(application.stdout.readline().split()[0])
            admin.execute(f"select pg_terminate_backend({first})")
            time.sleep(0.3)
            yield server, application
            application.kill()


def receivers(server, side, address=None):
    target = f"{{port: {server.port}{f', address: {address}' if address else ''}}}"
    return f"{{sockets: {{side: {side}, targets: [{target}]}}}}"


def asked(command, server, tmp_path, side, *more, address=None):
    code, printed = ask(tmp_path, command, receivers(server, side, address), *more)
    assert code == 0, printed
    return printed


def test_connections_to_databases_are_seen_with_the_process_that_holds_them(world, tmp_path):
    server, application = world
    told = json.loads(asked("scan", server, tmp_path, "client", "--format", "json"))
    text = asked("scan", server, tmp_path, "client")

    assert (told["servers"], told["missing"]) == ([], [])
    mine = [row for row in told["connections"] if row["client"] and row["client"]["pid"] == application.pid]
    assert sorted(row["state"] for row in mine) == ["close_wait", "established", "established"]
    assert {row["side"] for row in told["connections"]} == {"client"}
    assert {row["remote_port"] for row in mine} == {server.port}
    assert {row["server"] for row in mine} == {f"127.0.0.1:{server.port}"}
    assert "closed by the database, kept open" in text
    assert max(map(len, text.splitlines())) <= 80


def test_applications_in_other_network_namespaces_of_the_host_are_watched_too(tmp_path):
    """As the pods of a node: neither end of this connection is in the namespace of the agent."""
    with apart(SERVES, DIALS) as (_, client):
        client.stdout.readline()
        receivers = "{sockets: {side: client, targets: [{port: 5432}]}}"
        _, printed = ask(tmp_path, "scan", receivers, "--format", "json")
        _, report = ask(tmp_path, "doctor", receivers)

    (row,) = [row for row in json.loads(printed)["connections"] if row["remote_address"] == SERVER]
    assert (row["client"]["pid"], row["state"], row["side"]) == (client.pid, "established", "client")
    assert "network namespaces of this host" in report


def test_a_database_is_called_as_the_target_calls_it(world, tmp_path):
    server, _ = world
    told = json.loads(asked("scan", server, tmp_path, "client", "--format", "json", address="localhost"))

    assert {row["server"] for row in told["connections"]} == {f"localhost:{server.port}"}


def test_both_sides_are_told_apart_in_one_namespace(world, tmp_path):
    server, _ = world
    told = json.loads(asked("scan", server, tmp_path, "both", "--format", "json"))
    keys = {side: {row["key"] for row in told["connections"] if row["side"] == side} for side in ("server", "client")}
    standing = {row["key"] for row in told["connections"] if row["state"] == "established"}

    assert keys["server"] & standing == keys["client"] & standing != set(), "both ends call it the same"

    standing = [row for row in told["connections"] if row["state"] == "established"]
    ends = {
        side: sorted(
            row["local_port" if side == "client" else "remote_port"] for row in standing if row["side"] == side
        )
        for side in ("server", "client")
    }
    assert len(ends["server"]) == 3
    assert ends["server"] == ends["client"]
    assert len(told["servers"]) == 1


def test_doctor_says_what_is_watched(world, tmp_path):
    server, _ = world
    text = " ".join(asked("doctor", server, tmp_path, "client").split())

    assert f"connections to port {server.port} are watched; 1 databases are connected to now" in text


def test_the_agent_counts_them_and_waits_for_no_server(world, tmp_path):
    server, _ = world
    out, log = tmp_path / "out.jsonl", tmp_path / "log"
    settings = [f"receivers={receivers(server, 'client')}", f"exporters.file.path={out}"]
    settings += ["service.telemetry.metrics.interval=1s"]
    command = [sys.executable, "-m", "pgsonar", "run", *(word for one in settings for word in ("--set", one))]
    with log.open("w") as file:
        agent = subprocess.Popen(command, stderr=file, env=environment())
    try:
        counts = {}
        end = time.monotonic() + 10
        while counts.get("close_wait") != 1 and time.monotonic() < end:
            time.sleep(0.3)
            counts = counted(out)
    finally:
        agent.terminate()
        assert agent.wait(6) == 0
    assert counts == {"established": 3, "close_wait": 1}
    assert "waiting for" not in log.read_text()


def counted(path):
    """By state, the last export of the client's side."""
    counts = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        points = [
            point
            for resource in json.loads(line).get("resourceMetrics", [])
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
            if metric["name"] == "pgsonar.connection.count"
            for point in metric["sum"]["dataPoints"]
        ]
        told = {flat(point["attributes"])["network.connection.state"]: int(point["asInt"]) for point in points}
        counts = told or counts
    return counts
