"""What one look says of a real server: the leaks that stand with their ages, and how many children it can have."""

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pgsonar.demo.clients import WireClient
from playing import STUCK_USER, ask, killed_during, postgres

pytestmark = pytest.mark.live
LOWERED = ("--set", "processors.leaks.idle_in_transaction.after=2s", "--set", "processors.leaks.auth_stuck.after=2s")


def scan(server, tmp_path, *more):
    code, text = ask(tmp_path, "scan", f"{{sockets: {{targets: [{{port: {server.port}}}]}}}}", *more)
    assert code == 0
    return text


@contextlib.contextmanager
def at_work(server):
    """A transaction of short statements, for as long as somebody looks."""
    ended = threading.Event()

    def work():
        with contextlib.closing(WireClient(server.port, "busy")) as busy:
            busy.execute("begin")
            while not ended.wait(0.05):
                busy.execute("select 1")

    with ThreadPoolExecutor(1) as threads:
        worked = threads.submit(work)
        try:
            yield
        finally:
            ended.set()
            worked.result()


@pytest.mark.parametrize("major", [13, 16, 18])
def test_one_look_tells_what_leaks_since_when_and_what_does_not(major, tmp_path):
    with postgres(major) as server, contextlib.ExitStack() as stack:
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute(f"create role {STUCK_USER} login password 'x'; create role app login; create role busy login")
        open_one = stack.enter_context(contextlib.closing(WireClient(server.port, "app")))
        open_one.execute("begin")
        stuck = WireClient(server.port, STUCK_USER, login=False)
        stack.callback(stuck.socket.close)
        stuck.message()
        killed_during(server.port, "select pg_sleep(600)")
        began = time.time()
        stack.enter_context(at_work(server))  # the near miss: its transaction is as old, but it works
        time.sleep(3)
        told = json.loads(scan(server, tmp_path, *LOWERED, "--format", "json"))
        text = scan(server, tmp_path, *LOWERED)
        took = time.time() - began

    verdicts = {verdict["kind"]: verdict for verdict in told["verdicts"]}
    assert set(verdicts) == {"idle_in_transaction", "auth_stuck", "orphaned_backend"}
    assert verdicts["idle_in_transaction"]["identity"] == "app@127.0.0.1"
    assert verdicts["idle_in_transaction"]["backend_pids"] == [open_one.backend_pid]
    assert all(2.9 < verdict["age_seconds"] < took + 3 for verdict in verdicts.values())
    assert "WHY   1" in text
    assert f"pg_terminate_backend({open_one.backend_pid})" in text or "DO    sudo kill -TERM" in text
    assert "busy@127.0.0.1" not in text.partition("DO ")[0]


@pytest.mark.parametrize("major", [12, 15, 17, 18])
def test_the_limit_of_children_is_what_the_server_itself_counts_to(major, tmp_path):
    """Silent clients are let in up to the limit that is told; the next one is one too many."""
    settings = {"max_connections": 6, "superuser_reserved_connections": 1, "max_worker_processes": 2}
    settings |= {"autovacuum": "off", "wal_level": "minimal", "max_wal_senders": 0}
    settings |= {"io_method": "sync"} if major >= 18 else {}
    with postgres(major, **settings) as server, contextlib.ExitStack() as stack:
        limit = json.loads(scan(server, tmp_path, "--format", "json"))["servers"][0]["child_limit"]
        before = len(children(server))
        workers = 1 if major < 18 else 0  # the launcher of logical replication counts, where all children do

        def connect(number):
            for _ in range(number):
                stack.callback(socket.create_connection(("127.0.0.1", server.port)).close)

        connect(limit - workers - 1)
        wait_for(lambda: len(children(server)) == before + limit - workers - 1)
        psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres").close()
        wait_for(lambda: len(children(server)) == before + limit - workers - 1)
        connect(1)
        wait_for(lambda: len(children(server)) == before + limit - workers)
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres")


def children(server):
    return Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the server did not come so far"
        time.sleep(0.02)
