"""The process at the other end: on this host, in another network namespace, and where it cannot be told."""

import os
import pwd
import socket
import subprocess
import sys
import threading
import time

import pytest

from pgsonar.model import Endpoint
from pgsonar.sources.clients import ClientFinder, Hop
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.processes import Processes
from pgsonar.sources.sockets import read_connections
from wire import CLIENT, SERVER, apart

OWN = os.stat("/proc/self/ns/net").st_ino
HOLDER = """
import socket, sys
held = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print(*(one.getsockname()[1] for one in held), flush=True)
sys.stdin.readline()
"""
PAIR = f"""
server = socket.create_server(("{SERVER}", 5432))
print("listens", flush=True)
held = server.accept()
sys.stdin.readline()
"""
DIAL = f"""
held = socket.create_connection(("{SERVER}", 5432))
print(held.getsockname()[1], flush=True)
sys.stdin.readline()
"""


def finder():
    return ClientFinder(Processes(), OwnerReader(), read_connections)


def look_for(finder, *hops):
    """As often as it takes: one call has little time."""
    found = {}
    while missing := [hop for hop in hops if hop not in found]:
        found |= finder.find(missing)
    return found


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family, backlog=50) as server:
        yield server


def held_by_another(listener, count):
    address, port = listener.getsockname()[:2]
    command = [sys.executable, "-c", HOLDER, address, str(port), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ports = [int(word) for word in process.stdout.readline().split()]
    return process, [Hop(OWN, Endpoint(address, port), Endpoint(address, one)) for one in ports]


def test_a_client_of_this_host_is_named(listener):
    process, hops = held_by_another(listener, 3)
    with process:
        found = look_for(finder(), *hops)
        process.stdin.close()

    (client,) = set(found.values())
    assert client.pid == process.pid
    assert client.command.startswith("python")
    assert client.user == pwd.getpwuid(os.geteuid()).pw_name
    assert f"pid {process.pid}" in client.label


def test_a_client_in_another_network_namespace_is_named():
    with apart(PAIR, DIAL) as (server, client):
        port = int(client.stdout.readline())
        netns = os.stat(f"/proc/{server.pid}/ns/net").st_ino
        hop = Hop(netns, Endpoint(SERVER, 5432), Endpoint(CLIENT, port))
        found = look_for(finder(), hop)

    assert found[hop].pid == client.pid


def test_who_is_elsewhere_or_gone_is_nobody(listener):
    address, port = listener.getsockname()[:2]
    elsewhere = Hop(OWN, Endpoint("10.9.9.9", 5432), Endpoint("192.0.2.7", 40000))
    gone = Hop(OWN, Endpoint(address, port), Endpoint(address, 1))
    assert look_for(finder(), elsewhere, gone) == {elsewhere: None, gone: None}


def test_who_may_not_look_names_nobody_and_counts_the_refusals(listener):
    if os.geteuid():
        pytest.skip("needs root, to give it up")
    process, hops = held_by_another(listener, 1)
    told = {}

    def without_privileges():
        # Of this thread alone (man 7 credentials): glibc would change every thread.
        import ctypes

        libc = ctypes.CDLL(None)
        assert libc.syscall(117, 65534, 65534, 65534) == 0  # setresuid
        looking = finder()
        told["found"] = look_for(looking, *hops)
        told["refused"] = looking.refused

    with process:
        thread = threading.Thread(target=without_privileges)
        thread.start()
        thread.join()
        process.stdin.close()

    assert told == {"found": {hops[0]: None}, "refused": told["refused"]}
    assert told["refused"] >= 1


def test_a_second_connection_of_a_known_client_is_found_without_a_search(listener):
    process, hops = held_by_another(listener, 2)
    looking = finder()
    asked = []
    read = looking._owners.inodes
    with process:
        look_for(looking, hops[0])
        looking._owners.inodes = lambda pid, **how: asked.append(pid) or read(pid, **how)
        look_for(looking, hops[1])
        process.stdin.close()

    assert asked == [process.pid]


def test_a_search_that_runs_out_of_time_goes_on_where_it_stopped(listener, monkeypatch):
    process, hops = held_by_another(listener, 1)
    looking = finder()
    asked = []
    read = looking._owners.inodes

    def slowly(pid, **how):
        asked.append(pid)
        time.sleep(0.01)
        return read(pid, **how)

    monkeypatch.setattr("pgsonar.sources.clients.BUDGET", 0.03)
    looking._owners.inodes = slowly
    with process:
        found = look_for(looking, *hops)
        process.stdin.close()

    assert found[hops[0]].pid == process.pid
    assert len(asked) == len(set(asked)), "no process is asked twice"
