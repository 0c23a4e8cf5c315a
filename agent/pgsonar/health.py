"""The health endpoint: 200 while the agent does its work, 503 when it cannot, with the reasons in either case.

The rule: 503 only when scanning has stopped, or an exporter has failed for long; waiting for a first server, an unknown
limit or a missing privilege are reasons in a 200, because restarting the agent would not mend them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from pgsonar.errors import ConfigError


class Health(NamedTuple):
    """An answer: well or not, why, and facts worth showing."""

    ok: bool
    reasons: list[str]
    facts: dict[str, object]


class HealthEndpoint:
    """Serves the answer of `ask` on `host:port`, to whoever is allowed to reach that address."""

    def __init__(self, endpoint: str, ask: Callable[[], Health]) -> None:
        host, _, port = endpoint.rpartition(":")
        if not port.isdigit():
            raise ConfigError(f"extensions.health_check.endpoint: {endpoint!r} is not host:port")
        self._server = ThreadingHTTPServer((host.strip("[]") or "localhost", int(port)), _answering(ask))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="pgsonar-health", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answering(ask: Callable[[], Health]) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        timeout = 5  # seconds: a client that says nothing holds no thread for long

        def do_GET(self) -> None:
            health = ask()
            text = json.dumps({"status": "ok" if health.ok else "failing", "reasons": health.reasons, **health.facts})
            body = text.encode() + b"\n"
            self.send_response(200 if health.ok else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Probes come every few seconds: not worth a line each."""

    return Answer
