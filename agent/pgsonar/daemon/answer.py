"""The health answer: whether the agent does its work, why not, and the facts beside it.

The rule: what a restart of the agent would not mend is a reason, and no failure.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgsonar import __version__, clock
from pgsonar.daemon.condition import blind, degraded
from pgsonar.daemon.health import Health
from pgsonar.daemon.opening import OpenSources
from pgsonar.daemon.own import failing_exporters
from pgsonar.exporters import ExporterStats
from pgsonar.pipeline.budget import Budget
from pgsonar.pipeline.pipeline import Pipeline

EXPORTER_FAILING = 300.0  # seconds after which a failing exporter makes the agent unhealthy


def health_of(
    pipeline: Pipeline,
    sources: OpenSources,
    exporters: Mapping[str, ExporterStats],
    *,
    others: list[str],
    facts: Mapping[str, object],
    hides_clients: bool,
) -> Health:
    """Well while scanning goes on and no exporter has failed for long. `others` are further reasons."""
    failing = blind(pipeline, clock.now().at)
    reasons = list(failing)
    reasons += [lack.text for lack in failing_exporters(exporters)]
    failing += [lack.text for lack in failing_exporters(exporters, for_longer_than=EXPORTER_FAILING)]
    if not pipeline.servers and sources.sees_servers:
        reasons.append("waiting for a first PostgreSQL server")
    reasons += degraded(pipeline) + others
    reasons += [f"{stage} failed {count} times" for stage, count in list(pipeline.failures.items())]
    seen: dict[str, object] = {
        "version": __version__,
        "servers": [
            {"id": s.id, "label": s.label, "port": s.port, "pid": s.pid} for s in list(pipeline.servers.values())
        ],
        "exporters": {name: _figures(stats) for name, stats in exporters.items()},
        "logins": {
            poller.name: {"answers": poller.answers, "failures": poller.failures, "problem": poller.problem}
            for poller in sources.pollers()
        },
        "log": {
            server: {"counts": dict(told.by_class), "last_line": {} if hides_clients else told.last_line}
            for server, told in list(pipeline.logs.items())
        },
        "scanning": _scanning(pipeline, sources.budget),
    }
    return Health(not failing, reasons, seen | dict(facts))


def _figures(stats: ExporterStats) -> dict[str, object]:
    """What an exporter has done."""
    return {
        "sent": dict(stats.sent),
        "failed": dict(stats.failed),
        "dropped": dict(stats.dropped),
        "waiting": dict(stats.waiting),
        "retries": stats.retries,
        "queue": stats.queue_requests,
    }


def _scanning(pipeline: Pipeline, budget: Budget) -> dict[str, object]:
    """How often and by what the sockets are read, and why."""
    return {
        "interval": round(budget.interval, 4),
        "reason": budget.reason,
        "cpu": None if budget.taken is None else round(budget.taken, 4),
        "max_cpu": budget.share,
        "namespaces": pipeline.namespaces.report(),
    }
