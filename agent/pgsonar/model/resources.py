"""Who a signal is about."""

from __future__ import annotations

from typing import NamedTuple

# What says which server a signal is about, and by which program it was made: never what a user writes, since one value
# would stand on all servers. https://opentelemetry.io/docs/specs/semconv/resource/service/ wants an id of each.
_OWN_ATTRIBUTES = frozenset(
    {"service.instance.id", "service.version", "server.address", "server.port", "db.system.name", "pgsonar.pooler"}
)


class Resource(NamedTuple):
    """Who a signal is about, as OpenTelemetry resource attributes."""

    attributes: tuple[tuple[str, str | int], ...]


def is_own_attribute(name: str) -> bool:
    """Whether an attribute of a resource is pgsonar's to say; `service.name`, `host.name` and others are the user's."""
    return name in _OWN_ATTRIBUTES or name.startswith("pgsonar.server.")
