"""OTLP over HTTP/protobuf (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

The rule: a request goes to the configured host and nowhere else, over a kept connection, with the TLS files as they
are now. Whatever happens becomes one of delivery's three exceptions, and no secret stands in it.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlunsplit

import urllib3

from pgsonar import __version__
from pgsonar.config.addresses import APPENDED, DEFAULT_ENDPOINTS, display
from pgsonar.config.addresses import url as parts_of
from pgsonar.config.schema import SIGNALS, OtlpExporter
from pgsonar.exporters.delivery import ENDED, Refused, Retryable, TooLarge
from pgsonar.exporters.encoding import Encoded
from pgsonar.exporters.http_answers import Answer, judge
from pgsonar.exporters.http_connections import Connections
from pgsonar.exporters.proxies import Proxy, basic, proxy_for
from pgsonar.exporters.tls import TlsFiles
from pgsonar.exporters.troubles import GRPC_PORT, Secrets, Trouble, trouble_of

_ANSWER_MOST = 64 << 10  # bytes of an answer that are read
_OURS = frozenset({"content-type", "content-encoding", "content-length", "transfer-encoding"})


class Target(NamedTuple):
    """Where the requests of a signal go, and how."""

    url: str  # without user and password
    port: int
    proxy: Proxy | None
    headers: Mapping[str, str]

    @property
    def shown(self) -> str:
        return display(self.url)


class HttpTransport:
    """Posts requests to one backend over kept connections."""

    def __init__(
        self, config: OtlpExporter, component: str = "otlp_http", environ: Mapping[str, str] = os.environ
    ) -> None:
        self._gzip = config.compression == "gzip"
        self._targets: dict[str, Target] = {signal: _target(config, signal, environ) for signal in SIGNALS}
        self._secrets = Secrets(_secrets(config, self._targets))
        self._has_certificate = config.tls.cert_file is not None
        self._server_name = config.tls.server_name_override
        self._timeout = float(config.timeout)
        secure = any(url.startswith("https:") for target in self._targets.values() for url in _urls(target))
        self._files = TlsFiles(config.tls, component) if secure else None
        self._identity = self._files.current() if self._files else None
        if config.tls.insecure_skip_verify:  # as asked for: no warning with each connection
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._connections = Connections()
        self._pools: dict[Proxy | None, urllib3.PoolManager] = {}

    def deliver(self, encoded: Encoded) -> tuple[int, str]:
        """Sends one request; see delivery.Transport."""
        target = self._targets[encoded.signal]
        try:
            body = gzip.compress(encoded.body, 6) if self._gzip else encoded.body
            with self._connections.within(self._timeout):
                answer = self._post(target, body)
            rejected, reason = judge(encoded, answer)
        except (Retryable, Refused, TooLarge) as error:
            error.args = (self._say(target, str(error)),)
            raise
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # ValueError: what a library cannot parse
            trouble = self._trouble(target, error)
            raise Retryable(self._say(target, trouble.reason), hint=trouble.hint) from None
        return rejected, self._secrets.hide(reason)

    def close(self) -> None:
        """Closes the connections; a request under way ends as one that may be tried again."""
        self._connections.end()
        for pools in list(self._pools.values()):
            pools.clear()

    def _post(self, target: Target, body: bytes) -> Answer:
        """Posts once, or twice: the other side may have closed a kept connection while we began to use it."""
        pools = self._pools_for(target.proxy)
        before = self._connections.opened
        try:
            return self._post_once(pools, target, body)
        except urllib3.exceptions.ProtocolError:
            self._connections.go_on()
            if self._connections.opened > before:
                raise
            pools.clear()
            return self._post_once(pools, target, body)

    def _post_once(self, pools: urllib3.PoolManager, target: Target, body: bytes) -> Answer:
        response = pools.request(
            "POST", target.url, body=body, headers=target.headers, redirect=False, preload_content=False
        )
        try:
            self._connections.go_on()  # headers that were cut off look like all there are
        except OSError:
            response.close()
            raise
        try:
            start = response.read(_ANSWER_MOST)
            if len(start) == _ANSWER_MOST:
                response.close()
        except urllib3.exceptions.HTTPError:  # the status is known, and that is what counts
            start = b""
        response.release_conn()
        return Answer(response.status, response.headers, start)

    def _pools_for(self, proxy: Proxy | None) -> urllib3.PoolManager:
        """Kept connections through the proxy, with the TLS files as they are now."""
        identity = self._files.current() if self._files else None
        if identity is not self._identity:
            for pools in self._pools.values():
                pools.clear()
            self._pools.clear()
            self._identity = identity
        if proxy not in self._pools:
            context = identity.context if identity else None
            self._pools[proxy] = self._connections.pools(proxy, context, self._server_name, self._timeout)
        return self._pools[proxy]

    def _say(self, target: Target, what: str) -> str:
        return self._secrets.hide(f"{target.shown}: {what}")

    def _trouble(self, target: Target, error: BaseException) -> Trouble:
        """`connection refused` rather than the library's nesting of exceptions."""
        if self._connections.is_ended:
            return Trouble(ENDED)
        if self._connections.is_late:
            return Trouble("timed out")
        chain = list(_chain(error))
        wants = target.url.startswith("https:") and not self._has_certificate
        text = " ".join(f"{type(one).__name__} {one}" for one in chain)
        trouble = trouble_of(text, port=target.port, wrong_port=GRPC_PORT, wants_certificate=wants)
        if trouble is None:
            system = next((one.strerror.lower() for one in chain if isinstance(one, OSError) and one.strerror), None)
            trouble = Trouble(system or type(error).__name__)
        if target.proxy is not None and any(isinstance(one, urllib3.exceptions.ProxyError) for one in chain):
            return Trouble(f"proxy {target.proxy.shown}: {trouble.reason}", trouble.hint)
        return trouble


def _target(config: OtlpExporter, signal: str, environ: Mapping[str, str]) -> Target:
    own = getattr(config, f"{signal}_endpoint")
    parts = parts_of(own or config.endpoint or DEFAULT_ENDPOINTS["otlp_http"])
    path = parts.path if own else f"{APPENDED.sub('', parts.path).rstrip('/')}/v1/{signal}"
    url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    headers = urllib3.HTTPHeaderDict({"User-Agent": f"OTel-OTLP-Exporter-pgsonar/{__version__}"})
    if login := basic(parts.geturl()):
        headers["Authorization"] = login
    for name, value in config.headers.items():
        if name.lower() not in _OURS:
            headers[name] = value
    headers["Content-Type"] = "application/x-protobuf"
    if config.compression == "gzip":
        headers["Content-Encoding"] = "gzip"
    return Target(url, port, proxy_for(parts.scheme, parts.hostname or "", port, config.proxy_url, environ), headers)


def _urls(target: Target) -> tuple[str, ...]:
    return (target.url,) if target.proxy is None else (target.url, target.proxy.url)


def _secrets(config: OtlpExporter, targets: Mapping[str, Target]) -> list[str | None]:
    proxies = [target.proxy.authorization for target in targets.values() if target.proxy]
    return [*config.headers.values(), *(target.headers.get("Authorization") for target in targets.values()), *proxies]


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what it came from."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        inner = getattr(error, "original_error", None)
        error = error.__cause__ or error.__context__ or (inner if isinstance(inner, BaseException) else None)
    return chain
