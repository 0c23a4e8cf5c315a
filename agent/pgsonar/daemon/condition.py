"""What a pipeline cannot see or tell at the moment, for people and, counted, for a metric.

The rule: each says what is lost and what would change that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgsonar.model import SECOND, Lack, Server
from pgsonar.pipeline.discovery import LIMIT_HINT
from pgsonar.pipeline.namespaces import Place
from pgsonar.pipeline.pipeline import Pipeline
from pgsonar.sources.privileges import LOOKS_INTO_PROCESSES

# What sources say is missing names the privilege that would help.
_PRIVILEGE = re.compile(r"CAP_[A-Z_]+|pg_monitor")
_DESCRIPTORS = (
    "descriptors of its processes may not be looked into, so titles alone join sockets and sessions (run as the "
    f"postgres user with its group, or with {LOOKS_INTO_PROCESSES})"
)


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
    return [lack.text for lack in _sockets(pipeline)]


def degraded(pipeline: Pipeline) -> list[str]:
    """What cannot be told, and what would change that."""
    reasons = [lack.text for lack in lacks(pipeline)]
    for server in pipeline.servers.values():
        told = pipeline.untold.get(server.id, {})
        reasons += [f"{server.label}: {kind} cannot be told: {reason}" for kind, reason in told.items()]
    return reasons


def lacks(pipeline: Pipeline) -> list[Lack]:
    """The capabilities, sources, logins and logs that are missing."""
    return [*_sockets(pipeline), *_scanning(pipeline), *_answers(pipeline), *_servers(pipeline)]


def _sockets(pipeline: Pipeline) -> Iterator[Lack]:
    watched = pipeline.namespaces.watched()
    servers = [s for s in pipeline.servers.values() if s.port is not None and s.netns]
    places: list[Place] = [*servers, *pipeline.sides]
    for place in places:
        if place.netns not in watched:
            what = "its network namespace cannot be read, so its sockets are not seen"
            yield Lack("source", "sockets", what, place.label)


def _scanning(pipeline: Pipeline) -> Iterator[Lack]:
    """What keeps the kernel from being asked in the best way."""
    for report in pipeline.namespaces.report():
        where = f"network namespace {report['netns']}"
        if reason := report["reason"]:
            what = f"{reason}; ages of idleness and what lives between two scans are not seen"
            yield _missing(what, where, "sock_diag")
        if refusal := report["ends_refused"]:
            what = f"the kernel does not tell of the ends of connections ({refusal}); what is missed is only counted"
            yield Lack("source", "destroy_events", what, where)


def _answers(pipeline: Pipeline) -> Iterator[Lack]:
    """Whoever was asked and does not answer."""
    for poller in pipeline.pollers():
        if problem := poller.problem:
            asked = problem.partition(":")[0]  # receivers.postgresql/orders
            yield Lack("login", asked, f"{problem}; what only it tells is missing")
    for problem in pipeline.log_problems:
        yield Lack("log", "receivers.serverlog", "refusals in it are not counted", problem)
    probe = pipeline.sources.probe
    if probe is not None and probe.problem:
        yield _missing(probe.problem, "", "probe")


def _servers(pipeline: Pipeline) -> Iterator[Lack]:
    for pooler in pipeline.poolers.poolers.values():
        for sentence in pooler.missing:
            yield _missing(sentence, pooler.label, "pgbouncer")
    for server in pipeline.servers.values():
        if server.limits.guessed:
            what = f"the limit of {server.limits.max_connections} is a guess ({LIMIT_HINT})"
            yield Lack("source", "limit", what, server.label)
        elif server.limits.max_connections is None:
            what = f"its limit is unknown, so its slots are not judged ({LIMIT_HINT})"
            yield Lack("source", "limit", what, server.label)
        if _hides_descriptors(pipeline, server):
            yield Lack("capability", "CAP_SYS_PTRACE", _DESCRIPTORS, server.label)
        for sentence in server.missing:
            yield _missing(sentence, server.label, "server")


def _hides_descriptors(pipeline: Pipeline, server: Server) -> bool:
    children = [b for b in pipeline.backends.of_server(server.id) if b.kind_may_have_socket]
    return bool(server.pid and children) and all(backend.inodes is None for backend in children)


def _missing(sentence: str, subject: str, otherwise: str) -> Lack:
    """By the privilege that would help, else by the source that lacks it."""
    privilege = _PRIVILEGE.search(sentence)
    if privilege is not None:
        return Lack("capability", privilege[0], sentence, subject)
    return Lack("source", otherwise, sentence, subject)
