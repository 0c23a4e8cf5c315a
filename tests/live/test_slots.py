"""Slots held in many ways: the ledger right to the slot, at each rung of privilege, with and without a login."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import time

import pytest

import needs
from pgsonar.demo.clients import WireClient
from playing import STUCK_USER, environment, killed_during, postgres

pytestmark = pytest.mark.live
NOBODY = 65534  # whom the server runs as, under root
HELD = {
    "sessions over TCP": 5,
    "sessions over IPv6": 4,
    "sessions over a unix socket": 5,
    "in transaction": 4,
    "password never sent": 5,
    "password never sent over a unix socket": 3,
    "client gone": 4,
}
SESSIONS = sum(HELD[way] for way in HELD if way.startswith("session")) + HELD["in transaction"]
STUCK = HELD["password never sent"] + HELD["password never sent over a unix socket"]
LOCAL = HELD["sessions over a unix socket"] + HELD["password never sent over a unix socket"]
WITHOUT_SLOT = {"prestartup": 3, "walsender": 1}


def replication(port):
    """A walsender that idles."""
    client = socket.create_connection(("127.0.0.1", port))
    words = ("user", "postgres", "replication", "true")
    body = b"".join(word.encode() + b"\0" for word in words) + b"\0"
    client.sendall(struct.pack("!II", 8 + len(body), 196608) + body)
    time.sleep(0.2)
    return client


@pytest.fixture(scope="module", params=[12, 13, 14, 15, 16, 17, 18])
def server(request):
    settings = {"unix_socket_permissions": "0777", "max_connections": 40, "authentication_timeout": 600}
    with postgres(request.param, **settings) as running, contextlib.ExitStack() as stack:
        hold(running, stack)
        yield running


def hold(running, stack):
    """Takes thirty slots in seven ways, and has children that hold none."""

    def client(user, **where):
        return stack.enter_context(contextlib.closing(WireClient(running.port, user, **where)))

    def stuck(**where):
        one = WireClient(running.port, STUCK_USER, login=False, **where)
        stack.callback(one.socket.close)
        one.message()

    with contextlib.closing(WireClient(running.port, "postgres")) as admin:
        admin.execute(f"create role {STUCK_USER} login password 'x'; create role app login")
        admin.execute("create role watcher login; grant pg_monitor to watcher")
    directory = str(running.data_directory.parent)
    for _ in range(HELD["sessions over TCP"]):
        client("app")
    for _ in range(HELD["sessions over IPv6"]):
        client("app", host="::1")
    for _ in range(HELD["sessions over a unix socket"]):
        client("app", host=directory)
    for _ in range(HELD["in transaction"]):
        client("app").execute("begin")
    for _ in range(HELD["password never sent"]):
        stuck()
    for _ in range(HELD["password never sent over a unix socket"]):
        stuck(host=directory)
    for _ in range(HELD["client gone"]):
        killed_during(running.port, "select pg_sleep(600)")
    for _ in range(WITHOUT_SLOT["prestartup"]):
        stack.callback(socket.create_connection(("127.0.0.1", running.port)).close)
    stack.callback(replication(running.port).close)


def scan(server, *, uid=None, capabilities="", login=False):
    settings = [f"receivers.sockets.targets=[{{port: {server.port}}}]", "exporters.debug={}"]
    if login:
        settings += [f"receivers.postgresql={{endpoint: '127.0.0.1:{server.port}', username: watcher}}"]
    program = f"import sys; sys.path[:0] = {sys.path!r}; from pgsonar.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "scan", "--format", "json"]
    command += [word for setting in settings for word in ("--set", setting)]
    if uid is not None:
        needs.root("to become another user")
        needs.programs("setpriv")
        held = ["--clear-groups", *(f"--{which}=-all{capabilities}" for which in ("inh-caps", "bounding-set"))]
        held += [f"--ambient-caps=-all{capabilities}"] if uid else []
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", *held, *command]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**environment(), "HOME": "/"}, cwd="/", check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


NOBODY_AT_ALL = 54321


@pytest.mark.parametrize("uid", [None, NOBODY, NOBODY_AT_ALL], ids=["root", "the server's user", "nobody at all"])
@pytest.mark.parametrize("login", [False, True], ids=["without login", "with login"])
def test_every_slot_is_in_its_place(server, uid, login):
    told = scan(server, uid=uid, login=login)
    (ledger,) = told["ledgers"]
    (known,) = told["servers"]

    check_holders(ledger, own=int(login))
    if login:
        assert ledger["database_sees"] == ledger["used"] - STUCK
        assert (ledger["gap"], ledger["cause"]) == (STUCK, f"{STUCK} clients never sent their password")
    else:
        assert (ledger["database_sees"], ledger["gap"], ledger["cause"]) == (None, None, None)
    if uid == NOBODY_AT_ALL and not login:
        assert (known["limit"], known["limit_source"]) == (None, "unknown")
        assert any("pg_control" in sentence for sentence in told["missing"])
        assert any("pool_exhausted cannot be told" in sentence for sentence in told["missing"])
    else:
        assert (known["limit"], known["ceiling"]) == (40, 37)
        assert known["limit_source"] == ("login" if uid == NOBODY_AT_ALL else "pg_control")

    states = [row["state"] for row in told["connections"]]
    assert states.count("close_wait") == HELD["client gone"]
    assert clients_named(told) == ((sum(HELD.values()) - HELD["client gone"]) if uid is None else 0)


def check_holders(ledger, own=0):
    assert ledger["holders"] == {
        "session": SESSIONS + own,
        "authenticating": STUCK,
        "starting": 0,
        "orphan": HELD["client gone"],
        "unaccounted": 0,
    }
    assert ledger["used"] == sum(HELD.values()) + own
    assert ledger["unix"] == LOCAL


def clients_named(told):
    """Slots whose client process is told."""
    rows = [row for row in told["connections"] if row["backend_pid"] is not None and row["user"] in ("app", STUCK_USER)]
    return sum(row["client"] is not None for row in rows)


@pytest.mark.parametrize(
    ("uid", "capabilities", "limit_source", "names_clients"),
    [
        (NOBODY_AT_ALL, ",+sys_ptrace", "unknown", True),
        (NOBODY_AT_ALL, ",+dac_read_search", "pg_control", False),
        (NOBODY_AT_ALL, ",+sys_ptrace,+dac_read_search", "pg_control", True),
        (NOBODY_AT_ALL, ",+sys_admin", "unknown", False),
        (NOBODY_AT_ALL, ",+net_admin", "unknown", False),
        (0, "", "unknown", False),
    ],
    ids=["SYS_PTRACE", "DAC_READ_SEARCH", "both", "SYS_ADMIN", "NET_ADMIN", "root without capabilities"],
)
def test_each_capability_adds_what_it_can_and_no_slot_is_lost_without(
    server, uid, capabilities, limit_source, names_clients
):
    told = scan(server, uid=uid, capabilities=capabilities)

    check_holders(told["ledgers"][0])
    assert told["servers"][0]["limit_source"] == limit_source
    assert bool(clients_named(told)) == names_clients
    assert any("pg_control" in sentence for sentence in told["missing"]) == (limit_source == "unknown")
