"""The process at the other end: on this host, in another network namespace, and where it cannot be told."""

import os
import pwd
import socket
import subprocess
import sys
import threading
import time

import pytest

import needs
from pgsonar.model import Endpoint
from pgsonar.sources.clients import ClientFinder, Hop, LocalEnd
from pgsonar.sources.conntrack import Original, read_translations
from pgsonar.sources.hostnamespaces import HostNamespaces
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.processes import Processes
from pgsonar.sources.sockets import read_connections
from pgsonar.sources.unixdiag import read_unix_ends
from wire import CLIENT, SERVER, apart, say, start

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


def finder(owners=None, translations=read_translations):
    processes = Processes()
    return ClientFinder(
        processes,
        HostNamespaces(processes),
        owners or OwnerReader(),
        read_connections=read_connections,
        read_unix_ends=read_unix_ends,
        read_translations=translations,
    )


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


def test_who_may_not_look_names_nobody(listener):
    needs.root("to give it up")
    process, hops = held_by_another(listener, 1)
    told = {}

    def without_privileges():
        # Of this thread alone (man 7 credentials): glibc would change every thread.
        import ctypes

        libc = ctypes.CDLL(None)
        assert libc.syscall(117, 65534, 65534, 65534) == 0  # setresuid
        told.update(look_for(finder(), *hops))

    with process:
        thread = threading.Thread(target=without_privileges)
        thread.start()
        thread.join()
        process.stdin.close()

    assert told == {hops[0]: None}


def test_a_second_connection_of_a_known_client_is_found_without_a_search(listener):
    process, hops = held_by_another(listener, 2)
    asked = []
    owners = OwnerReader()
    read = owners.inodes
    looking = finder(owners)
    with process:
        look_for(looking, hops[0])
        owners.inodes = lambda pid, **how: asked.append(pid) or read(pid, **how)
        look_for(looking, hops[1])
        process.stdin.close()

    assert asked == [process.pid]


def test_a_search_that_runs_out_of_time_goes_on_where_it_stopped(listener, monkeypatch):
    process, hops = held_by_another(listener, 1)
    owners = OwnerReader()
    read, asked = owners.inodes, []

    def slowly(pid, **how):
        asked.append(pid)
        time.sleep(0.01)
        return read(pid, **how)

    monkeypatch.setattr("pgsonar.sources.clients.BUDGET", 0.03)
    owners.inodes = slowly
    with process:
        found = look_for(finder(owners), *hops)
        process.stdin.close()

    assert found[hops[0]].pid == process.pid
    assert len(asked) == len(set(asked)), "no process is asked twice"


LOCAL_SERVER = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listens", flush=True)
held = server.accept()
print("accepted", flush=True)
sys.stdin.readline()
"""
LOCAL_CLIENT = """
import socket, sys
held = socket.socket(socket.AF_UNIX)
held.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.readline()
"""


def started(program, *arguments, before=()):
    """A Python program that tells each step by a line."""
    command = [*before, sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


@pytest.mark.parametrize("server_apart", [False, True], ids=["one namespace", "the server in a namespace of its own"])
def test_a_client_over_a_unix_socket_is_named(tmp_path, server_apart):
    path = str(tmp_path / "socket")
    before = ("unshare", "--net") if server_apart else ()
    if server_apart:
        needs.namespaces()
    with started(LOCAL_SERVER, path, before=before) as server, started(LOCAL_CLIENT, path) as client:
        server.stdout.readline()
        end = LocalEnd(server.pid, OwnerReader().inodes(server.pid, postmaster=server.pid, first_only=False))
        stranger = LocalEnd(os.getpid(), ())
        looks = finder()
        found = {}
        while missing := [one for one in (end, stranger) if one not in found]:
            found |= looks.find_local(missing)
        server.kill()
        client.kill()

    assert found[end].pid == client.pid
    assert found[stranger] is None


def test_a_process_that_has_ended_has_no_client():
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert finder().find_local([LocalEnd(gone.pid, (1,))]) == {LocalEnd(gone.pid, (1,)): None}


TRANSLATED = """
import socket, subprocess
for command in (
    "ip link set lo up",
    "nft add table ip t",
    "nft add chain ip t out { type nat hook output priority -100 ; }",
    "nft add rule ip t out ip daddr 127.0.0.9 tcp dport 15432 dnat to 127.0.0.1:5432",
    "nft add chain ip t post { type nat hook postrouting priority 100 ; }",
    "nft add rule ip t post tcp dport 5432 ct original proto-src >= 1 snat to {source}",
):
    subprocess.run(command.split(), check=True)
server = socket.create_server(("127.0.0.1", 5432))
print("listens", flush=True)
held = server.accept()[0]
print(held.getpeername()[0], held.getpeername()[1], flush=True)
sys.stdin.readline()
"""
DIALS = """
import socket, sys
held = socket.create_connection(("127.0.0.9", 15432))
print(held.getsockname()[1], flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.77"], ids=["the server's address", "and the client's"])
def test_a_client_whose_addresses_are_translated_is_named(source):
    """As behind a service address of Kubernetes or a published port: the server's end is not what was dialled."""
    needs.namespaces()
    needs.programs("nft", "nsenter", "ip")
    with start(TRANSLATED.replace("{source}", source)) as server:
        say(server)
        if server.stdout.readline() != "listens\n":
            pytest.skip("cannot be installed: a kernel that translates addresses")
        with started(DIALS, before=("nsenter", "-t", str(server.pid), "-n")) as client:
            address, port = server.stdout.readline().split()
            netns = os.stat(f"/proc/{server.pid}/ns/net").st_ino
            hop = Hop(netns, Endpoint("127.0.0.1", 5432), Endpoint(address, int(port)))
            gone = Hop(netns, Endpoint("127.0.0.1", 5432), Endpoint(address, 1))
            looks = finder()
            found = look_for(looks, hop)
            is_astray = bool(looks.astray)
            assert look_for(looks, gone) == {gone: None}
            assert looks.astray == {gone}
            client.kill()
        server.kill()

    assert (address, found[hop].pid) == (source, client.pid)
    assert found[hop].dialled == Endpoint("127.0.0.9", 15432)
    assert not is_astray


def test_a_namespace_that_may_not_be_read_is_not_called_a_translation():
    looks = finder()
    hop = Hop(5, Endpoint("127.0.0.1", 5432), Endpoint("127.0.0.1", 40000))  # a number that is no namespace's

    assert looks.find([hop]) == {hop: None}
    assert looks.astray == set()


def test_a_translation_that_leads_to_nobody_is_one():
    """The client's container is gone, and its entry in the table of translations stands yet."""
    own = Hop(OWN, Endpoint("127.0.0.1", 5432), Endpoint("127.0.0.1", 40000))
    original = Original(Endpoint("127.0.0.1", 40001), Endpoint("127.0.0.9", 5432))
    looks = finder(translations=lambda directory: {(own.local, own.remote): original})

    assert looks.find([own]) == {own: None}
    assert looks.astray == {own}
