"""OTLP over gRPC (https://opentelemetry.io/docs/specs/otlp/#otlpgrpc).

The rule: grpc is imported here only, and here only when such an exporter is configured: it costs the daemon some 8 MB
and nine threads. TLS unless the endpoint says http://, `tls.insecure` is set, or the host is this one and nothing of
TLS is configured. After a call that found nobody the next one begins with a new channel: how long to wait between
them is the sender's to say, not grpc's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pgsonar import __version__
from pgsonar.config.addresses import DEFAULT_ENDPOINTS
from pgsonar.config.grpc_targets import GrpcTarget, grpc_target
from pgsonar.config.schema import OtlpExporter, TlsClient
from pgsonar.errors import ConfigError
from pgsonar.exporters.answers import RESPONSES, rejected
from pgsonar.exporters.delivery import ENDED, Refused, Retryable, TooLarge
from pgsonar.exporters.encoding import Encoded
from pgsonar.exporters.grpc_answers import Call, judge
from pgsonar.exporters.proxies import Proxy, proxy_for
from pgsonar.exporters.tls import Identity, TlsFiles, system_authorities
from pgsonar.exporters.troubles import Secrets

_SERVICE = "/opentelemetry.proto.collector.{package}.v1.{name}Service/Export"
_METHODS = {
    "metrics": _SERVICE.format(package="metrics", name="Metrics"),
    "logs": _SERVICE.format(package="logs", name="Logs"),
    "traces": _SERVICE.format(package="trace", name="Trace"),
}
_NOBODY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_DETAILS = "grpc-status-details-bin"
_OURS = frozenset({"content-type", "content-encoding", "content-length", "user-agent", "te"})


class GrpcTransport:
    """Calls one backend over one channel, which is made with the first call."""

    def __init__(
        self, config: OtlpExporter, component: str = "otlp_grpc", environ: Mapping[str, str] = os.environ
    ) -> None:
        endpoint = config.endpoint or DEFAULT_ENDPOINTS["otlp_grpc"]
        target = grpc_target(endpoint)
        self._target, self._port = target.name, target.place.port if target.place else 0
        self._files = TlsFiles(config.tls, component) if _is_secure(config.tls, target) else None
        if self._files and config.tls.insecure_skip_verify:
            raise ConfigError(
                f"exporters.{component}.tls.insecure_skip_verify: gRPC cannot skip the check of a certificate",
                "set tls.ca_file to the certificate's issuer, or use otlp_http",
            )
        place, proxy = target.place, None
        if place is not None:
            proxy = proxy_for("grpc", place.host, place.port, config.proxy_url, environ)
        shown = str(place or target.name)
        self._shown = f"{shown} through proxy {proxy.shown}" if proxy else shown
        self._options = _options(config.tls.server_name_override, proxy)
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._timeout = float(config.timeout)
        headers = ((name.lower(), value) for name, value in config.headers.items())
        self._metadata = [(name, value) for name, value in headers if name not in _OURS]
        self._secrets = Secrets([*config.headers.values(), proxy.authorization if proxy else None])
        self._wants_certificate = self._files is not None and config.tls.cert_file is None
        self._identity: Identity | None = None
        self._channel: grpc.Channel | None = None
        self._is_closed = False
        self._changing = threading.Lock()  # the channel, which another thread may be closing

    def deliver(self, encoded: Encoded) -> tuple[int, str]:
        """Sends one request; see delivery.Transport."""
        try:
            call = self._open().unary_unary(_METHODS[encoded.signal])
            answer = call(encoded.body, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._outcome(error) from None
        except ValueError:  # what grpc says of a channel that was closed meanwhile
            raise Retryable(f"{self._shown}: {ENDED}") from None
        try:
            number, reason = rejected(encoded, RESPONSES[encoded.signal].FromString(answer))
        except DecodeError:  # it was accepted all the same
            return 0, ""
        return number, self._secrets.hide(reason)

    def close(self) -> None:
        """Closes the channel for good; a call under way ends as one that may be tried again."""
        with self._changing:
            self._is_closed = True
            self._drop()

    def _open(self) -> grpc.Channel:
        """The channel, with the TLS files as they are now."""
        identity = self._files.current() if self._files else None
        with self._changing:
            if self._is_closed:
                raise ValueError(ENDED)
            if identity is not self._identity:
                self._drop()
                self._identity = identity
            if self._channel is None:
                self._channel = self._new_channel(identity)
            return self._channel

    def _new_channel(self, identity: Identity | None) -> grpc.Channel:
        if identity is None:
            return grpc.insecure_channel(self._target, self._options, self._compression)
        authorities = identity.ca or system_authorities()
        credentials = grpc.ssl_channel_credentials(authorities, identity.key, identity.cert)
        return grpc.secure_channel(self._target, credentials, self._options, self._compression)

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _outcome(self, error: grpc.RpcError) -> Retryable | Refused | TooLarge:
        code = error.code()
        if code in _NOBODY:
            with self._changing:
                self._drop()
        if self._is_closed:
            return Retryable(f"{self._shown}: {ENDED}")
        trailers = dict(error.trailing_metadata() or ())
        call = Call(code.name, error.details() or "", trailers.get(_DETAILS))
        outcome = judge(call, port=self._port, wants_certificate=self._wants_certificate)
        outcome.args = (self._secrets.hide(f"{self._shown}: {outcome}"),)
        return outcome


def _is_secure(tls: TlsClient, target: GrpcTarget) -> bool:
    if tls.insecure or target.scheme == "http":
        return False
    is_configured = any((tls.ca_file, tls.cert_file, tls.server_name_override))
    return target.scheme == "https" or is_configured or not target.is_here


def _options(server_name: str | None, proxy: Proxy | None) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.primary_user_agent", f"OTel-OTLP-Exporter-pgsonar/{__version__}"),
        ("grpc.use_local_subchannel_pool", 1),  # else a new channel gets the connection of the old one, and its pause
        ("grpc.http_proxy", proxy.url) if proxy else ("grpc.enable_http_proxy", 0),
    ]
    return [*options, ("grpc.ssl_target_name_override", server_name)] if server_name else options
