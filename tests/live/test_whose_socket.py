"""One port, several who listen on it: each server is told its own sockets and nothing of the others'."""

import contextlib
import json
import socket
import time

import pytest

import needs
from pgsonar.demo.clients import WireClient
from playing import Agent, ask, postgres, run_as, transactions

pytestmark = pytest.mark.live
WATCHED = 6  # seconds: three times every threshold
UNPRIVILEGED = ("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups")


@contextlib.contextmanager
def stuck_proxy(address, port):
    """Somebody else who listens on the port: one client has closed on him, and three wait to be accepted."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((address, port), backlog=8))
        clients = [stack.enter_context(socket.create_connection((address, port))) for _ in range(4)]
        stack.enter_context(listener.accept()[0])
        clients[0].shutdown(socket.SHUT_WR)
        yield


def app(server, host):
    with contextlib.closing(WireClient(server.port, "postgres", host=host)) as admin:
        admin.execute("create role app login superuser")


def scan(one, other, before):
    targets = f"[{{pid: {one.pid}, name: one}}, {{pid: {other.pid}, name: other}}]"
    done = run_as(before, "scan", "--set", f"receivers.sockets.targets={targets}")
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_a_proxy_that_takes_the_same_port_later_is_no_server(tmp_path):
    with postgres(15, listen_addresses="127.0.0.1") as server, contextlib.ExitStack() as stack:
        app(server, "127.0.0.1")
        agent = Agent(tmp_path, f"[{{port: {server.port}}}]")
        stack.callback(agent.stop)
        stack.enter_context(stuck_proxy("127.0.0.3", server.port))
        time.sleep(WATCHED)
        before = agent.events()
        transactions(server, stack, 1)
        opened = agent.wait_event("idle_in_transaction", "opened", lambda _: True, 10)["attributes"]
        _, told = ask(tmp_path, "scan", f"{{sockets: {{targets: [{{port: {server.port}}}]}}}}", "--format", "json")

    assert before == []
    assert opened["client.address"] == "127.0.0.1"
    assert {one["local_address"] for one in json.loads(told)["connections"]} <= {"127.0.0.1", None}


@pytest.mark.parametrize("before", [(), UNPRIVILEGED], ids=["by inode", "by title"])
def test_two_clusters_on_one_port_keep_their_own(before):
    if before:
        needs.root("to be somebody else")
        needs.programs("setpriv")
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(postgres(15, listen_addresses="127.0.0.1"))
        other = stack.enter_context(postgres(16, listen_addresses="127.0.0.2", port=one.port))
        app(one, "127.0.0.1")
        app(one, "127.0.0.2")
        stack.enter_context(contextlib.closing(WireClient(one.port, "app", host="127.0.0.2")))  # idles, as in a pool
        transactions(one, stack, 2)
        told = scan(one, other, before)
    ours = [c for c in told["connections"] if c["server"] in {"one", "other"}]  # poolers of others are told as well
    sessions = {(c["server"], c["local_address"], c["activity"]) for c in ours if c["activity"]}
    sockets = {(c["server"], c["local_address"]) for c in ours if c["local_address"]}

    assert sessions == {("one", "127.0.0.1", "idle in transaction"), ("other", "127.0.0.2", "idle")}
    assert sockets == {("one", "127.0.0.1"), ("other", "127.0.0.2")}
