"""Where applications talk to databases: our own network namespace, and others once a connection is met there."""

import os
import time

from pgsonar.sources.applications import ApplicationFinder
from pgsonar.sources.hostnamespaces import HostNamespaces
from pgsonar.sources.processes import Processes
from pgsonar.sources.sockets import read_connections
from wire import DIALS, SERVES, apart


def finder(*ports, slow=0.0):
    processes = Processes()

    def read(directory, wanted):
        time.sleep(slow)
        return read_connections(directory, wanted)

    return ApplicationFinder(processes, HostNamespaces(processes), read, ports)


def netns(pid):
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def test_our_own_is_always_one():
    (own,) = finder(1).find()
    assert (own.netns, own.pid, own.ports) == (netns("self"), 0, {1})


def test_another_is_one_while_it_has_connections_to_databases_and_processes():
    with apart(SERVES, DIALS) as (_, client):
        client.stdout.readline()
        looks = finder(5432)
        sides = {side.netns: side for side in looks.find()}
        elsewhere = {side.netns for side in finder(5433).find()}
        inside = netns(client.pid)

    assert sides[inside].pid == client.pid
    assert netns("self") in sides
    assert inside not in elsewhere


def test_a_host_of_many_namespaces_is_looked_through_in_several_calls():
    with apart(SERVES, DIALS) as (_, client):
        client.stdout.readline()
        looks = finder(5432, slow=0.02)  # longer than one call may take
        seen = [{side.netns for side in looks.find()}]
        while looks.is_looking:
            seen.append({side.netns for side in looks.find()})
        inside = netns(client.pid)

    assert inside in seen[-1]
    assert len(seen) > 1


def test_what_was_looked_through_is_left_alone_for_a_while():
    asked = []
    processes = Processes()
    with apart(SERVES, DIALS) as (_, client):
        client.stdout.readline()
        looks = ApplicationFinder(
            processes, HostNamespaces(processes), lambda directory, _: asked.append(directory) or [], [1]
        )
        looks.find()
        while looks.is_looking:
            looks.find()
        first = len(asked)
        looks.find()

    assert len(asked) == first >= 2
