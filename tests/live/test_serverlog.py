"""Real servers write what is no refusal, and one that is: each format tells them apart, and so does the agent."""

import contextlib
import time

import pytest

from pgsonar.demo.clients import WireClient
from pgsonar.sources.serverlog import LogReader
from playing import Agent, postgres

pytestmark = pytest.mark.live
REFUSED = "sorry, too many clients already"
RESERVED = "remaining connection slots are reserved for roles with the SUPERUSER attribute"
LOGS = {
    "logging_collector": "on",
    "log_destination": "stderr,csvlog,jsonlog",
    "log_line_prefix": "%m [%p] %q%u@%d ",  # as Debian sets it
    "log_statement": "all",
    "max_connections": 8,
    "superuser_reserved_connections": 1,
    "max_wal_senders": 0,
}


def refused(action):
    with contextlib.suppress(OSError):
        action()


def fill(server, stack):
    """Takes every slot, and is refused once."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            stack.enter_context(contextlib.closing(WireClient(server.port, "postgres")))


@pytest.fixture(scope="module", params=[15, 16, 18])
def server(request):
    with postgres(request.param, **LOGS) as running:
        yield running


def quote(server, remote):
    """Everything that quotes a refusal of somebody else; `remote` is a server that is full."""
    with contextlib.closing(WireClient(server.port, "postgres")) as client:
        upstream = rf"do $$ begin raise exception E'upstream said\nFATAL:  {REFUSED}'; end $$"
        there = f"host=127.0.0.1 port={remote.port} user=postgres dbname=postgres"
        quoting = [
            upstream,
            f"do $$ begin raise exception 'FATAL:  {REFUSED}'; end $$",
            f"do $$ begin raise log 'FATAL:  {REFUSED}'; end $$",
            f"select 1 -- FATAL:  {RESERVED}",
            f"select 1/0 -- FATAL:  {RESERVED}",
            f"select nothing\n-- FATAL:  {REFUSED}",
            f"create subscription s connection '{there}' publication p",
        ]
        if (server.binaries.parent / "lib" / "postgres_fdw.so").exists():
            quoting += [
                "create extension postgres_fdw",
                f"create server x foreign data wrapper postgres_fdw options (port '{remote.port}', host '127.0.0.1')",
                "create user mapping for postgres server x options (user 'postgres')",
                "create foreign table far (v int) server x",
                "select * from far",
            ]
        for statement in quoting:
            refused(lambda statement=statement: client.execute(statement))
    stamp = "2026-11-28 21:51:39.123 UTC [1] u@d"
    for name in (f"a FATAL:  {REFUSED}", f"a\nFATAL:  {REFUSED}\n", f"{stamp} FATAL:  x", "a\n" + stamp):
        refused(lambda name=name: WireClient(server.port, name))


def counted(reader):
    return {path.rpartition(".")[2]: dict(told.by_class) for path, told in reader.read().items()}


def eventually(look, wanted):
    deadline = time.monotonic() + 10
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def quoted(server):
    """How often each format has written what is quoted."""
    files = (server.data_directory / "log").iterdir()
    return {path.suffix: path.read_text("utf-8", "replace").count(REFUSED) for path in files}


def test_only_the_refusal_is_counted_in_each_format(server):
    with postgres(16, max_connections=4, max_wal_senders=0, superuser_reserved_connections=1) as remote:
        reader = LogReader([f"{server.data_directory}/log/*"])
        nothing = {"log": {}, "csv": {}, "json": {}}
        assert eventually(lambda: counted(reader), nothing) == nothing
        with contextlib.ExitStack() as stack:
            fill(remote, stack)
            quote(server, remote)
        with contextlib.closing(WireClient(server.port, "postgres")) as last:
            refused(lambda: last.execute("select last"))
        time.sleep(0.5)
        assert counted(reader) == nothing
        assert min(quoted(server).values()) >= 7, quoted(server)
        with contextlib.ExitStack() as stack:
            fill(server, stack)
            once = {"log": {"all_slots": 1}, "csv": {"all_slots": 1}, "json": {"all_slots": 1}}
            assert eventually(lambda: counted(reader), once) == once


def test_the_agent_is_woken_by_the_refusal_alone(tmp_path):
    with (
        postgres(16, max_connections=4, max_wal_senders=0, superuser_reserved_connections=1) as remote,
        postgres(15, **{**LOGS, "max_connections": 30}) as server,
    ):
        logs = f", serverlog: {{include: ['{server.data_directory}/log/*.log']}}"
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", logs)
        with contextlib.ExitStack() as stack:
            fill(remote, stack)
            quote(server, remote)
            time.sleep(2.5)
            assert agent.events("pool_exhausted") == []
            with contextlib.closing(WireClient(server.port, "postgres")) as admin:
                admin.execute("create role app login; create role etl login connection limit 0")
            refused(lambda: WireClient(server.port, "etl"))
            event = agent.wait_event("role_or_database_limit", "opened", lambda told: True, 3)
        agent.stop()

    assert event["attributes"]["pgsonar.leak.severity"] == "critical"
