"""A standby that becomes the primary while it is watched: the same server in another role, its leaks unbroken."""

import contextlib
import json

import pytest

from pgsonar.config.schema import PostgresqlReceiver
from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import Postgres
from pgsonar.sources.activity import ActivityReader
from pgsonar.sources.login import Login
from playing import SLOTS, STUCK_USER, Agent, ask, postgres

pytestmark = pytest.mark.live
DEBIANS = 15  # its packages hold pg_basebackup


class Standby(Postgres):
    """A standby of another server, from a base backup of it."""

    def __init__(self, primary):
        super().__init__(primary.binaries, {}, STUCK_USER)
        self.primary = primary

    def _make_cluster(self):
        self._succeed(
            *(str(self.binaries / "pg_basebackup"), "-D", str(self.data_directory), "-h", "127.0.0.1"),
            *("-p", str(self.primary.port), "-U", "postgres", "-R", "--checkpoint=fast", "--no-sync"),
        )


def promote(server):
    with contextlib.closing(WireClient(server.port, "postgres")) as admin:
        admin.execute("select pg_promote()")


def reader(server):
    login = Login(
        "postgresql",
        PostgresqlReceiver(endpoint=f"127.0.0.1:{server.port}", username="postgres"),
        database="postgres",
    )
    return login, ActivityReader(login, "none")


def scan(tmp_path, *servers):
    targets = ", ".join(f"{{port: {server.port}}}" for server in servers)
    _, text = ask(tmp_path, "scan", f"{{sockets: {{targets: [{targets}]}}}}", "--format", "json")
    told = json.loads(text)
    return {known["port"]: known for known in told["servers"]}


def test_a_promoted_standby_stays_the_same_server_and_its_leaks_stay_open(tmp_path):
    with postgres(DEBIANS) as primary, Standby(primary) as standby, contextlib.ExitStack() as stack:
        before = scan(tmp_path, primary, standby)
        agent = Agent(tmp_path, f"[{{port: {primary.port}}}, {{port: {standby.port}}}]")
        stack.callback(agent.process.kill)
        login, activity = reader(standby)
        stack.callback(login.close)
        told_before = activity.read()
        leak = stack.enter_context(contextlib.closing(WireClient(standby.port, "postgres")))
        leak.execute("begin")
        opened = agent.wait_event("idle_in_transaction", "opened", lambda _: True, 8)["attributes"]
        primary.stop()
        promote(standby)
        after = scan(tmp_path, primary, standby)
        told_after = activity.read()
        leak.execute("rollback")
        resolved = agent.wait_event("idle_in_transaction", "resolved", lambda _: True, 8)["attributes"]
        agent.stop()
        ended = agent.events("idle_in_transaction", "resolved")

    assert {port: known["role"] for port, known in before.items()} == {
        primary.port: "primary",
        standby.port: "standby",
    }
    assert len({known["id"] for known in before.values()}) == 2, "one system identifier, two servers"
    assert before[standby.port]["limit"] == SLOTS
    assert {port: (known["role"], known["id"]) for port, known in after.items()} == {
        standby.port: ("primary", before[standby.port]["id"])
    }
    assert (told_before.role, told_after.role) == ("standby", "primary")
    assert told_before.own_pid == told_after.own_pid, "by the same connection"
    assert opened["server.port"] == standby.port
    assert resolved["pgsonar.leak.id"] == opened["pgsonar.leak.id"]
    assert len(ended) == 1
