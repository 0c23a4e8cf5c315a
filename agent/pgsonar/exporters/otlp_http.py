"""OTLP over HTTP/protobuf (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

The rule: any 2xx is success; 429, 502, 503, 504 and connection errors may be tried again; anything else is refused.
Headers hold secrets and appear in no error.
"""

from __future__ import annotations

import gzip
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import urllib3
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from pgsonar import __version__
from pgsonar.config.schema import OtlpExporter
from pgsonar.exporters.delivery import Refused, Retryable, TooLarge
from pgsonar.exporters.encoding import Encoded

DEFAULT_ENDPOINT = "http://localhost:4318"
_TOO_LARGE = 413
_RETRYABLE = frozenset({429, 502, 503, 504})
_HINTS = {
    400: "the backend does not accept this form: look at its OTLP documentation, temporality above all",
    401: "check the headers of the exporter: the key is missing or wrong",
    403: "check the headers of the exporter: the key may not write",
    404: "check the endpoint: /v1/metrics, /v1/logs and /v1/traces are appended to it",
    415: "the endpoint does not speak OTLP over HTTP/protobuf",
}
_RESPONSES: dict[str, tuple[Any, str]] = {
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
}


class HttpTransport:
    """Posts requests to one backend over kept connections."""

    def __init__(self, config: OtlpExporter) -> None:
        base = (config.endpoint or DEFAULT_ENDPOINT).rstrip("/")
        own = {"metrics": config.metrics_endpoint, "logs": config.logs_endpoint, "traces": config.traces_endpoint}
        self._urls = {signal: url or f"{base}/v1/{signal}" for signal, url in own.items()}
        self._gzip = config.compression == "gzip"
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "User-Agent": f"OTel-OTLP-Exporter-pgsonar/{__version__}",
            **({"Content-Encoding": "gzip"} if self._gzip else {}),
            **config.headers,
        }
        tls = config.tls
        options: dict[str, Any] = {"ca_certs": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}
        if tls.server_name_override:
            options |= {"server_hostname": tls.server_name_override, "assert_hostname": tls.server_name_override}
        if tls.insecure_skip_verify:
            options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        self._pool = urllib3.PoolManager(
            num_pools=4,
            timeout=urllib3.Timeout(total=float(config.timeout)),
            retries=False,
            **options,
        )

    def deliver(self, encoded: Encoded) -> tuple[int, str]:
        """Sends one request; see delivery.Transport."""
        body = encoded.body
        url = self._urls[encoded.signal]
        try:
            answer = self._pool.request(
                "POST", url, body=gzip.compress(body, 6) if self._gzip else body, headers=self._headers
            )
        except urllib3.exceptions.HTTPError as error:
            raise Retryable(f"{url}: {_reason(error)}") from error
        if 200 <= answer.status < 300:
            return _rejected(encoded, answer.data)
        if answer.status in _RETRYABLE:
            raise Retryable(f"{url}: HTTP {answer.status}", _retry_after(answer.headers.get("Retry-After")))
        if answer.status == _TOO_LARGE:
            raise TooLarge(f"{url}: HTTP {answer.status}")
        raise Refused(f"{url}: HTTP {answer.status} {_said(answer.data)}".rstrip(), _HINTS.get(answer.status, ""))

    def close(self) -> None:
        """Closes the kept connections."""
        self._pool.clear()


def _reason(error: Exception) -> str:
    """`connection refused` rather than the library's nesting of exceptions."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "timed out"
    return type(error).__name__


def _said(body: bytes) -> str:
    """The start of an error's text, where it is text."""
    text = body[:200].decode("utf-8", "replace")
    return " ".join(text.split()) if text.isprintable() or "\n" in text else ""


def _rejected(encoded: Encoded, body: bytes) -> tuple[int, str]:
    kind, name = _RESPONSES[encoded.signal]
    try:
        partial = kind.FromString(body).partial_success
    except DecodeError:  # some backends answer with plain text
        return 0, ""
    return int(getattr(partial, name)), str(partial.error_message)


def _retry_after(value: str | None) -> float | None:
    """Seconds or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None
