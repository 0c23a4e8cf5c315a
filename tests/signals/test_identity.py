"""Whose words stand on a resource: what tells subjects apart is pgsonar's, the rest may be the user's."""

import pytest

from build import server
from pgsonar.model import Destination, Pooler, is_own_attribute
from pgsonar.signals.identity import Identity

OWN = {
    "service.instance.id": "mine",
    "service.version": "9.9",
    "server.address": "elsewhere",
    "server.port": "1",
    "db.system.name": "mysql",
    "pgsonar.pooler": "odyssey",
    "pgsonar.server.name": "main",
    "pgsonar.server.role": "primary",
    "pgsonar.server.cluster": "c",
}
THEIRS = {
    "service.name": "shop-postgres",
    "service.namespace": "shop",
    "deployment.environment.name": "production",
    "deployment.environment": "production",
    "host.name": "node-7",
    "host.id": "i-0123",
    "k8s.cluster.name": "blue",
    "server.addresses": "x",
}


def identity(extra):
    return Identity(host="h", host_id="m", version="1", extra=extra)


def resources(made):
    pooler = Pooler(id="p", pids=(1,), netns=1, port=6432, address="db-1")
    servers = [server(id="s1", port=5432), server(id="s2", port=5433)]
    subjects = [made.agent(), made.destination(Destination("db-9", 5432)), made.pooler(pooler)]
    return [dict(one.attributes) for one in [*subjects, *map(made.server, servers), *map(made.of, servers)]]


def test_what_tells_subjects_apart_is_as_if_the_user_had_said_nothing():
    assert resources(identity(OWN)) == resources(identity({}))


def test_everything_else_is_the_users_on_every_resource():
    for told in resources(identity(OWN | THEIRS)):
        assert {name: told[name] for name in THEIRS} == THEIRS
        assert told["service.version"] == "1"


def test_two_servers_stay_two_whatever_the_variables_say():
    first, second = (dict(identity(OWN).server(server(id=key)).attributes) for key in ("s1", "s2"))
    assert first["service.instance.id"] != second["service.instance.id"]


@pytest.mark.parametrize("extra", [{}, THEIRS])
def test_all_that_pgsonar_puts_on_a_resource_is_its_own_or_named_as_the_users(extra):
    for told in resources(identity(extra)):
        assert {name for name in told if not is_own_attribute(name)} <= {"service.name", "host.name", "host.id", *extra}
