"""Two processes in network namespaces of their own, joined by a wire: the host's own namespace sees nothing of it.

Each program first leaves its namespace and says `ready`; a line on its input says that the wire is there.
"""

import os
import subprocess
import sys
from contextlib import contextmanager

import needs

# Tests that run side by side must not meet under one address, neither those of one run nor of two: whose address it is
# could not be told. What is recorded has the same ones always.
PLACE = os.getpid() % (64 << 8) if "PYTEST_VERSION" in os.environ else None
NETWORK = "10.77.0" if PLACE is None else f"10.{64 + (PLACE >> 8)}.{PLACE & 255}"
NETWORK_6 = "fd77:" if PLACE is None else f"fd77::{0x1000 + PLACE:x}"
SERVER, CLIENT = f"{NETWORK}.1", f"{NETWORK}.2"
SERVER_6, CLIENT_6 = f"{NETWORK_6}:1", f"{NETWORK_6}:2"
UNSHARE = """
import ctypes, socket, sys, time
assert ctypes.CDLL(None).unshare(0x40000000) == 0
print("ready", flush=True)
sys.stdin.readline()
"""

# A server, and a client of it that keeps its connection.
SERVES = f"""
server = socket.create_server(("{SERVER}", 5432))
print("listens", flush=True)
held = server.accept()
print("accepted", flush=True)
sys.stdin.readline()
"""
DIALS = f"""
held = socket.create_connection(("{SERVER}", 5432))
print("connected", flush=True)
sys.stdin.readline()
"""


def start(program, *arguments):
    command = [sys.executable, "-c", UNSHARE + program, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def say(process, line=""):
    process.stdin.write(line + "\n")
    process.stdin.flush()


def link(server, client):
    """A pair of interfaces between the two namespaces, made from inside them."""
    inside, far = ["nsenter", "-t", str(server), "-n"], ["nsenter", "-t", str(client), "-n"]
    for command in (
        [*inside, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", str(client)],
        [*inside, "ip", "addr", "add", f"{SERVER}/24", "dev", "up0"],
        [*inside, "ip", "link", "set", "up0", "up"],
        [*far, "ip", "addr", "add", f"{CLIENT}/24", "dev", "down0"],
        [*far, "ip", "link", "set", "down0", "up"],
    ):
        subprocess.run(command, check=True)


@contextmanager
def apart(server_program, client_program, *arguments):
    """Both processes; the server has said that it `listens` before the client is told of the wire."""
    needs.namespaces()
    needs.programs("ip", "nsenter")
    with start(server_program, *arguments) as server, start(client_program, *arguments) as client:
        try:
            link(server.pid, client.pid)
            say(server)
            assert server.stdout.readline() == "listens\n"
            say(client)
            yield server, client
        finally:
            client.kill()
            server.kill()
