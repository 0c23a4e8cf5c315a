"""What a pipeline cannot see or tell at the moment, for people.

The rule: each line says what is lost and what would change that.
"""

from __future__ import annotations

from pgsonar.discovery import LIMIT_HINT
from pgsonar.model import SECOND
from pgsonar.namespaces import Place
from pgsonar.pipeline import Pipeline


def blind(pipeline: Pipeline, at: int) -> list[str]:
    """Servers whose sockets have not been scanned completely for a while."""
    patience = pipeline.sources.budget.patience
    places: list[Place] = [*pipeline.servers.values(), *pipeline.sides]
    return [
        f"{place.label}: no complete scan for {patience // SECOND} s"
        for place in places
        if pipeline.namespaces.is_stale(place.netns, at, patience)
    ]


def unwatched(pipeline: Pipeline) -> list[str]:
    """Places whose sockets cannot be scanned at all, which no restart would mend."""
    watched = pipeline.namespaces.watched()
    servers = [s for s in pipeline.servers.values() if s.port is not None and s.netns]
    places: list[Place] = [*servers, *pipeline.sides]
    return [
        f"{place.label}: its network namespace cannot be read, so its sockets are not seen"
        for place in places
        if place.netns not in watched
    ]


def degraded(pipeline: Pipeline) -> list[str]:
    """What cannot be told, and what would change that."""
    reasons = unwatched(pipeline)
    reasons += [p for poller in pipeline.pollers() if (p := poller.problem)]
    reasons += pipeline.log_problems
    probe = pipeline.sources.probe
    reasons += [probe.problem] if probe is not None and probe.problem else []
    reasons += [missing for pooler in pipeline.poolers.poolers.values() for missing in pooler.missing]
    for server in pipeline.servers.values():
        if server.limits.guessed:
            reasons.append(f"{server.label}: the limit of {server.limits.max_connections} is a guess ({LIMIT_HINT})")
        told = pipeline.untold.get(server.id, {})
        reasons += [f"{server.label}: {kind} cannot be told: {reason}" for kind, reason in told.items()]
        reasons += [f"{server.label}: {missing}" for missing in server.missing]
    return reasons
