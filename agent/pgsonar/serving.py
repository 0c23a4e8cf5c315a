"""A small HTTP server for those who look at the agent: health checks and scrapes.

The rule: who asks cannot slow the agent down. Few are answered at a time, an answer takes no longer than WITHIN seconds
however slowly it is asked for or read, and nothing is looked up but the address that is listened on.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple, cast

from pgsonar.errors import ConfigError

log = logging.getLogger("pgsonar")

AT_ONCE = 8  # connections; two scrapers, a health check, and what is slow
WITHIN = 10.0  # seconds for a whole request and its answer; Prometheus gives up after as many by default
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    content_type: str
    body: bytes


Answering = Callable[[str, str], Answer]  # of a path and an Accept header


class LocalServer(socketserver.ThreadingTCPServer):
    """Answers GET on `host:port`. Raises OSError when it cannot listen there, ConfigError when that is no endpoint."""

    allow_reuse_address = True
    daemon_threads = True
    timeout = 0.5  # seconds between two looks at whether to go on

    def __init__(self, key: str, endpoint: str, answer: Answering) -> None:
        host, _, port = endpoint.rpartition(":")
        if not port.isdigit():
            raise ConfigError(f"{key}: {endpoint!r} is not host:port")
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # `localhost` is both; scrapers and probes try IPv4 when the other is refused, and not all the other way round.
        self.address_family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        self._since: dict[socket.socket, float] = {}  # monotonic, by connection
        self._lock = threading.Lock()
        super().__init__(cast("tuple[str, int]", address), _handler(answer))

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def serve(self, until: threading.Event) -> None:
        """Answers until that is set, then listens no more."""
        with self:
            while not until.is_set():
                self.handle_request()
                self._cut_off()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread of its own, unless too many are being answered."""
        with self._lock:
            is_busy = len(self._since) >= AT_ONCE
            if not is_busy:
                self._since[request] = time.monotonic()
        if is_busy:
            with contextlib.suppress(OSError):
                request.setblocking(False)  # noqa: FBT003 - the socket's own signature
                request.sendall(_BUSY)
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A client that goes away is nothing to tell of."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("a request to port %d could not be answered", self.port, exc_info=error)

    def _cut_off(self) -> None:
        """Ends the connections of whoever has taken too long."""
        with self._lock:
            slow = [request for request, since in self._since.items() if time.monotonic() - since > WITHIN]
        for request in slow:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


def _handler(answer: Answering) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = WITHIN

        def do_GET(self) -> None:
            status, content_type, body = answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Probes and scrapes come every few seconds: not worth a line each."""

    return Handler
