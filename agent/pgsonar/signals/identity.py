"""Who a signal is about: the resources of the agent, of servers, of poolers and of databases elsewhere.

The rule: the same subject has the same service.instance.id from every start of the agent. What tells subjects apart
(the id, the address and port of a server, what it is) and the version of the program are said by pgsonar alone; the
name of the service, the host and everything else may be the user's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from pgsonar.model import Destination, Pooler, Resource, Server, is_own_attribute

# OpenTelemetry's namespace for deterministic service.instance.id (semantic conventions, service).
INSTANCE_NAMESPACE = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")

Attributes = dict[str, str | int]


class Identity:
    """What every resource carries: the host, the agent's name and version, and what the user adds."""

    def __init__(self, *, host: str, host_id: str | None, version: str, extra: Mapping[str, str]) -> None:
        self._host: Attributes = {"host.name": host}
        if host_id:
            self._host["host.id"] = host_id
        self._version = version
        self._extra: Attributes = {name: value for name, value in extra.items() if not is_own_attribute(name)}

    def agent(self) -> Resource:
        """The agent's own resource."""
        return self._resource(f"pgsonar@{self._host.get('host.id') or self._host['host.name']}", {})

    def of(self, server: Server) -> Resource:
        """The resource of what a leak was found on."""
        if server.what == "client":
            return self.destination(Destination(server.address, server.port or 0))
        if server.what == "pgbouncer":
            return self._resource(server.id, _postgresql(server.address, server.port) | {"pgsonar.pooler": "pgbouncer"})
        return self.server(server)

    def server(self, server: Server) -> Resource:
        """The resource of one database server."""
        known = {
            "pgsonar.server.name": server.name,
            "pgsonar.server.role": server.role,
            "pgsonar.server.version": server.version,
        }
        own: Attributes = {key: value for key, value in known.items() if value is not None}
        own |= {f"pgsonar.server.{key}": value for key, value in server.attributes}
        return self._resource(server.id, _postgresql(server.address, server.port) | own)

    def destination(self, destination: Destination) -> Resource:
        """The resource of a database as this host's clients see it."""
        host = self._host.get("host.id") or self._host["host.name"]
        key = f"{host} to {destination.label}"
        return self._resource(key, _postgresql(destination.address, destination.port))

    def pooler(self, pooler: Pooler) -> Resource:
        """The resource of one PgBouncer."""
        own = _postgresql(pooler.address, pooler.port) | {"pgsonar.pooler": "pgbouncer"}
        return self._resource(pooler.id, own)

    def _resource(self, key: str, own: Attributes) -> Resource:
        """What tells a subject apart is its key; beside that what the user adds wins."""
        common: Attributes = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": str(uuid.uuid5(INSTANCE_NAMESPACE, key)),
        }
        return Resource(tuple(sorted((common | own | self._host | self._extra).items())))


def _postgresql(address: str, port: int | None) -> Attributes:
    where: Attributes = {"db.system.name": "postgresql", "server.address": address}
    return where if port is None else where | {"server.port": port}
