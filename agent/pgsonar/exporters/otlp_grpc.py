"""OTLP over gRPC (https://opentelemetry.io/docs/specs/otlp/#otlpgrpc).

The rule: grpc is imported here only, and here only when such an exporter is configured: it costs the daemon some 8 MB
and nine threads. TLS unless the endpoint says http://, `tls.insecure` is set, or the host is this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from pgsonar.config.schema import OtlpExporter
from pgsonar.errors import ConfigError
from pgsonar.exporters.delivery import Refused, Retryable
from pgsonar.exporters.encoding import Encoded

DEFAULT_ENDPOINT = "localhost:4317"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SERVICE = "/opentelemetry.proto.collector.{package}.v1.{name}Service/Export"
_METHODS: dict[str, tuple[str, Any, str]] = {
    "metrics": (
        _SERVICE.format(package="metrics", name="Metrics"),
        ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
    "logs": (_SERVICE.format(package="logs", name="Logs"), ExportLogsServiceResponse, "rejected_log_records"),
    "traces": (_SERVICE.format(package="trace", name="Trace"), ExportTraceServiceResponse, "rejected_spans"),
}
# As the specification lists them; anything else is refused for good.
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class GrpcTransport:
    """Calls one backend over one channel."""

    def __init__(self, config: OtlpExporter) -> None:
        endpoint = config.endpoint or DEFAULT_ENDPOINT
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        self._target = parts.netloc
        insecure = config.tls.insecure or parts.scheme == "http" or (not parts.scheme and parts.hostname in _LOOPBACK)
        compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        options = [("grpc.ssl_target_name_override", config.tls.server_name_override)]
        options = [(key, value) for key, value in options if value]
        if insecure:
            self._channel = grpc.insecure_channel(self._target, compression=compression)
        else:
            self._channel = grpc.secure_channel(self._target, _credentials(config), options, compression)
        self._timeout = float(config.timeout)
        self._metadata = [(name.lower(), value) for name, value in config.headers.items()]
        self._calls: dict[str, Any] = {
            signal: self._channel.unary_unary(method, response_deserializer=response.FromString)
            for signal, (method, response, _) in _METHODS.items()
        }

    def deliver(self, encoded: Encoded) -> tuple[int, str]:
        """Sends one request; see delivery.Transport."""
        try:
            answer = self._calls[encoded.signal](encoded.body, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
            reason = f"{self._target}: {code.name.lower()}"
            if code in _RETRYABLE:
                raise Retryable(reason) from error
            unauthenticated = code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            raise Refused(reason, "check the headers of the exporter" if unauthenticated else "") from error
        partial = answer.partial_success
        return int(getattr(partial, _METHODS[encoded.signal][2])), str(partial.error_message)

    def close(self) -> None:
        """Closes the channel; a call under way ends as cancelled."""
        self._channel.close()


def _credentials(config: OtlpExporter) -> grpc.ChannelCredentials:
    tls = config.tls
    if tls.insecure_skip_verify:
        raise ConfigError(
            "tls.insecure_skip_verify: gRPC cannot skip the check of a certificate",
            "set tls.ca_file to the certificate's issuer, or use otlp_http",
        )

    def read(path: str | None) -> bytes | None:
        return Path(path).read_bytes() if path else None

    return grpc.ssl_channel_credentials(read(tls.ca_file), read(tls.key_file), read(tls.cert_file))
