"""Network namespaces for the live tests: a server's and a client's, joined by a wire that can be cut.

The rule: nothing listens on the machine's own addresses, and both namespaces end with the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess

import needs
from wire import CLIENT, CLIENT_6, SERVER, SERVER_6, link, say, start

CLONE_NEWNET = 0x40000000  # sched.h
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def entered(pid):
    """The calling thread is in the network namespace of a process: sockets and processes it makes stay there."""
    own, other = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _enter(other)
        yield
    finally:
        _enter(own)
        os.close(own)
        os.close(other)


def _enter(descriptor):
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Wire:
    """`server` and `client` are pids of processes in the two namespaces."""

    def __init__(self, server, client):
        self.server, self.client = server.pid, client.pid

    def on_server(self):
        return entered(self.server)

    def on_client(self):
        return entered(self.client)

    def cut(self):
        """Nothing passes any more, and nobody is told."""
        self._set("down")

    def mend(self):
        self._set("up")
        _run(
            "nsenter", "-t", str(self.client), "-n", "ip", "addr", "replace", f"{CLIENT_6}/64", "dev", "down0", "nodad"
        )

    def _set(self, how):
        _run("nsenter", "-t", str(self.client), "-n", "ip", "link", "set", "down0", how)


@contextlib.contextmanager
def wired():
    """Two namespaces with a wire between them, IPv4 and IPv6."""
    needs.namespaces()
    needs.programs("ip", "nsenter")
    waits = "sys.stdin.readline()\n"
    with start(waits) as server, start(waits) as client:
        try:
            link(server.pid, client.pid)
            for pid, device, address in ((server.pid, "up0", SERVER_6), (client.pid, "down0", CLIENT_6)):
                inside = ["nsenter", "-t", str(pid), "-n", "ip"]
                _run(*inside, "link", "set", "lo", "up")
                _run(*inside, "addr", "add", f"{address}/64", "dev", device, "nodad")
            yield Wire(server, client)
        finally:
            for process in (server, client):
                with contextlib.suppress(OSError):
                    say(process)
                process.kill()


def _run(*command):
    subprocess.run(command, check=True)


__all__ = ["CLIENT", "CLIENT_6", "SERVER", "SERVER_6", "Wire", "entered", "wired"]
