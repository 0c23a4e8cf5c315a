"""Leak events and leak spans: the life of an episode as log records, and as one span when it has ended.

The rule: the first event already carries the trace id and span id of the span that will be written at the end, so that
a backend joins them whenever they arrive. Never span events: OpenTelemetry is giving them up.
"""

from __future__ import annotations

import hashlib

from pgsonar.detectors.evidence import TRACEPARENT
from pgsonar.model import ClientProcess, Episode, EpisodeEvent, Severity
from pgsonar.signals.advice import GUARDS, next_step
from pgsonar.signals.bodies import body
from pgsonar.signals.rows import Attributes, EventRow, SpanRow

MEMBERS_LISTED = 50


def event_row(event: EpisodeEvent) -> EventRow:
    """The log record of one step."""
    episode = event.episode
    ended = event.name == "resolved"
    severity = Severity.INFO if ended else episode.severity
    return EventRow(
        event_name=f"pgsonar.leak.{event.name}",
        time_unix=event.moment.unix,
        severity_number=int(severity),
        severity_text=severity.word,
        body=body(event),
        attributes=attributes(episode) | {"pgsonar.leak.fired_because": event.because},
        trace_id=episode.trace_id,
        span_id=episode.span_id,
    )


def span_row(episode: Episode) -> SpanRow:
    """The span of an ended episode, or of an ended segment of a long one: from the first symptom to the end."""
    return SpanRow(
        name="pgsonar.leak",
        trace_id=episode.trace_id,
        span_id=episode.span_id,
        start_unix=episode.span_start_unix,
        end_unix=max(episode.ended_unix or 0, episode.span_start_unix),
        attributes=attributes(episode) | {"error.type": episode.kind},
        error=True,
        links=_links(episode),
    )


def _links(episode: Episode) -> tuple[tuple[int, int], ...]:
    """The segment before, and the traces of the applications that left the connections: their last statements."""
    before = () if episode.previous_span is None else ((episode.trace_id, episode.previous_span),)
    told = dict.fromkeys(finding.evidence.get(TRACEPARENT) for finding in episode.findings)
    parts = [str(text).split("-") for text in told if text is not None]
    return before + tuple((int(part[1], 16), int(part[2], 16)) for part in parts[:MEMBERS_LISTED])


def attributes(episode: Episode) -> Attributes:
    """What every record of an episode carries; unknown is left out."""
    oldest, server = episode.findings[0], episode.server
    shift = episode.onset_unix - episode.onset
    told: dict[str, str | int | float | bool | tuple[str, ...] | None] = {
        "pgsonar.leak.id": episode.id,
        "pgsonar.leak.kind": episode.kind,
        "pgsonar.leak.severity": episode.severity.word,
        "pgsonar.leak.onset": episode.onset_unix,
        "pgsonar.leak.onset_source": oldest.onset_source,
        "pgsonar.leak.members": len(episode.members),
        "pgsonar.leak.member_list": tuple(m.text(m.onset + shift) for m in episode.members[:MEMBERS_LISTED]),
        "pgsonar.leak.confidence": oldest.confidence,
        "pgsonar.leak.root_id": episode.root or episode.id,
        "pgsonar.leak.fingerprint": fingerprint(episode),
        "pgsonar.leak.identity": episode.identity or None,
        "pgsonar.leak.alternative": oldest.alternative,
        "pgsonar.leak.end_reason": episode.end_reason,
        "postgresql.pid": oldest.pid,
        "pgsonar.backend.inner_pid": oldest.inner_pid if oldest.inner_pid != oldest.pid else None,
        "client.address": oldest.address,
        "client.port": oldest.port,
        "network.peer.address": oldest.peer.address if oldest.peer is not None else oldest.address,
        "network.peer.port": oldest.peer.port if oldest.peer is not None else oldest.port,
        "user.name": oldest.user,
        "db.namespace": oldest.database,
        "db.system.name": "postgresql",
        **_client(oldest.client),
        "server.address": server.address,
        "server.port": server.port,
        "pgsonar.slot.used": episode.slots.used if episode.slots is not None else None,
        "pgsonar.slot.ceiling": episode.slots.ceiling if episode.slots is not None else None,
        "pgsonar.slot.limit": server.limits.max_connections,
        "pgsonar.page": episode.pages,
        "pgsonar.shadow": True if episode.is_shadow else None,
        "pgsonar.leak.flaps": episode.flaps or None,
        "pgsonar.leak.segment": episode.segment if episode.segment > 1 else None,
    }
    told |= {f"pgsonar.cause.{number}": text for number, text in enumerate(episode.causes, 1)}
    told |= {f"pgsonar.holder.{number}": holder.text for number, holder in enumerate(oldest.holders, 1)}
    used = episode.slots.used if episode.slots is not None else 0
    guard, step = GUARDS[episode.kind], next_step(server, used, episode.kind, oldest)
    told |= oldest.evidence
    told |= {"pgsonar.guard.would_end": guard.would_end, "pgsonar.guard.would_not": guard.would_not}
    if episode.end_reason is None:
        told |= {"pgsonar.next.command": step.command, "pgsonar.next.effect": step.effect}
    if server.missing:
        told["pgsonar.not_seen"] = "; ".join(server.missing)
    return {key: value for key, value in told.items() if value is not None}


def _client(client: ClientProcess | None) -> dict[str, str | int | None]:
    """The process at the other end, where it runs on this host or node."""
    if client is None:
        return {}
    if client.is_proxy:
        return {"pgsonar.proxy.pid": client.pid, "pgsonar.proxy.command": client.command}
    return {
        "pgsonar.client.pid": client.pid,
        "pgsonar.client.command": client.command,
        "pgsonar.client.user": client.user,
        "pgsonar.client.unit": client.unit,
        "pgsonar.client.dialled": str(client.dialled) if client.dialled is not None else None,
        "container.id": client.container_id,
        "k8s.pod.uid": client.pod_uid,
    }


def fingerprint(episode: Episode) -> str:
    """Kind and identity without the server: one bad deployment on sixty clusters is one incident."""
    return hashlib.sha256(f"{episode.kind}\0{episode.identity}".encode()).hexdigest()[:16]
