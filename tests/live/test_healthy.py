"""Healthy work is never reported, however low the thresholds: each workload beside others, two agents watch.

One agent has nothing but sockets and titles, the other also a login, the consoles of all PgBouncers, the server's log
and the client's side. `PGSONAR_HEALTHY_SECONDS=600` (make healthy) plays each workload for ten minutes.
"""

import contextlib
import os
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from bouncer import Bouncer
from playing import AFTER, Agent, postgres
from workloads import BOUNCERS, SETTINGS, WORKLOADS, parallel_dump, prepare

pytestmark = pytest.mark.live
SECONDS = float(os.environ.get("PGSONAR_HEALTHY_SECONDS", "6"))

# Below each is the healthiest thing it could be mistaken for; without a remark nothing healthy lasts two seconds.
LOWERED = dict.fromkeys(
    (
        "idle_in_transaction",
        "orphaned_backend",
        "orphaned_backend_no_socket",
        "half_open",
        "auth_stuck",
        "prestartup_stuck",
        "accept_queue",
        "client_socket_leak",
        "pool_exhausted",
        "role_or_database_limit",
        "pooler_waiting",
        "pooler_pinned",
        "pooler_forgotten_server",
        "network_path",
        "unaccounted",
    ),
    f"{{after: {AFTER:g}s}}",
) | {
    "slow_reader": "{after: 5s}",  # a window opens when a sixteenth of the buffer is free
    "backend_busy_unread_input": "{after: 5s}",
    "connection_thrash": "{after: 10s}",
    "long_query": f"{{after: {SECONDS + 60:g}s}}",  # a statement may take as long as the workload
    "idle_leak": "{idle_after: 4s, window: 3s, min_members: 3}",  # members of healthy pools are used more often
}
# A dump's leader idles for as long as the dump takes, six seconds here.
MUCH_DATA = LOWERED | {"idle_in_transaction": "{after: 20s}"}

GROUPS = {
    "sessions that stay": (
        LOWERED,
        "pgbench_directly",
        "pgbench_through_a_small_pool",
        "pgbench_in_transaction_mode",
        "pgbench_in_session_mode",
        "pauses_of_a_pooler",
        "cycles_of_a_pooler",
        "fixed_pool",
        "busy_transactions",
        "listeners",
        "person_at_psql",
        "long_select",
        "lock_waits",
        "unix_clients",
    ),
    "sessions that come and go": (
        LOWERED,
        "warm_up",
        "deployments",
        "connection_storms",
        "health_probes",
        "scale_out",
        "nightly_batch",
        "tls_clients",
    ),
    "much data": (
        MUCH_DATA,
        "parallel_dump",
        "copy_to_a_slow_pipe",
        "slow_reader",
        "steady_load",
        "load_faster_than_taken",
        "logical_replication",
    ),
    "a restart": (LOWERED, "server_restarts"),  # nothing else would survive it
}


@pytest.fixture(scope="module", params=[15, 16, 18])
def server(request):
    with postgres(request.param, **SETTINGS) as running:
        prepare(running)
        yield running


@pytest.fixture
def watched(server, tmp_path):
    """Starts the PgBouncers that workloads need and the two agents; both are returned by name, and ended."""
    with contextlib.ExitStack() as started:

        def agent(name, side, receivers, leaks):
            folder = tmp_path / name.replace(" ", "-")
            folder.mkdir()
            made = Agent(folder, f"[{{name: db, port: {server.port}}}], side: {side}", receivers, leaks=leaks)
            started.callback(made.process.wait)
            started.callback(made.process.kill)
            return made

        def watch(leaks, names):
            pooled = [name for name in names if name in BOUNCERS]
            bouncers = {name: started.enter_context(Bouncer(server.port, **BOUNCERS[name])) for name in pooled}
            told = ", ".join(f"{kind}: {settings}" for kind, settings in leaks.items())
            with ThreadPoolExecutor() as threads:
                alone = threads.submit(agent, "alone", "server", "", told)
                with_logins = threads.submit(agent, "with logins", "both", logins(server, bouncers), told)
            return {"alone": alone.result(), "with logins": with_logins.result()}, bouncers

        yield watch


def logins(server, bouncers):
    consoles = "".join(
        f", pgbouncer/{name}: {{endpoint: '127.0.0.1:{bouncer.port}', username: stats, collection_interval: 1s}}"
        for name, bouncer in bouncers.items()
    )
    return (
        f", postgresql: {{endpoint: '127.0.0.1:{server.port}', username: watcher, collection_interval: 1s}}{consoles}"
        f", serverlog: {{include: ['{server.data_directory.parent}/log']}}"
    )


def play(names, server, bouncers):
    """Plays workloads beside each other, all to their ends; returns what went wrong."""
    with ThreadPoolExecutor(len(names)) as threads:
        played = {}
        for name in names:
            places = [server, bouncers[name]] if name in bouncers else [server]
            played[name] = threads.submit(WORKLOADS[name], *places, SECONDS)
    errors = {name: error for name, work in played.items() if (error := work.exception())}
    return [f"{name} failed: {''.join(traceback.format_exception(error))}" for name, error in errors.items()]


def reports(agents):
    return [
        f"{name}: {event['body']['stringValue']} {event['attributes']}"
        for name, agent in agents.items()
        for event in agent.events()
    ]


def test_every_workload_is_played():
    assert sorted(name for _, *names in GROUPS.values() for name in names) == sorted(WORKLOADS)


@pytest.mark.parametrize("group", GROUPS)
def test_healthy_work_is_not_reported(server, watched, group):
    leaks, *names = GROUPS[group]
    agents, bouncers = watched(leaks, names)
    failed = play(names, server, bouncers)
    for agent in agents.values():
        agent.stop()

    told = reports(agents) + failed
    assert not told, "\n".join(told)
    with_logins = agents["with logins"]
    assert with_logins.points("pgsonar.role.connections"), "the login told nothing"
    assert bool(with_logins.points("db.client.connection.count")) == bool(bouncers), "the consoles told nothing"
    for agent in agents.values():
        assert "ERROR" not in agent.log.read_text()


@pytest.mark.parametrize("server", [15], indirect=True)
def test_the_leader_of_a_parallel_dump_is_information_at_most(server, watched):
    agents, _ = watched(LOWERED, ())
    parallel_dump(server, 1)
    for agent in agents.values():
        agent.stop()

    told = [event["attributes"] for agent in agents.values() for event in agent.events()]
    assert {(one["pgsonar.leak.kind"], one["pgsonar.leak.severity"]) for one in told} == {
        ("idle_in_transaction", "info")
    }, reports(agents)
    assert all("dump" in one["pgsonar.leak.alternative"] for one in told)
