"""Tells what works here and what does not: servers, sockets, logins, logs, what is missing and what that costs.

With --send-test this host is not looked at. Instead one metric, one event and one span, all called pgsonar.test, go
through every exporter once, those signals that the pipelines send there, and what each backend answers is told.

Exit code 0: all that is configured works; with --send-test: every backend accepted what it was sent. 1: something does
not, or no server was found.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from pgsonar import __version__, clock
from pgsonar.commands.options import add_config_options, add_format_option
from pgsonar.config.load import load
from pgsonar.config.schema import SIGNALS, Config, FileExporter, OtlpExporter, PrometheusExporter, Section
from pgsonar.daemon.once import look, opened, target_text
from pgsonar.daemon.opening import OpenSources, host_id
from pgsonar.episodes.verdicts import Seen
from pgsonar.exporters.trial import Answer, attempt
from pgsonar.model import BackendKind, Sight
from pgsonar.pipeline.pipeline import Pipeline
from pgsonar.signals.identity import Identity
from pgsonar.signals.trial import TEST, marked
from pgsonar.signals.words import count
from pgsonar.sources.privileges import (
    CAPABILITIES,
    ENTERS_NAMESPACES,
    LOOKS_INTO_PROCESSES,
    hidden_processes,
    privileges,
)
from pgsonar.views.doctor import Check, doctor_lines
from pgsonar.views.scan import BY_LOGIN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)
    add_format_option(parser)
    parser.add_argument(
        "--send-test",
        action="store_true",
        help="try the exporters instead of looking at this host; PostgreSQL need not run here",
    )


def run(arguments: argparse.Namespace) -> int:
    """Looks at everything once and reports."""
    config = load(arguments.config, arguments.set, os.environ)
    checks = list(exporters(config)) if arguments.send_test else this_host(config)
    if arguments.format == "json":
        json.dump([check._asdict() for check in checks], sys.stdout)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(doctor_lines(checks)) + "\n")
    return 1 if any(check.state == "broken" for check in checks) else 0


def this_host(config: Config) -> list[Check]:
    """Everything that can be seen from here."""
    with opened(config) as (pipeline, sources):
        seen = look(pipeline, sources).servers
        checks = [
            *agent(is_seeing=any(one.sight.server.pid for one in seen)),
            *servers(pipeline, sources, seen),
            *client_side(pipeline, sources),
        ]
        return [*checks, *poolers(pipeline), *logins(sources), *logs(pipeline), *state(config)]


def exporters(config: Config) -> Iterator[Check]:
    """What each backend says to a test of every signal that goes there."""
    identity = Identity(
        host=socket.gethostname(), host_id=host_id(), version=__version__, extra=config.telemetry.resource
    )
    trace_id = secrets.randbits(128) or 1
    batches = marked(identity.agent(), clock.now().unix, trace_id, secrets.randbits(64) or 1)
    if not config.exporters:
        yield Check("EXPORTERS", "no pipeline has one: nothing is sent anywhere", "broken")
        return
    yield Check("TEST", f"{TEST} with {TEST}.id = {trace_id:032x}, which is the trace id as well")
    for name, exporter in config.exporters.items():
        area = f"EXPORTER {name}"
        if isinstance(exporter, PrometheusExporter):
            yield Check(area, f"is scraped at http://{exporter.endpoint}/metrics: nothing was sent")
            continue
        wanted = [batches[signal] for signal in SIGNALS if name in _exporters_of(config, signal)]
        for answer in attempt(name, exporter, wanted):
            yield _told(area, answer, exporter)


def _exporters_of(config: Config, signal: str) -> list[str]:
    pipeline = getattr(config.pipelines, signal)
    return [] if pipeline is None else list(pipeline.exporters)


def _told(area: str, answer: Answer, exporter: Section) -> Check:
    said = answer.said
    if answer.is_accepted and not isinstance(exporter, OtlpExporter):
        said = f"written to {exporter.path}" if isinstance(exporter, FileExporter) else "printed"
    said = "".join(character if character.isprintable() else " " for character in said)
    took = "" if answer.seconds is None else f" ({answer.seconds * 1000:.0f} ms)"
    state = "ok" if answer.is_accepted else "broken"
    return Check(area, f"{answer.signal}: {said}{took}", state, remedy=answer.hint)


def agent(*, is_seeing: bool = False) -> Iterator[Check]:
    """Who we are, and what we may; `is_seeing` a server already, the agent has what it needs for that one."""
    mine = privileges()
    held = ", ".join(mine.capabilities) or "no capability that matters"
    yield Check("AGENT", f"pgsonar {__version__} as {mine.user}, {held}, {mine.open_files} open files")
    if mine.hidden is not None:
        state = "less" if is_seeing else "broken"
        yield Check("AGENT", mine.hidden.what, state, "no server of another user is found at all", mine.hidden.helps)
    for name, (_, what_for) in CAPABILITIES.items():
        if name not in mine.capabilities:
            yield Check("AGENT", f"{name} is not held: {what_for}; the servers below say whether that matters")


def servers(pipeline: Pipeline, sources: OpenSources, seen: list[Seen]) -> Iterator[Check]:
    """Each server, and what is known of it."""
    if not sources.sees_servers:
        return
    for target in sources.finder.unmatched():
        yield Check(
            "SERVERS",
            f"the target {target_text(target)} matches no running server",
            "broken",
            "all that is to be told of it",
            "compare receivers.sockets.targets with `pgsonar scan` without a configuration",
        )
    if not seen and hidden_processes():
        yield Check(
            "SERVERS", "no PostgreSQL server is seen: one may be hidden", "broken", "everything", "see AGENT above"
        )
    elif not seen:
        yield Check(
            "SERVERS",
            "no PostgreSQL server runs here",
            "broken",
            "everything",
            "run pgsonar beside the server, or give receivers.postgresql the endpoint of one elsewhere",
        )
    reports = {report["netns"]: report for report in pipeline.namespaces.report()}
    for one in seen:
        yield from _server(one, reports.get(one.sight.server.netns))


def _server(seen: Seen, scanning: dict[str, object] | None) -> Iterator[Check]:
    sight, server = seen.sight, seen.sight.server
    area = f"SERVER {server.label}"
    yield Check(area, f"PostgreSQL {server.version or '?'}, {server.role or 'role unknown'}, {server.seen_by}")
    limits = server.limits
    if limits.ceiling is not None:
        guess = " (a guess)" if limits.guessed else ""
        yield Check(area, f"{limits.ceiling} slots for applications, by {limits.source}{guess}")
    if server.netns:
        yield from _seen_from_outside(sight, scanning, area)
    for sentence in server.notes:
        yield Check(area, sentence)
    for sentence in server.missing:
        yield Check(area, sentence, "less")
    for reason, kinds in _by_reason(seen.untold).items():
        what, _, remedy = reason.partition(": ")
        yield Check(area, what, "less", ", ".join(kinds), remedy)
    if sight.reading is None:
        yield Check(
            area,
            "no login is used",
            "less",
            BY_LOGIN,
            "add receivers.postgresql with a role that has pg_monitor; it takes one slot",
        )


def _by_reason(untold: dict[str, str]) -> dict[str, list[str]]:
    """The kinds that cannot be told, by why."""
    kinds: dict[str, list[str]] = {}
    for kind, reason in untold.items():
        kinds.setdefault(reason, []).append(kind)
    return kinds


def _seen_from_outside(sight: Sight, scanning: dict[str, object] | None, area: str) -> Iterator[Check]:
    if scanning is not None:
        reason = scanning["reason"]
        yield Check(
            area,
            f"sockets are read by {scanning['source']}" + (f": {reason}" if reason else ""),
            "less" if scanning["source"] == "procfs" and reason else "ok",
            "ages of idleness, and ends of connections between two scans" if reason else "",
            f"grant {ENTERS_NAMESPACES}, or run in the server's network namespace" if reason else "",
        )
    if not sight.server.pid:
        return
    children = [b for b in sight.backends if b.kind is not BackendKind.WORKER]
    if not children:
        yield Check(area, "no session now: whether titles and descriptors can be read shows when there is one")
        return
    titled = [b for b in children if b.title.kind is not BackendKind.UNKNOWN]
    yield Check(area, f"{len(titled)} of {len(children)} sessions tell who they are by their titles")
    if not any(b.inodes for b in children):
        yield Check(
            area,
            "descriptors of its processes may not be looked into",
            "less",
            "certainty which socket is whose; titles alone join them, which fails where log_hostname is on",
            f"run as the postgres user with its group, or with {LOOKS_INTO_PROCESSES}",
        )


def client_side(pipeline: Pipeline, sources: OpenSources) -> Iterator[Check]:
    """Connections from here to databases elsewhere."""
    applications = sources.applications
    if applications is None:
        return
    ports = ", ".join(map(str, sorted(applications.ports)))
    if applications.own not in pipeline.namespaces.watched():
        yield Check("CLIENT SIDE", "the sockets of this network namespace cannot be read", "broken", "all of it")
        return
    there = pipeline.destinations()
    yield Check("CLIENT SIDE", f"connections to port {ports} are watched; {len(there)} databases are connected to now")
    yield Check("CLIENT SIDE", f"in {count(len(pipeline.sides), 'network namespace')} of this host")
    if any(c.client is None for _, connections in there for c in connections if c.socket.inode):
        yield Check(
            "CLIENT SIDE",
            "some processes that hold connections may not be looked into",
            "less",
            "which process they belong to",
            f"run as their user, or with {LOOKS_INTO_PROCESSES}",
        )


def poolers(pipeline: Pipeline) -> Iterator[Check]:
    """Each PgBouncer."""
    at = clock.now().at
    for pooler in pipeline.poolers.poolers.values():
        area = f"PGBOUNCER {pooler.label}"
        yield Check(area, f"pid {', '.join(map(str, pooler.pids))}, {pooler.config_file or 'configuration unknown'}")
        for sentence in pooler.missing:
            yield Check(area, sentence, "less")
        if pipeline.poolers.of(pooler, at) is None:
            yield Check(
                area,
                "its console is not used",
                "less",
                "which application holds a session, and who waits",
                "add receivers.pgbouncer with a user of stats_users",
            )


def logins(sources: OpenSources) -> Iterator[Check]:
    """Each login that is configured."""
    for poller in sources.pollers():
        problem = poller.problem
        if problem is None:
            yield Check("LOGINS", f"{poller.name} answers")
        else:
            yield Check("LOGINS", problem, "broken", "what only it tells; all that needs no login goes on")


def logs(pipeline: Pipeline) -> Iterator[Check]:
    """The logs that are configured."""
    if pipeline.sources.logs is None:
        return
    told = pipeline.sources.logs.read([server for server in pipeline.servers.values() if server.pid])
    for sentence in pipeline.sources.logs.problems():
        yield Check("LOGS", sentence, "broken", "refusals are not counted")
    yield Check("LOGS", f"logs of {len(told)} servers are followed")


def state(config: Config) -> Iterator[Check]:
    """The directory that survives a restart. A running agent may hold it: nothing is opened."""
    if config.file_storage is None:
        return
    directory = Path(config.file_storage.directory)
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        yield Check("STATE", f"{directory} can be written")
        return
    yield Check(
        "STATE",
        f"{directory} cannot be written",
        "broken",
        "open episodes over a restart, and what waits to be sent",
        "set extensions.file_storage.directory to a directory that the agent may write",
    )
