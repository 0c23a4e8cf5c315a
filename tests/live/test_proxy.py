"""HAProxy between the application and the server: it is called a proxy, and never the culprit."""

import contextlib
import json
import socket
import subprocess
import time

import pytest

import needs
from pgsonar.demo.clients import WireClient
from playing import Agent, ask, postgres
from ports import free_port

pytestmark = pytest.mark.live
CONFIG = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend applications
    bind 127.0.0.1:{port}
    default_backend database
backend database
    server one 127.0.0.1:{server}
"""


@contextlib.contextmanager
def haproxy(folder, server):
    """A proxy in front of a server; yields its port and pid."""
    program = needs.either("haproxy", "/usr/sbin/haproxy")
    port = free_port()
    path = folder / "haproxy.cfg"
    path.write_text(CONFIG.format(port=port, server=server.port))
    with subprocess.Popen([program, "-db", "-q", "-f", str(path)]) as process:
        try:
            wait_for(lambda: answers(port))
            yield port, process.pid
        finally:
            process.kill()


def answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_proxy_is_called_a_proxy(tmp_path):
    with postgres(16) as server, haproxy(tmp_path, server) as (port, pid), contextlib.ExitStack() as stack:
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute("create role app login")
        agent = Agent(tmp_path, f"[{{port: {server.port}}}]")
        stack.callback(agent.stop)
        through = stack.enter_context(contextlib.closing(WireClient(port, "app")))
        through.execute("begin")
        event = agent.wait_event("idle_in_transaction", "opened", lambda _: True, 10)["attributes"]
        target = f"{{sockets: {{targets: [{{port: {server.port}}}]}}}}"
        lowered = ("--set", "processors.leaks.idle_in_transaction.after=1s")
        _, text = ask(tmp_path, "scan", target, *lowered)
        _, told = ask(tmp_path, "scan", target, "--format", "json", *lowered)

    assert (event["pgsonar.proxy.pid"], event["pgsonar.proxy.command"]) == (pid, "haproxy")
    assert f"the proxy haproxy (pid {pid})" in event["pgsonar.between"]
    assert "whose it is cannot be told" in event["pgsonar.leak.alternative"]
    assert not [name for name in event if name.startswith("pgsonar.client.")]
    assert "behind the proxy haproxy" in text
    assert "culprit" not in text
    (verdict,) = json.loads(told)["verdicts"]
    assert verdict["client"]["command"] == "haproxy"
