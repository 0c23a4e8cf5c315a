"""What the plays do not show of leaks on a real PostgreSQL: what came before, what they lead to, what is said of them.

Thresholds are two seconds; an onset may be off by one second, an event may come three seconds after its threshold.
"""

import contextlib
import shutil
import socket
import subprocess
import time

import psycopg
import pytest

import needs
from pgsonar.demo.clients import WireClient
from playing import AFTER, SLOTS, STUCK_USER, Agent, postgres

pytestmark = pytest.mark.live
LATE = AFTER + 3.0
# What is no different between majors: that these are found under each of them the plays show.
on_one_major = pytest.mark.parametrize("world", [16], indirect=True)


@pytest.fixture(scope="module", params=[15, 16, 18])
def world(request, tmp_path_factory):
    with postgres(request.param) as server:
        with contextlib.closing(WireClient(server.port, "postgres")) as administrator:
            administrator.execute(f"create role {STUCK_USER} login password 'never sent'")
            administrator.execute("create table t (v int); insert into t values (1)")
        agent = Agent(tmp_path_factory.mktemp("agent"), f"[{{name: db, port: {server.port}}}]")
        try:
            yield server, agent
        finally:
            agent.stop()


def must_be_named(agent, kind, began, *, pid=None, port=None):
    def ours(told):
        members = [member.split() for member in told["pgsonar.leak.member_list"]]
        return any((pid is None or m[0] == str(pid)) and (port is None or m[2] == str(port)) for m in members)

    event = agent.wait_event(kind, "opened", ours, began + LATE + 1.5 - time.time())
    told = event["attributes"]
    assert abs(told["pgsonar.leak.onset"] / 1e9 - began) < 1.0
    assert int(event["timeUnixNano"]) / 1e9 - began < LATE
    assert told.get("postgresql.pid") == pid
    assert told.get("client.port") == port
    return event


def must_be_resolved(agent, event):
    told = event["attributes"]
    kind, number = told["pgsonar.leak.kind"], told["pgsonar.leak.id"]
    agent.wait_event(kind, "resolved", lambda other: other["pgsonar.leak.id"] == number, 5)
    (span,) = agent.wait_for(lambda: [s for s in agent.spans() if s["traceId"] == event["traceId"]], 3, "no span")
    assert span["spanId"] == event["spanId"]
    assert span["startTimeUnixNano"] == str(told["pgsonar.leak.onset"])
    assert span["attributes"]["error.type"] == kind


@pytest.fixture
def app(world):
    server, _ = world
    with contextlib.closing(WireClient(server.port, "postgres")) as administrator:
        with contextlib.suppress(ConnectionError):
            administrator.execute("do $$ begin create role app login superuser; exception when others then end $$")
        yield administrator


def test_a_transaction_that_was_busy_before_it_was_left_open_counts_from_the_last_statement(world, app):
    server, agent = world
    client = WireClient(server.port, "app")
    client.execute("begin")
    until = time.monotonic() + 3.5
    while time.monotonic() < until:
        client.execute("select 1")
        time.sleep(0.01)
    event = must_be_named(agent, "idle_in_transaction", time.time(), pid=client.backend_pid, port=client.port)
    client.close()
    must_be_resolved(agent, event)


@on_one_major
def test_clients_stuck_in_authentication_until_the_pool_is_exhausted(world, app):
    server, agent = world
    before = len(agent.events("pool_exhausted", "opened"))
    began = time.time()
    stuck = []
    while len(stuck) < SLOTS - 1:  # the administrator holds one
        stuck.append(WireClient(server.port, STUCK_USER, login=False))
    ports = {client.port for client in stuck}
    event = agent.wait_event("auth_stuck", "opened", lambda told: told["client.port"] in ports, LATE + 1.5)
    told = event["attributes"]
    assert abs(told["pgsonar.leak.onset"] / 1e9 - began) < 1.0
    assert int(event["timeUnixNano"]) / 1e9 - began < LATE
    assert {int(member.split()[2]) for member in told["pgsonar.leak.member_list"]} <= ports
    full = agent.wait_event("pool_exhausted", "opened", lambda told: told["pgsonar.leak.onset"] / 1e9 > began - 1, LATE)
    agent.wait_for(
        lambda: [e for e in agent.events("pool_exhausted") if e["attributes"]["pgsonar.leak.severity"] == "critical"],
        LATE,
        "pool_exhausted never became critical",
    )
    assert len(agent.events("pool_exhausted", "opened")) == before + 1
    for client in stuck:
        client.close()
    must_be_resolved(agent, event)
    must_be_resolved(agent, full)


@on_one_major
def test_clients_that_never_say_who_they_are_hold_a_child_and_no_slot(world):
    server, agent = world
    began = time.time()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    probe = socket.create_connection(("127.0.0.1", server.port))
    probe.close()  # the near miss: a health check that opens the port and goes away
    ports = {one.getsockname()[1] for one in silent}
    event = agent.wait_for(
        lambda: next(
            (e for e in agent.events("prestartup_stuck", "opened") if e["attributes"]["client.port"] in ports), None
        ),
        10,
        "nothing is told of clients that are silent",
    )
    told = event["attributes"]
    assert (told["pgsonar.leak.severity"], told["client.address"]) == ("info", "127.0.0.1")
    assert abs(told["pgsonar.leak.onset"] / 1e9 - began) < 1
    assert told["pgsonar.child.limit"] > told["pgsonar.child.count"] >= 3
    assert {int(member.split()[2]) for member in told["pgsonar.leak.member_list"]} <= ports
    for one in silent:
        one.close()
    must_be_resolved(agent, event)


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory):
    """Debian's 15 has TLS, the embedded majors are built without."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "server.crt", folder / "server.key"
    needs.programs("openssl")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with postgres(15) as server:
        for made in (certificate, key):
            shutil.copy(made, server.data_directory)
            copy = server.data_directory / made.name
            shutil.chown(copy, server.data_directory.stat().st_uid, server.data_directory.stat().st_gid)
            copy.chmod(0o600)
        with contextlib.closing(WireClient(server.port, "postgres")) as administrator:
            administrator.execute("alter system set ssl = on")
            administrator.execute("select pg_reload_conf()")
        agent = Agent(tmp_path_factory.mktemp("agent"), f"[{{name: db, port: {server.port}}}]")
        try:
            yield server, agent
        finally:
            agent.stop()


def over_tls(server):
    client = psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres", sslmode="require")
    assert client.pgconn.ssl_in_use
    return client


def test_a_transaction_left_open_over_tls(with_tls):
    server, agent = with_tls
    with contextlib.closing(over_tls(server)) as client:
        client.execute("select 1")
        port = socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        with port:
            number = port.getsockname()[1]
        event = must_be_named(agent, "idle_in_transaction", time.time(), pid=client.info.backend_pid, port=number)
    must_be_resolved(agent, event)


def test_a_client_over_tls_that_closes_during_a_query(with_tls):
    server, agent = with_tls
    client = over_tls(server)
    pid = client.info.backend_pid
    client.pgconn.send_query(b"select pg_sleep(60)")
    time.sleep(0.4)
    began = time.time()
    client.close()
    event = agent.wait_event("orphaned_backend", "opened", lambda told: told["postgresql.pid"] == pid, LATE + 2)
    assert abs(event["attributes"]["pgsonar.leak.onset"] / 1e9 - began) < 1
    assert "close over TLS" in event["attributes"]["pgsonar.evidence.departure"]
    with contextlib.closing(over_tls(server)) as administrator:
        administrator.execute(f"select pg_terminate_backend({pid})")
    must_be_resolved(agent, event)
