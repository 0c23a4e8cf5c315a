"""Spans that waited longer than their backend takes them.

The rule: a span is sent as it was, or not at all. One that ended too long ago is left out, counted as rejected and
named; what it tells stands in the episode's events as well, which are taken for longer.
"""

from __future__ import annotations

import time
from typing import Any

from pgsonar.exporters.delivery import Transport
from pgsonar.exporters.encoding import Encoded, parse

SPARE = 60.0  # seconds for the clocks and the way


class Aging:
    """A transport that leaves out spans which ended more than `oldest` seconds ago."""

    def __init__(self, transport: Transport, oldest: float) -> None:
        self._transport = transport
        self._oldest = oldest

    def deliver(self, encoded: Encoded) -> tuple[int, str]:
        """Sends one request; see delivery.Transport."""
        if encoded.signal != "traces":
            return self._transport.deliver(encoded)
        kept, late = self._young(encoded)
        rejected, reason = (0, "") if kept is None else self._transport.deliver(kept)
        if late:
            told = f"{late} ended more than {self._oldest / 60:.0f} min ago, which the backend does not take"
            reason = f"{reason}; {told}" if reason else told
        return rejected + late, reason

    def close(self) -> None:
        """Closes the transport."""
        self._transport.close()

    def _young(self, encoded: Encoded) -> tuple[Encoded | None, int]:
        """The request without what is too old, unless nothing is left of it; and how much that is."""
        message: Any = parse(encoded)
        since = int((time.time() - self._oldest + SPARE) * 1e9)
        kept = 0
        for scope in (scope for resource in message.resource_spans for scope in resource.scope_spans):
            for number in reversed(range(len(scope.spans))):
                if scope.spans[number].end_time_unix_nano < since:
                    del scope.spans[number]
            kept += len(scope.spans)
        if kept == encoded.items:
            return encoded, 0
        body = message.SerializeToString()
        return (Encoded(encoded.signal, body, kept) if kept else None), encoded.items - kept
