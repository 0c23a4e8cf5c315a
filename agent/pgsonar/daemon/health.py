"""The health endpoint: 200 while the agent does its work, 503 when it cannot, with the reasons in either case.

The rule: 503 only when scanning has stopped, or an exporter has failed for long; waiting for a first server, an unknown
limit or a missing privilege are reasons in a 200, because restarting the agent would not mend them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import NamedTuple

from pgsonar.serving import Answer, LocalServer


class Health(NamedTuple):
    """An answer: well or not, why, and facts worth showing."""

    ok: bool
    reasons: list[str]
    facts: dict[str, object]


class HealthEndpoint:
    """Serves the answer of `ask` on `host:port`, to whoever is allowed to reach that address."""

    def __init__(self, endpoint: str, ask: Callable[[], Health]) -> None:
        self._server = LocalServer("extensions.health_check.endpoint", endpoint, lambda *_: _told(ask()))
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._server.serve, args=(self._closing,), name="pgsonar-health", daemon=True
        )

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()


def _told(health: Health) -> Answer:
    text = json.dumps({"status": "ok" if health.ok else "failing", "reasons": health.reasons, **health.facts})
    return Answer(200 if health.ok else 503, "application/json", text.encode() + b"\n")
