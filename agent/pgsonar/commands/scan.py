"""Looks once at every PostgreSQL server on this host and shows who holds its slots. Needs no login and no slot."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import socket
import sys
from datetime import UTC, datetime

from pgsonar import __version__, clock
from pgsonar.commands.options import add_config_options
from pgsonar.config.load import load
from pgsonar.model import Moment, Sight
from pgsonar.pipeline import Pipeline
from pgsonar.service import host_id, open_sources
from pgsonar.signals.metrics import Identity
from pgsonar.sources.sockets import Step
from pgsonar.views.scan import scan_lines
from pgsonar.views.scan_json import scan_object

WIDTHS = (80, 100)
CLIENTS_WITHIN = 3_000_000_000  # ns to find the processes of clients on this host
ANSWER_WITHIN = 8.0  # seconds a login has: to connect (5) and to answer (3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")


def run(arguments: argparse.Namespace) -> int:
    """Looks once, prints, ends: 0 when a server was found, 1 when none was."""
    config = load(arguments.config, arguments.set, os.environ)
    # What the daemon would log stands on the screen here.
    logging.getLogger("pgsonar").addHandler(logging.NullHandler())
    sources = open_sources(config)
    try:
        identity = Identity(host=socket.gethostname(), host_id=host_id(), version=__version__, extra={})
        pipeline = Pipeline(sources, None, {}, identity, clock.now())
        sights, missing = look(pipeline)
        pooling = [pipeline.pooling(pooler, clock.now().at) for pooler in pipeline.poolers.poolers.values()]
    finally:
        sources.sampler.close()
    time = datetime.now(UTC)
    if arguments.format == "json":
        json.dump(
            scan_object(sights, time.isoformat(timespec="milliseconds").replace("+00:00", "Z"), missing, pooling),
            sys.stdout,
        )
        sys.stdout.write("\n")
    else:
        columns = shutil.get_terminal_size().columns
        width = WIDTHS[1] if columns >= WIDTHS[1] else WIDTHS[0]
        sys.stdout.write("\n".join(scan_lines(sights, time.strftime("%H:%M:%SZ"), missing, width, pooling)) + "\n")
    return 0 if sights else 1


def look(pipeline: Pipeline) -> tuple[list[Sight], list[str]]:
    """One pass through the pipeline, without its thread: the sights, and what could not be seen at all."""
    now: Moment = clock.now()
    pipeline.discover(now)
    sampler = pipeline.sources.sampler
    # What the first step finds, the second one asks TCP_INFO of; and a slot that no session stands for is believed when
    # two readings in a row lack it.
    for _ in range(2):
        for poller in pipeline.pollers():
            poller.ask_once(ANSWER_WITHIN)
        sampler.step(Step.DETAILS)
        pipeline.fast_tick()
        pipeline.title_tick(clock.now().at)
        pipeline.take_readings()
    for netns in pipeline.namespaces.watched():
        pipeline.connections.note(sampler.details(netns))
    pipeline.discover(clock.now())  # with what the logins told
    at = clock.now().at
    pipeline.title_tick(at)
    pipeline.join_poolers(at)
    sights = [pipeline.sight(server, at) for server in pipeline.servers.values()]
    deadline = at + CLIENTS_WITHIN
    while clock.now().at < deadline and not pipeline.name_clients([b for s in sights for b in s.backends], at):
        pass
    missing = [
        f"the target {_target_text(target)} matches no running server" for target in pipeline.sources.finder.unmatched()
    ]
    missing += [problem for poller in pipeline.pollers() if (problem := poller.problem)]
    return sights, missing + pipeline.unwatched()


def _target_text(target: object) -> str:
    return str(getattr(target, "name", None) or getattr(target, "port", None) or target)
