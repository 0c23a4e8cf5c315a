"""How rows leave: the only importers of opentelemetry.

The rule: a transport is imported when an exporter of its type is configured, because some are heavy.
"""

from __future__ import annotations

import os
from typing import NamedTuple, cast

from pgsonar.config.presets import oldest_span
from pgsonar.config.schema import DebugExporter, FileExporter, OtlpExporter, RetryOnFailure, Section, SendingQueue
from pgsonar.exporters.aging import Aging
from pgsonar.exporters.delivery import Transport
from pgsonar.exporters.forms import form_of
from pgsonar.exporters.outbox import Outbox
from pgsonar.exporters.queue import Queue, Store
from pgsonar.exporters.sender import Exporter, ExporterStats

__all__ = ["Exporter", "ExporterStats", "Outbox", "Way", "build", "form_of", "way_of"]


class Way(NamedTuple):
    """How an exporter sends."""

    transport: Transport
    retry: RetryOnFailure
    bounds: SendingQueue


def way_of(component: str, config: Section) -> Way:
    """How the exporter of a component id (`type` or `type/name`) sends. Raises ConfigError where it cannot."""
    transport, oldest = _transport(component, config), oldest_span(config)
    if oldest is not None:
        transport = Aging(transport, oldest)
    if isinstance(config, OtlpExporter):
        return Way(transport, config.retry_on_failure, config.sending_queue)
    return Way(transport, RetryOnFailure(), SendingQueue())


def build(component: str, way: Way, store: Store | None = None, stats: ExporterStats | None = None) -> Exporter:
    """An exporter, running; a store keeps its queue over a restart, and what it did before it goes on being counted."""
    return Exporter(component, way.transport, way.retry, Queue(way.bounds, store), stats)


def _transport(component: str, config: Section) -> Transport:
    kind = component.partition("/")[0]
    if kind == "otlp_grpc":
        # Its core would write to standard error what its exceptions say as well; it looks when it is imported.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from pgsonar.exporters.otlp_grpc import GrpcTransport  # noqa: PLC0415 - heavy

        return GrpcTransport(cast(OtlpExporter, config), component)
    if kind == "otlp_http":
        from pgsonar.exporters.otlp_http import HttpTransport  # noqa: PLC0415

        return HttpTransport(cast(OtlpExporter, config), component)
    if isinstance(config, FileExporter):
        from pgsonar.exporters.file import FileTransport  # noqa: PLC0415 - brings protobuf's JSON in

        return FileTransport(config)
    if isinstance(config, DebugExporter):
        from pgsonar.exporters.debug import DebugTransport  # noqa: PLC0415

        return DebugTransport()
    raise TypeError(f"no exporter is called {component}")
