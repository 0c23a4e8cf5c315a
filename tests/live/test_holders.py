"""Slots that run out have a name, though nothing that holds them is a leak yet."""

import contextlib
import os

import pytest

from pgsonar.demo.clients import WireClient
from playing import Agent, ask, postgres

pytestmark = pytest.mark.live
HELD = 9  # of ten slots: a threshold below all that are configured for leaks of idle connections


def test_a_full_server_names_who_holds_it(tmp_path):
    with postgres(16, max_connections=13) as server, contextlib.ExitStack() as stack:
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute("create role app login")
        agent = Agent(tmp_path, f"[{{port: {server.port}}}]")
        stack.callback(agent.stop)
        for _ in range(HELD):
            stack.enter_context(contextlib.closing(WireClient(server.port, "app"))).execute("select 1")

        def names_all(told):
            return told.get("pgsonar.holder.1", "").startswith(f"app@127.0.0.1 {HELD} {HELD} {HELD} ")

        event = agent.wait_event("pool_exhausted", "opened", names_all, 10)
        _, screen = ask(tmp_path, "scan", f"{{sockets: {{targets: [{{port: {server.port}}}]}}}}")
        others = {told["attributes"]["pgsonar.leak.kind"] for told in agent.events(name="opened")}

    assert f"(pid {os.getpid()})" in event["attributes"]["pgsonar.holder.1"]
    body = event["body"]["stringValue"]
    assert f"Most are held by app@127.0.0.1: {HELD} slots, {HELD} idle, {HELD} opened in the last minute, by " in body
    assert f"app@127.0.0.1: {HELD} slots, {HELD} idle" in " ".join(screen.split())
    assert others == {"pool_exhausted"}
