"""Who a signal is about: the resources of the agent, of servers, of poolers and of databases elsewhere.

The rule: the same subject has the same service.instance.id from every start of the agent.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from pgsonar.model import Destination, Pooler, Resource, Server

# OpenTelemetry's namespace for deterministic service.instance.id (semantic conventions, service).
INSTANCE_NAMESPACE = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")


class Identity:
    """What every resource carries: the host, the agent's name and version, and what the user adds."""

    def __init__(self, *, host: str, host_id: str | None, version: str, extra: Mapping[str, str]) -> None:
        self._host: dict[str, str | int] = {"host.name": host}
        if host_id:
            self._host["host.id"] = host_id
        self._version = version
        self._extra: dict[str, str | int] = dict(extra)
        self._agent_id = str(uuid.uuid5(INSTANCE_NAMESPACE, f"pgsonar@{host_id or host}"))

    def agent(self) -> Resource:
        """The agent's own resource."""
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": self._agent_id,
        }
        return _resource(own | self._host | self._extra)

    def server(self, server: Server) -> Resource:
        """The resource of one database server."""
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": str(uuid.uuid5(INSTANCE_NAMESPACE, server.id)),
            "db.system.name": "postgresql",
            "server.address": server.address,
        }
        known = {
            "server.port": server.port,
            "pgsonar.server.name": server.name,
            "pgsonar.server.role": server.role,
            "pgsonar.server.version": server.version,
        }
        own |= {key: value for key, value in known.items() if value is not None}
        own |= {f"pgsonar.server.{key}": value for key, value in server.attributes}
        return _resource(own | self._host | self._extra)

    def destination(self, destination: Destination) -> Resource:
        """The resource of a database as this host's clients see it."""
        host = self._host.get("host.id") or self._host["host.name"]
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": str(uuid.uuid5(INSTANCE_NAMESPACE, f"{host} to {destination.label}")),
            "db.system.name": "postgresql",
            "server.address": destination.address,
            "server.port": destination.port,
        }
        return _resource(own | self._host | self._extra)

    def pooler(self, pooler: Pooler) -> Resource:
        """The resource of one PgBouncer."""
        own: dict[str, str | int] = {
            "service.name": "pgsonar",
            "service.version": self._version,
            "service.instance.id": str(uuid.uuid5(INSTANCE_NAMESPACE, pooler.id)),
            "db.system.name": "postgresql",
            "server.address": pooler.address,
            "pgsonar.pooler": "pgbouncer",
        }
        if pooler.port is not None:
            own["server.port"] = pooler.port
        return _resource(own | self._host | self._extra)


def _resource(attributes: dict[str, str | int]) -> Resource:
    return Resource(tuple(sorted(attributes.items())))
