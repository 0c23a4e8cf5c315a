"""Slots held in many ways: the ledger right to the slot, at each rung of privilege, with and without a login."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time

import psycopg
import pytest

from pgsonar.demo.clients import WireClient
from playing import STUCK_USER, environment, postgres
from test_leaks import killed_during

pytestmark = pytest.mark.live
NOBODY = 65534  # whom the server runs as, under root
HELD = {
    "sessions over TCP": 5,
    "sessions over a unix socket": 4,
    "in transaction": 3,
    "password never sent": 4,
    "client gone": 3,
}
WITHOUT_SLOT = {"prestartup": 3, "walsender": 1}


def replication(port):
    """A walsender that idles."""
    client = socket.create_connection(("127.0.0.1", port))
    words = ("user", "postgres", "replication", "true")
    body = b"".join(word.encode() + b"\0" for word in words) + b"\0"
    client.sendall(struct.pack("!II", 8 + len(body), 196608) + body)
    time.sleep(0.2)
    return client


@pytest.fixture(scope="module", params=[15, 16, 18])
def server(request):
    with postgres(request.param, unix_socket_permissions="0777") as running, contextlib.ExitStack() as stack:
        admin = stack.enter_context(contextlib.closing(WireClient(running.port, "postgres")))
        admin.execute(f"create role {STUCK_USER} login password 'x'; create role app login")
        admin.execute("create role watcher login; grant pg_monitor to watcher")
        admin.close()
        directory = str(running.data_directory.parent)
        for _ in range(HELD["sessions over TCP"]):
            stack.enter_context(contextlib.closing(WireClient(running.port, "app")))
        for _ in range(HELD["sessions over a unix socket"]):
            stack.enter_context(psycopg.connect(host=directory, port=running.port, user="app", dbname="postgres"))
        for _ in range(HELD["in transaction"]):
            stack.enter_context(contextlib.closing(WireClient(running.port, "app"))).execute("begin")
        for _ in range(HELD["password never sent"]):
            stuck = WireClient(running.port, STUCK_USER, login=False)
            stack.callback(stuck.socket.close)
            stuck.message()
        for _ in range(HELD["client gone"]):
            killed_during(running.port, "select pg_sleep(600)")
        for _ in range(WITHOUT_SLOT["prestartup"]):
            stack.callback(socket.create_connection(("127.0.0.1", running.port)).close)
        stack.callback(replication(running.port).close)
        yield running


def scan(server, tmp_path, *, uid=None, login=False):
    settings = [f"receivers.sockets.targets=[{{port: {server.port}}}]"]
    settings += ["exporters.debug={}"]
    if login:
        settings += [f"receivers.postgresql={{endpoint: '127.0.0.1:{server.port}', username: watcher}}"]
    program = f"import sys; sys.path[:0] = {sys.path!r}; from pgsonar.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "scan", "--format", "json"]
    command += [word for setting in settings for word in ("--set", setting)]
    if uid is not None:
        if os.geteuid():
            pytest.skip("needs root, to become another user")
        dropped = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", *dropped, *command]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**environment(), "HOME": "/"}, cwd="/", check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("uid", [None, NOBODY, 54321], ids=["root", "the server's user", "nobody at all"])
@pytest.mark.parametrize("login", [False, True], ids=["without login", "with login"])
def test_every_slot_is_in_its_place(server, tmp_path, uid, login):
    told = scan(server, tmp_path, uid=uid, login=login)
    (ledger,) = told["ledgers"]
    (known,) = told["servers"]
    own = int(login)

    assert ledger["holders"] == {
        "session": HELD["sessions over TCP"] + HELD["sessions over a unix socket"] + HELD["in transaction"] + own,
        "authenticating": HELD["password never sent"],
        "starting": 0,
        "orphan": HELD["client gone"],
        "unaccounted": 0,
    }
    assert ledger["used"] == sum(HELD.values()) + own
    assert ledger["unix"] == HELD["sessions over a unix socket"]
    if login:
        assert ledger["database_sees"] == ledger["used"] - HELD["password never sent"]
        assert (ledger["gap"], ledger["cause"]) == (4, "4 clients never sent their password")
    else:
        assert (ledger["database_sees"], ledger["gap"], ledger["cause"]) == (None, None, None)
    if uid == 54321 and not login:
        assert (known["limit"], known["limit_source"]) == (None, "unknown")
        assert any("pg_control" in sentence for sentence in told["missing"])
    else:
        assert (known["limit"], known["ceiling"]) == (30, 27)
        assert known["limit_source"] == ("login" if uid == 54321 else "pg_control")

    states = [row["state"] for row in told["connections"]]
    assert states.count("close_wait") == HELD["client gone"]
    named = [row for row in told["connections"] if row["client"] is not None and row["user"] != "watcher"]
    assert bool(named) == (uid is None), "only root may look into the clients' processes"
    local = [row for row in told["connections"] if row["state"] is None and row["client"] is not None]
    assert len(local) == (HELD["sessions over a unix socket"] if uid is None else 0)
