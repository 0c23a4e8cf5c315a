"""A whole installation for plays: a server and PgBouncer behind a wire, applications on its other end, one agent."""

from __future__ import annotations

import contextlib
import json

from bouncer import Bouncer
from networks import CLIENT, CLIENT_6, SERVER, SERVER_6, wired
from pgsonar.demo.clients import WireClient
from playing import STUCK_USER, Agent, postgres
from plays import CONFIGURATION, LIMIT, LIMITED, PLAYS, SILENT, SLOTS, TWINS, World


@contextlib.contextmanager
def installed(major, **settings):
    """The server of one major in a network namespace of its own."""
    where = {"listen_addresses": f"127.0.0.1,::1,{SERVER},{SERVER_6}", "max_connections": SLOTS, **settings}
    with wired() as wire, contextlib.ExitStack() as stack:
        with wire.on_server():
            server = stack.enter_context(postgres(major, **where))
            _let_in(server)
            pools = stack.enter_context(Bouncer(server.port, mode="transaction", size=2, users=[*PLAYS, *TWINS]))
            sessions = stack.enter_context(Bouncer(server.port, mode="session", size=2, users=[*PLAYS, *TWINS]))
        yield World(server, wire, pools, sessions)


def _let_in(server):
    """Roles, a table, and the addresses behind the wire."""
    with (server.data_directory / "pg_hba.conf").open("a") as file:
        for address in (f"{CLIENT}/32", f"{CLIENT_6}/128"):
            file.write(f"host all {STUCK_USER} {address} scram-sha-256\nhost all all {address} trust\n")
    with contextlib.closing(WireClient(server.port, "postgres", host=str(server.data_directory.parent))) as admin:
        for name in (*PLAYS, *TWINS, *SILENT, "app", "watcher"):
            admin.execute(f"create role {name} login")
        admin.execute(f"create role {STUCK_USER} login password 'never sent'")
        admin.execute(f"create role {LIMITED} login connection limit {LIMIT}")
        admin.execute("grant pg_monitor to watcher")
        admin.execute("create table t (v int); insert into t values (1); grant all on t to public")
        admin.execute("select pg_reload_conf()")


def receivers(world):
    """What sees all of it: the sockets receiver's targets and side, and the receivers beside it."""
    place = f"{world.server.data_directory.parent}:{world.server.port}"
    more = f", postgresql: {{endpoint: '{place}', username: watcher, collection_interval: 1s}}"
    for name, bouncer in (("pools", world.pools), ("sessions", world.sessions)):
        more += f", pgbouncer/{name}: {{endpoint: '{bouncer.directory}:{bouncer.port}', username: stats,"
        more += " collection_interval: 1s}"
    return f"[{{name: db, port: {world.server.port}}}], side: both", more


def watch(world, folder):
    """An agent that sees all of it; the caller stops it."""
    return Agent(folder, *receivers(world), leaks=json.dumps(CONFIGURATION)[1:-1])
