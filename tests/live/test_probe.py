"""A client that is gone without a word behind a session that idles: told by asking it, and by nothing else."""

import contextlib
import socket
import time

import pytest

from installation import installed
from pgsonar.demo.clients import WireClient
from pgsonar.model import SECOND
from pgsonar.sources.keepalive import WATCH, KeepaliveProbe
from pgsonar.sources.sockets import read_connections
from playing import Agent, lowered, postgres

pytestmark = [pytest.mark.live, pytest.mark.netns]
KEEPALIVE = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


def inode_of(port):
    """Of the backend's socket to its client."""
    return next(row.inode for row in read_connections("/proc/self", [port]) if row.remote.port == port and row.inode)


@pytest.mark.parametrize("asks", [True, False])
def test_only_asking_tells_a_dead_client_from_an_idle_one(tmp_path, asks):
    with installed(16) as world, world.admin() as admin:
        admin.execute("create role gone login; create role there login")
        leaks = lowered() + f", half_open: {{after: 2s, probe: {str(asks).lower()}}}"
        agent = Agent(tmp_path, f"[{{name: db, port: {world.server.port}}}]", leaks=leaks)
        gone = world.client("gone")
        there = world.client("there", host="127.0.0.1")  # the near miss: as idle, and alive
        for client in (gone, there):
            client.execute("begin")
        time.sleep(0.3)  # an acknowledgement that is delayed would be lost, and the reply sent again
        world.wire.cut()
        try:
            agent.wait_for(
                lambda: len(agent.events("idle_in_transaction", "opened")) == 2, 8, "no transactions are told"
            )
            if asks:
                event = agent.wait_event(
                    "half_open", "opened", lambda told: told["postgresql.pid"] == gone.backend_pid, 10
                )
                assert event["attributes"]["pgsonar.evidence.unanswered"] == "a keepalive is not answered"
                root = event["attributes"]["pgsonar.leak.id"]
                agent.wait_event("idle_in_transaction", "updated", lambda told: told["pgsonar.leak.root_id"] == root, 8)
            else:
                with contextlib.suppress(pytest.fail.Exception):
                    agent.wait_event("half_open", "opened", lambda _: True, 6)
            assert {e["attributes"]["postgresql.pid"] for e in agent.events("half_open")} <= {gone.backend_pid}
            assert bool(agent.events("half_open")) == asks
        finally:
            agent.stop()
            world.wire.mend()
            gone.socket.close()
            there.close()


def test_what_is_shortened_is_restored():
    probe = KeepaliveProbe()
    with postgres(16) as server, contextlib.closing(WireClient(server.port, "postgres")) as client:
        inode = inode_of(client.port)

        def options():
            with probe._borrow(client.backend_pid, inode) as borrowed:
                return [borrowed.getsockopt(socket.IPPROTO_TCP, option) for option in KEEPALIVE]

        before = options()
        probe.ask(client.backend_pid, inode, 10 * SECOND)
        shortened = options()
        probe.settle(10 * SECOND + WATCH - 1, ())
        still = options()
        probe.settle(10 * SECOND + WATCH, {client.backend_pid})
        silent = options()
        probe.settle(10 * SECOND + WATCH, ())
        after = options()
        probe.ask(client.backend_pid, inode, 20 * SECOND)
        again = options()
        client.execute("select 1")

    assert before == [7200, 75, 9]
    assert shortened == still == silent == [1, 1, 127]
    assert after == again == before, "and is not asked again for a while"
    assert (probe.asked, probe.refused) == (1, 0)


def test_where_it_is_not_permitted_it_says_so(monkeypatch, caplog):
    probe = KeepaliveProbe()
    with postgres(16) as server, contextlib.closing(WireClient(server.port, "postgres")) as client:
        pid = client.backend_pid
        inode = inode_of(client.port)
        monkeypatch.setattr(probe, "_descriptor_of", lambda pid, inode: (_ for _ in ()).throw(PermissionError(1, "no")))
        probe.ask(pid, inode, SECOND)

    assert probe.refused == 1
    assert "CAP_SYS_PTRACE" in probe.problem
    assert "CAP_SYS_PTRACE" in caplog.text
