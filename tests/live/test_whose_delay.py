"""A login that hangs: whether the client has said nothing, or the server has not read it."""

import contextlib
import socket

import pytest

from pgsonar.demo.clients import WireClient
from playing import Agent, postgres

pytestmark = pytest.mark.live
DELAY = 8  # seconds before a child reads its client's packet, as a name server that does not answer makes it wait


def test_a_server_that_does_not_read_is_told_from_a_client_that_does_not_speak(tmp_path):
    with postgres(16, pre_auth_delay=DELAY) as server, contextlib.ExitStack() as stack:
        agent = Agent(tmp_path, f"[{{port: {server.port}}}]")
        stack.callback(agent.stop)
        speaks = WireClient(server.port, "postgres", login=False, source="127.0.0.5")
        stack.enter_context(contextlib.closing(speaks))
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.6", 0)))
        hung, silent = (
            agent.wait_event("prestartup_stuck", "opened", lambda told, who=who: told["client.address"] == who, 10)
            for who in ("127.0.0.5", "127.0.0.6")
        )

    assert hung["attributes"]["pgsonar.leak.phase"] == "server_not_reading"
    assert "the server has not read what was sent" in hung["body"]["stringValue"]
    assert "pgsonar.leak.phase" not in silent["attributes"]
    assert "never said who it is" in silent["body"]["stringValue"]
