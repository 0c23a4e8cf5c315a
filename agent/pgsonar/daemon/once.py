"""One pass through the pipeline in the caller's own thread, for commands that look once and end.

The rule: the same stages as the daemon's, in the same order; only who calls them differs.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pgsonar import __version__, clock
from pgsonar.config.schema import Config, LeaksProcessor, Target
from pgsonar.daemon.condition import unwatched
from pgsonar.daemon.opening import OpenSources, host_id, open_sources
from pgsonar.episodes.verdicts import Look, Seen, untold, verdicts
from pgsonar.model import Moment, Sight
from pgsonar.pipeline.pipeline import Pipeline
from pgsonar.pipeline.reporting import Reporter
from pgsonar.signals.identity import Identity
from pgsonar.sources.sockets import Step
from pgsonar.tracking.dating import date_back

CLIENTS_WITHIN = 3_000_000_000  # ns to find the processes of clients on this host
ANSWER_WITHIN = 8.0  # seconds a login has: to connect (5) and to answer (3)


@contextmanager
def opened(config: Config) -> Iterator[tuple[Pipeline, OpenSources]]:
    """A pipeline on the outside world as configured, for one look. What the daemon would log stands on the screen."""
    logging.getLogger("pgsonar").addHandler(logging.NullHandler())
    sources = open_sources(config)
    try:
        identity = Identity(host=socket.gethostname(), host_id=host_id(), version=__version__, extra={})
        reporter = Reporter({}, identity, clock.now().unix, config.telemetry)
        yield Pipeline(sources, config.leaks or LeaksProcessor(), reporter), sources
    finally:
        sources.sampler.close()


def look(pipeline: Pipeline, sources: OpenSources) -> Look:
    """One pass through the pipeline, without its thread."""
    pipeline.discover(clock.now())
    while sources.applications is not None and sources.applications.is_looking:
        pipeline.discover(clock.now())
    sampler = sources.sampler
    # What the first step finds, the second one asks TCP_INFO of; and a slot that no session stands for is believed when
    # two readings in a row lack it.
    for _ in range(2):
        for poller in sources.pollers():
            poller.ask_once(ANSWER_WITHIN)
        sampler.step(Step.DETAILS)
        pipeline.fast_tick()
        pipeline.title_tick(clock.now().at)
        pipeline.take_readings()
    for netns in pipeline.namespaces.watched():
        pipeline.connections.note(sampler.details(netns))
    pipeline.discover(clock.now())  # with what the logins told
    now = clock.now()
    at = now.at
    pipeline.title_tick(at)
    pipeline.join_poolers(at)
    pipeline.namespaces.read(at)
    sights = [pipeline.sights.of_server(server, at) for server in pipeline.servers.values()]
    for sight in sights:
        date_back(sight.connections, sight.backends)
    deadline = at + CLIENTS_WITHIN
    while clock.now().at < deadline and not pipeline.attribution.name([b for s in sights for b in s.backends], at):
        pass
    outgoing = [c for _, there in pipeline.destinations() for c in there]
    while clock.now().at < deadline and not pipeline.attribution.name_outgoing(outgoing, at):
        pass
    unmatched = sources.finder.unmatched() if sources.sees_servers else []
    missing = [f"the target {target_text(target)} matches no running server" for target in unmatched]
    missing += [problem for poller in sources.pollers() if (problem := poller.problem)]
    return Look(
        moment=now,
        servers=[_seen(pipeline, sight, now) for sight in sights],
        poolings=[pipeline.sights.of_pooler(pooler, at) for pooler in pipeline.poolers.poolers.values()],
        destinations=pipeline.destinations(),
        missing=missing + unwatched(pipeline),
    )


def _seen(pipeline: Pipeline, sight: Sight, now: Moment) -> Seen:
    kinds = tuple(rule.kind for rule in pipeline.rules.servers if rule.is_on)
    return Seen(sight, kinds, verdicts(pipeline.findings([sight], now), sight.at), untold(sight, pipeline.rules))


def target_text(target: Target) -> str:
    """What a target of the configuration is told by."""
    return str(target.name or target.port or target.data_directory or f"pid {target.pid}")
