"""Through a real PgBouncer: both hops told apart, and a leak traced to the application that made it."""

import contextlib
import json
import subprocess
import sys
import time

import pytest

from bouncer import Bouncer
from pgsonar.config.schema import PgbouncerReceiver
from pgsonar.demo.clients import WireClient
from pgsonar.sources.login import Login
from pgsonar.sources.pgbouncer import DATABASE, ConsoleReader
from playing import AFTER, Agent, ask, environment, flat, postgres

pytestmark = pytest.mark.live
LEAKER = """
import sys, time
from pgsonar.demo.clients import WireClient
held = [WireClient(int(sys.argv[1]), "app") for _ in range(int(sys.argv[2]))]
for client in held:
    client.execute("begin")
print(*(client.port for client in held), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def server():
    with postgres(16) as running:
        with contextlib.closing(WireClient(running.port, "postgres")) as admin:
            admin.execute("create role app login")
        yield running


@pytest.fixture(params=["transaction", "session"])
def bouncer(server, request):
    with Bouncer(server.port, mode=request.param) as running:
        yield running


@contextlib.contextmanager
def leaker(port, count):
    """Another process that leaves transactions open; the process and the ports of its ends."""
    command = [sys.executable, "-c", LEAKER, str(port), str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        ports = [int(word) for word in process.stdout.readline().split()]
        try:
            yield process, ports
        finally:
            process.kill()


def console(bouncer, endpoint=None):
    receiver = PgbouncerReceiver(endpoint=endpoint or f"127.0.0.1:{bouncer.port}", username="stats")
    return Login("pgbouncer", receiver, database=DATABASE, guards=())


def scan(server, tmp_path, *more, pgbouncer=None, consoles=""):
    login = f", pgbouncer: {{endpoint: '{pgbouncer}', username: stats}}" if pgbouncer else ""
    code, printed = ask(
        tmp_path, "scan", f"{{sockets: {{targets: [{{port: {server.port}}}]}}{login}{consoles}}}", *more
    )
    assert code == 0
    return printed


def ours(told, pooler):
    """Connections that stand, without those of other poolers of this host."""
    (server,) = told["servers"]
    return [
        row
        for row in told["connections"]
        if row["state"] == "established" and row["server"] in {server["id"], pooler["id"]}
    ]


def test_the_console_is_read_with_both_ends_of_each_connection(bouncer):
    with leaker(bouncer.port, 2) as (_, ports), contextlib.closing(console(bouncer)) as login:
        reading = ConsoleReader(login).read()

    assert reading.version.startswith("1.")
    (pool,) = reading.pools
    assert (pool.database, pool.user, pool.servers_active, pool.clients_active, pool.size) == (
        "postgres",
        "app",
        2,
        2,
        5,
    )
    assert pool.mode in {"transaction", "session"}
    clients = {client.port: client for client in reading.clients}
    assert clients.keys() == set(ports)
    servers = {one.ptr: one for one in reading.servers}
    for client in clients.values():
        one = servers[client.link]
        assert one.link == client.ptr
        assert one.backend_pid
        assert one.local is not None
        assert client.local.port == bouncer.port
    is_counted = pool.mode == "transaction" or not reading.version.startswith(tuple(f"1.{n}." for n in range(18, 23)))
    assert ("postgres" in reading.waits) == is_counted
    assert "auth_query" not in reading.settings
    assert reading.settings["default_pool_size"] == "5"


def test_the_console_answers_over_its_unix_socket(bouncer):
    with contextlib.closing(console(bouncer, f"{bouncer.directory}:{bouncer.port}")) as login:
        assert ConsoleReader(login).read().pools == ()


def test_both_hops_are_counted_without_a_console(server, bouncer, tmp_path):
    with leaker(bouncer.port, 3):
        told = json.loads(scan(server, tmp_path, "--format", "json"))

    (pooler,) = [p for p in told["poolers"] if p["port"] == bouncer.port]
    assert pooler["pids"] == [bouncer.pid]
    assert pooler["config_file"] == str(bouncer.config)
    assert pooler["pools"] is None
    standing = ours(told, pooler)
    sides = [row["side"] for row in standing]
    assert sides.count("pooler_client") == 3
    assert sides.count("pooler_server") == 3
    assert sides.count("server") == 3
    through = [row["via"]["pooler"] for row in standing if row["side"] == "server"]
    assert through == [f"127.0.0.1:{bouncer.port}"] * 3


def test_both_hops_over_unix_sockets_are_counted_without_a_console(server, tmp_path):
    directory = server.data_directory.parent
    with Bouncer(server.port, host=str(directory)) as bouncer:
        clients = [WireClient(bouncer.port, "app", host=str(bouncer.directory)) for _ in range(3)]
        for client in clients[:2]:
            client.execute("begin")
        told = json.loads(scan(server, tmp_path, "--format", "json"))
        text = scan(server, tmp_path)
        for client in clients:
            client.close()

    assert "HOPS         3 sockets of applications, 2 sockets to databases" in text
    ways = [row["via"] for row in told["connections"] if row["user"] == "app" and row["side"] == "server"]
    assert [way["pooler"] for way in ways] == [f"127.0.0.1:{bouncer.port}"] * 2


@pytest.mark.parametrize("over_unix", [False, True], ids=["tcp", "unix"])
def test_a_session_is_traced_to_the_application_and_its_process(server, tmp_path, over_unix):
    host = server.data_directory.parent if over_unix else "127.0.0.1"
    with Bouncer(server.port, host=host) as bouncer, leaker(bouncer.port, 2) as (process, ports):
        endpoint = f"127.0.0.1:{bouncer.port}"
        told = json.loads(scan(server, tmp_path, "--format", "json", pgbouncer=endpoint))
        text = scan(server, tmp_path, pgbouncer=endpoint)

    ways = [row["via"] for row in told["connections"] if row["side"] == "server" and row["user"] == "app"]
    assert {way["port"] for way in ways} == set(ports)
    assert {way["pooler"] for way in ways} == {endpoint}
    assert {way["client"]["pid"] for way in ways} == {process.pid}
    assert f"pid {process.pid}" in text
    assert "app@postgres transaction: 2 of 5 in use" in text


def test_several_processes_on_one_port_are_one_pooler(server, tmp_path):
    with Bouncer(server.port, so_reuseport=1) as one, Bouncer(server.port, so_reuseport=1, port=one.port) as other:
        told = json.loads(scan(server, tmp_path, "--format", "json"))

    (pooler,) = [p for p in told["poolers"] if p["port"] == one.port]
    assert sorted(pooler["pids"]) == sorted([one.pid, other.pid])


def test_processes_on_one_port_are_each_asked_through_their_own_unix_socket(server, tmp_path):
    """The port leads to either of them; the console of each tells its own clients only."""
    with Bouncer(server.port, so_reuseport=1) as one, Bouncer(server.port, so_reuseport=1, port=one.port) as other:
        consoles = "".join(
            f", pgbouncer/{name}: {{endpoint: '{bouncer.directory}:{one.port}', username: stats}}"
            for name, bouncer in (("one", one), ("other", other))
        )
        local = [WireClient(one.port, "app", host=str(bouncer.directory)) for bouncer in (one, other)]
        for client in local:
            client.execute("begin")
        told = json.loads(scan(server, tmp_path, "--format", "json", consoles=consoles))
        text = scan(server, tmp_path, consoles=consoles)
        for client in local:
            client.close()

    (pooler,) = [p for p in told["poolers"] if p["port"] == one.port]
    (pool,) = [pool for pool in pooler["pools"] if pool["user"] == "app"]
    assert (pool["servers_active"], pool["size"]) == (2, 10)
    assert "app@postgres transaction: 2 of 10 in use" in text
    ways = [row["via"] for row in told["connections"] if row["user"] == "app" and row["side"] == "server"]
    assert [(way["pooler"], way["application"]) for way in ways] == [(f"127.0.0.1:{one.port}", None)] * 2


def test_a_pooler_on_the_servers_own_port_keeps_its_connections_apart(server, tmp_path):
    with Bouncer(server.port, listen_addr="127.0.0.2", port=server.port) as bouncer:
        client = WireClient(server.port, "app", host="127.0.0.2")
        client.execute("begin")
        told = json.loads(scan(server, tmp_path, "--format", "json"))
        client.close()

    (pooler,) = [pooler for pooler in told["poolers"] if pooler["pids"] == [bouncer.pid]]
    sides = [row["side"] for row in ours(told, pooler)]
    assert sorted(sides) == ["pooler_client", "pooler_server", "server"]
    assert told["ledgers"][0]["used"] == 1


def test_a_leak_through_the_pooler_names_the_application_and_the_pooler_stands_beside(server, bouncer, tmp_path):
    more = f", pgbouncer: {{endpoint: '127.0.0.1:{bouncer.port}', username: stats, collection_interval: 1s}}"
    agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", receivers=more)
    try:
        with leaker(bouncer.port, 1) as (process, (port,)):
            began = time.time()
            event = agent.wait_event("idle_in_transaction", "opened", lambda told: True, AFTER + 6)
            told = event["attributes"]
            assert (told["client.address"], told["client.port"]) == ("127.0.0.1", port)
            assert told["network.peer.port"] not in {port, None}
            assert told["pgsonar.client.pid"] == process.pid
            assert told["pgsonar.pooler"] == f"127.0.0.1:{bouncer.port}"
            assert abs(told["pgsonar.leak.onset"] / 1e9 - began) < 1.5
            agent.wait_for(lambda: "pooler_server" in sides(agent), 6, "the pooler's connections are not counted")
        agent.wait_event("idle_in_transaction", "resolved", lambda other: True, 5)
        assert agent.points("db.client.connection.count")
        assert {"server", "pooler_client"} <= sides(agent)
    finally:
        agent.stop()


def test_a_query_the_pooler_has_forgotten_is_named_with_its_application(server, tmp_path):
    """PgBouncer closes the server connection of a client that went away during a query; the backend runs on."""
    with Bouncer(server.port) as bouncer:
        more = f", pgbouncer: {{endpoint: '127.0.0.1:{bouncer.port}', username: stats, collection_interval: 1s}}"
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", receivers=more)
        try:
            client = WireClient(bouncer.port, "app")
            client.send_query("select pg_sleep(20)")
            port = client.port
            time.sleep(2.5)  # the console is asked once a second
            client.socket.close()
            event = agent.wait_event("orphaned_backend", "opened", lambda told: True, 8)
        finally:
            agent.stop()
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute(f"select pg_terminate_backend({event['attributes']['postgresql.pid']})")

    told = event["attributes"]
    assert told["pgsonar.pooler"] == f"127.0.0.1:{bouncer.port}"
    assert told["pgsonar.pooler.has_forgotten"] is True
    assert (told["client.address"], told["client.port"]) == ("127.0.0.1", port)
    assert "has forgotten it" in event["body"]["stringValue"]


def sides(agent):
    points = agent.points("pgsonar.connection.count")
    return {flat(point["attributes"])["pgsonar.side"] for point in points}
