"""A small OTLP receiver on 127.0.0.1, over HTTP and, when asked, gRPC: what the demonstration and the tests send to.

The rule: it decodes what came over the wire and judges nothing. `script` lets a test make it misbehave.
"""

from __future__ import annotations

import gzip
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

Record = dict[str, Any]

_SIGNALS: dict[str, tuple[Any, Any, str, str]] = {
    "metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse, "metrics", "Metrics"),
    "logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse, "logs", "Logs"),
    "traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse, "trace", "Trace"),
}


class Answer(NamedTuple):
    """How to answer the next request instead of accepting it. A status of 0 drops the connection."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay: float = 0.0
    keep: bool = False  # count the request as received all the same


class QuietServer(ThreadingHTTPServer):
    """One whose clients may leave in the middle of an answer: nobody is told of that."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Receiver:
    """Collects what it is sent: `events`, `spans`, `points`, each a flat dictionary; `counts` by signal."""

    def __init__(self, *, port: int = 0, grpc: bool = False, on_event: Callable[[Record], None] | None = None) -> None:
        self.events: list[Record] = []
        self.spans: list[Record] = []
        self.points: list[Record] = []
        self.counts: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # path, headers, decoded body
        self.script: deque[Answer] = deque()
        self._on_event = on_event
        self._lock = threading.Lock()
        self._http = QuietServer(("127.0.0.1", port), _http_side(self))
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="otlp-receiver", daemon=True
        )  # seconds: its end is noticed within them
        self._grpc: Any = None
        self.grpc_port = 0
        if grpc:
            self._grpc, self.grpc_port = _grpc_side(self)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if self._grpc is not None:
            self._grpc.stop(0).wait()

    def take(self, signal: str, request: Any) -> None:
        """Takes a decoded request in."""
        rows = list(_READERS[signal](request))
        with self._lock:
            {"metrics": self.points, "logs": self.events, "traces": self.spans}[signal].extend(rows)
            self.counts[signal] += len(rows)
            self.counts["requests"] += 1
        if signal == "logs" and self._on_event is not None:
            for row in rows:
                self._on_event(row)


def _http_side(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Side(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.requests.append((self.path, dict(self.headers.items()), body))
            answer = receiver.script.popleft() if receiver.script else Answer(200, keep=True)
            time.sleep(answer.delay)
            if answer.status == 0:
                self.close_connection = True
                return
            signal = self.path.rpartition("/")[2]
            if answer.keep:
                receiver.take(signal, _SIGNALS[signal][0].FromString(body))
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Quiet: the demonstration prints its own story."""

    return Side


def _grpc_side(receiver: Receiver) -> tuple[Any, int]:
    import grpc  # noqa: PLC0415 - heavy, and only wanted for this protocol

    server = grpc.server(ThreadPoolExecutor(2))
    for signal, (request, response, package, name) in _SIGNALS.items():

        def export(message: Any, context: Any, signal: str = signal, response: Any = response) -> Any:
            answer = receiver.script.popleft() if receiver.script else None
            if answer is not None and not answer.keep:
                context.abort(
                    grpc.StatusCode.UNAVAILABLE if answer.status == 503 else grpc.StatusCode.INVALID_ARGUMENT, ""
                )
            receiver.take(signal, message)
            return response()

        method = grpc.unary_unary_rpc_method_handler(
            export, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )
        service = f"opentelemetry.proto.collector.{package}.v1.{name}Service"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, int(port)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def _flat(pairs: Any) -> Record:
    return {pair.key: _value(pair.value) for pair in pairs}


def _events(request: Any) -> Any:
    for resource in request.resource_logs:
        for record in (record for scope in resource.scope_logs for record in scope.log_records):
            yield {
                "event_name": record.event_name,
                "time": record.time_unix_nano,
                "severity": record.severity_number,
                "severity_text": record.severity_text,
                "body": record.body.string_value,
                "trace_id": record.trace_id.hex(),
                "span_id": record.span_id.hex(),
                "attributes": _flat(record.attributes),
                "resource": _flat(resource.resource.attributes),
            }


def _spans(request: Any) -> Any:
    for resource in request.resource_spans:
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield {
                "name": span.name,
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "start": span.start_time_unix_nano,
                "end": span.end_time_unix_nano,
                "status": span.status.code,
                "kind": span.kind,
                "links": [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                "attributes": _flat(span.attributes),
                "resource": _flat(resource.resource.attributes),
            }


def _points(request: Any) -> Any:
    for resource in request.resource_metrics:
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            shape = metric.WhichOneof("data")
            holder = getattr(metric, shape)
            for point in holder.data_points:
                yield {
                    "name": metric.name,
                    "unit": metric.unit,
                    "shape": shape,
                    "monotonic": getattr(holder, "is_monotonic", None),
                    "temporality": getattr(holder, "aggregation_temporality", None),
                    "value": getattr(point, point.WhichOneof("value")),
                    "start": point.start_time_unix_nano,
                    "time": point.time_unix_nano,
                    "exemplars": [(e.trace_id.hex(), e.span_id.hex()) for e in point.exemplars],
                    "attributes": _flat(point.attributes),
                    "resource": _flat(resource.resource.attributes),
                }


_READERS: dict[str, Callable[[Any], Any]] = {"metrics": _points, "logs": _events, "traces": _spans}
