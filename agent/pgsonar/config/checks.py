"""What types cannot say: bounds, endpoints, what goes with what.

The rule: a check names the key and what is expected, and looks at nothing but the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pgsonar.config import schema
from pgsonar.config.addresses import APPENDED, Unusable, display, host_port, login_place, port_problem, problem_of, url
from pgsonar.config.components import Components, type_of
from pgsonar.config.grpc_targets import grpc_target
from pgsonar.config.headers import check_headers
from pgsonar.config.presets import check_preset
from pgsonar.config.problems import Problems, allowed_hint
from pgsonar.config.units import ByteSize, Duration

NOT_GRPC = tuple(f"{signal}_endpoint" for signal in schema.SIGNALS)  # one channel, one endpoint
_SHORTEST_INTERVAL = Duration(0.001)
_CLIENTS_MOST = 1000
_PROXY = "http://proxy:3128"
_MEMORY_LEAST = ByteSize(1 << 20)
_LIMIT_LEAST = 48  # MiB
_LIMIT_HINT = "the agent takes some 40 MiB without a login, and waits in memory on top of that"
_KEY_LEAST, _KEY_MOST = 16, 64  # characters; the most that BLAKE2b takes


def check_components(components: Components, problems: Problems) -> None:
    """Every declared component, used or not."""
    for kind, sections in components.sections.items():
        for component_id, section in sections.items():
            key = f"{kind}.{component_id}"
            if isinstance(section, schema.OtlpExporter):
                _check_otlp(section, type_of(component_id), key, problems)
            for section_type, check in _CHECKS.items():
                if isinstance(section, section_type):
                    check(section, key, problems)


def check_telemetry(telemetry: schema.Telemetry, problems: Problems) -> None:
    """How often metrics are sent, where the agent's own are served, and what is hidden."""
    _at_least(telemetry.metrics.interval, "service.telemetry.metrics.interval", problems)
    if (endpoint := telemetry.metrics.endpoint) != schema.NOWHERE:
        problem = problem_of(partial(host_port, usual=_port_of(schema.TelemetryMetrics), listens=True), endpoint)
        _tell("service.telemetry.metrics.endpoint", problem, endpoint, problems, f", or {schema.NOWHERE}")
    if not 1 <= telemetry.metrics.clients <= _CLIENTS_MOST:
        problems.error(
            "service.telemetry.metrics.clients",
            f"expected 1 to {_CLIENTS_MOST}, got {telemetry.metrics.clients}",
            "each client of each server is a series of its own",
        )
    redaction = telemetry.redaction
    if (
        "hash" in (redaction.addresses, redaction.users)
        and not _KEY_LEAST <= len((redaction.key or "").encode()) <= _KEY_MOST
    ):
        problems.error(
            "service.telemetry.redaction.key",
            f"hashing needs a key of {_KEY_LEAST} to {_KEY_MOST} characters",
            "the same one on all hosts: ${env:PGSONAR_HASH_KEY}; without it all addresses could be tried",
        )


def check_numbered(telemetry: schema.Telemetry, extensions: Mapping[str, schema.Section], problems: Problems) -> None:
    """What is numbered is numbered anew with each start, and what is kept over one would be another's."""
    for name in ("addresses", "users"):
        if getattr(telemetry.redaction, name) == "redact" and "file_storage" in extensions:
            problems.error(
                f"service.telemetry.redaction.{name}",
                "redact numbers clients anew with each start, and file_storage keeps episodes over one",
                "write hash, with a key",
            )


def check_storage(components: Components, extensions: Mapping[str, schema.Section], problems: Problems) -> None:
    """Where queues are kept must be there."""
    enabled = components.of_type("extensions", "file_storage") or "file_storage"
    known = [schema.IN_MEMORY, *([enabled] if "file_storage" in extensions else [])]
    for component_id, section in components.sections["exporters"].items():
        storage = section.sending_queue.storage if isinstance(section, schema.OtlpExporter) else None
        if storage is not None and storage not in known:
            problems.error(
                f"exporters.{component_id}.sending_queue.storage",
                f"{storage} is no enabled extension of type file_storage",
                f"write {' or '.join(known)}, or name it in service.extensions",
            )


def _check_sockets(sockets: schema.SocketsReceiver, key: str, problems: Problems) -> None:
    _at_least(sockets.interval, f"{key}.interval", problems)
    for index, target in enumerate(sockets.targets if isinstance(sockets.targets, list) else []):
        place = f"{key}.targets[{index}]"
        if target.port is not None and (problem := port_problem(target.port)):
            problems.error(f"{place}.port", problem)
        for name in ("pid", "max_connections"):
            number = getattr(target, name)
            if number is not None and number < 1:
                problems.error(f"{place}.{name}", f"expected a number above 0, got {number}")
        if target == schema.Target() and not problems.errors:  # what it names may be what is wrong
            problems.error(place, "names nothing", "give a port, a pid or a data_directory")


def _check_login(login: schema.PostgresqlReceiver | schema.PgbouncerReceiver, key: str, problems: Problems) -> None:
    usual = _port_of(type(login))
    problem = problem_of(partial(login_place, usual=usual), login.endpoint)
    more = "" if login.endpoint.startswith("/") else f", or the directory of a unix socket: /var/run/postgresql:{usual}"
    _tell(f"{key}.endpoint", problem, login.endpoint, problems, more)
    if login.password is not None and login.password_command is not None:
        problems.error(f"{key}.password_command", "stands beside a password", "write one of the two")
    _at_least(login.collection_interval, f"{key}.collection_interval", problems, Duration(1))


def _check_memory(memory: schema.MemoryLimiter, key: str, problems: Problems) -> None:
    _at_least(memory.check_interval, f"{key}.check_interval", problems)
    if memory.limit_mib < _LIMIT_LEAST:
        problems.error(f"{key}.limit_mib", f"expected at least {_LIMIT_LEAST}, got {memory.limit_mib}", _LIMIT_HINT)
    if memory.spike_limit_mib is not None and not 0 <= memory.spike_limit_mib < memory.limit_mib:
        problems.error(f"{key}.spike_limit_mib", f"expected less than the limit, got {memory.spike_limit_mib}")


def _check_leaks(leaks: schema.LeaksProcessor, key: str, problems: Problems) -> None:
    if leaks.max_duration < 1:
        problems.error(f"{key}.max_duration", "must be at least 1s")
    for index, override in enumerate(leaks.overrides):
        _check_override(override, f"{key}.overrides[{index}]", problems)
    _at_least(leaks.idle_leak.window, f"{key}.idle_leak.window", problems, Duration(1))
    if leaks.idle_leak.min_members < 1:
        problems.error(f"{key}.idle_leak.min_members", f"expected at least 1, got {leaks.idle_leak.min_members}")
    for name in leaks.__struct_fields__:
        kind = getattr(leaks, name)
        if isinstance(kind, schema.ShareKind) and not 0 < kind.warning < kind.high < kind.critical:
            problems.error(
                f"{key}.{name}",
                f"expected warning < high < critical, got {kind.warning}, {kind.high} and {kind.critical}",
                "what is not written is 80%, 90% and 95%",
            )


def _check_override(override: schema.Override, key: str, problems: Problems) -> None:
    every = [name for name in schema.LeaksProcessor.__struct_fields__ if name not in ("overrides", "max_duration")]
    for index, kind in enumerate(override.kinds):
        if kind not in every:
            problems.error(f"{key}.kinds[{index}]", f"there is no kind {kind!r}", allowed_hint(kind, every))
    says = ("enabled", "after", "severity", "shadow", "silence_until")
    if all(getattr(override, name) is None for name in says) and not problems.errors:  # what it says may be wrong
        problems.error(key, "changes nothing", f"give one of {', '.join(says)}")


def _check_otlp(otlp: schema.OtlpExporter, exporter_type: str, key: str, problems: Problems) -> None:
    parse = grpc_target if exporter_type == "otlp_grpc" else url
    for name in ("endpoint", *(f"{signal}_endpoint" for signal in schema.SIGNALS)):
        if (endpoint := getattr(otlp, name)) is not None:
            _tell(f"{key}.{name}", problem_of(parse, endpoint), endpoint, problems)
    if appended := APPENDED.search(otlp.endpoint or ""):
        problems.warn(f"{key}.endpoint", f"{appended[0]} at its end is left out: it is appended for each signal")
    if otlp.proxy_url is not None:
        _check_proxy(otlp, exporter_type, key, problems)
    check_headers(otlp.headers, f"{key}.headers", problems, grpc=exporter_type == "otlp_grpc")
    check_preset(otlp, exporter_type, key, problems)
    if exporter_type == "otlp_grpc":
        _check_grpc(otlp, key, problems)
    _check_tls(otlp.tls, f"{key}.tls", problems)
    _at_least(otlp.timeout, f"{key}.timeout", problems)
    _check_patience(otlp, key, problems)


def _check_patience(otlp: schema.OtlpExporter, key: str, problems: Problems) -> None:
    retry, queue = otlp.retry_on_failure, otlp.sending_queue
    _at_least(retry.initial_interval, f"{key}.retry_on_failure.initial_interval", problems)
    if retry.max_interval < retry.initial_interval:
        problems.error(
            f"{key}.retry_on_failure.max_interval",
            f"expected at least the initial_interval, {retry.initial_interval}, got {retry.max_interval}",
        )
    if not 1 <= retry.multiplier < float("inf"):
        problems.error(
            f"{key}.retry_on_failure.multiplier", f"expected a number of 1 or more, got {retry.multiplier:g}"
        )
    for name in ("queue_size", "max_bytes"):
        if (number := getattr(queue, name)) < 1:
            problems.error(f"{key}.sending_queue.{name}", f"expected at least 1, got {number}")
    _at_least(queue.max_age, f"{key}.sending_queue.max_age", problems)


def _check_grpc(otlp: schema.OtlpExporter, key: str, problems: Problems) -> None:
    for signal, name in zip(schema.SIGNALS, NOT_GRPC, strict=True):
        if getattr(otlp, name) is not None:
            hint = f"declare an exporter otlp_grpc/{signal}"
            problems.error(f"{key}.{name}", "only otlp_http has an endpoint for each signal", hint)
    if otlp.tls.insecure_skip_verify:
        hint = "set tls.ca_file to the issuer of the certificate, or use otlp_http"
        problems.error(f"{key}.tls.insecure_skip_verify", "gRPC cannot skip the check of a certificate", hint)


def _check_proxy(otlp: schema.OtlpExporter, exporter_type: str, key: str, problems: Problems) -> None:
    proxy_url = otlp.proxy_url or ""
    if problem := problem_of(partial(url, example=_PROXY), proxy_url):
        _tell(f"{key}.proxy_url", problem, proxy_url, problems)
    elif exporter_type != "otlp_grpc":
        return
    elif url(proxy_url).scheme != "http":
        right = display(proxy_url).partition("://")[2]
        problems.error(f"{key}.proxy_url", "gRPC goes through an http:// proxy only", f"write http://{right}")
    elif otlp.endpoint and problem_of(grpc_target, otlp.endpoint) is None and grpc_target(otlp.endpoint).place is None:
        problems.error(
            f"{key}.proxy_url", "no proxy leads to a unix socket", "write the endpoint or the proxy, not both"
        )


def _check_tls(tls: schema.TlsClient, key: str, problems: Problems) -> None:
    if tls.cert_file and not tls.key_file:
        problems.error(f"{key}.key_file", "is required with cert_file")
    if tls.key_file and not tls.cert_file:
        problems.error(f"{key}.cert_file", "is required with key_file")


def _check_flight_recorder(recorder: schema.FlightRecorder, key: str, problems: Problems) -> None:
    if not recorder.directory.startswith("/"):
        problems.error(f"{key}.directory", f"expected an absolute path, got {recorder.directory!r}")
    _at_least(recorder.window, f"{key}.window", problems, Duration(1))
    if recorder.max_bytes < _MEMORY_LEAST:
        problems.error(f"{key}.max_bytes", f"expected at least {_MEMORY_LEAST}, got {recorder.max_bytes}")
    if recorder.keep < 1:
        problems.error(f"{key}.keep", f"expected at least 1, got {recorder.keep}")


def _tell(key: str, problem: Unusable | None, endpoint: str, problems: Problems, more: str = "") -> None:
    if problem:
        problems.error(key, f"{problem}; got {display(endpoint)!r}", problem.hint + more)


def _port_of(section: type[schema.Section]) -> int:
    """The port of a section's own endpoint, to be written where one is missing."""
    return int(section().endpoint.rpartition(":")[2])  # type: ignore[attr-defined]


def _at_least(interval: Duration, key: str, problems: Problems, least: Duration = _SHORTEST_INTERVAL) -> None:
    if interval < least:
        problems.error(key, f"expected at least {least}, got {interval}")


def _check_file(file: schema.FileExporter, key: str, problems: Problems) -> None:
    if not file.path:
        problems.error(f"{key}.path", "expected the name of a file, got ''")


def _check_logs(serverlog: schema.ServerlogReceiver, key: str, problems: Problems) -> None:
    if not serverlog.include:
        problems.error(f"{key}.include", "names no file", "for example [/var/log/postgresql/*.log]")


def _check_listener(listener: schema.HealthCheck | schema.PrometheusExporter, key: str, problems: Problems) -> None:
    problem = problem_of(partial(host_port, usual=_port_of(type(listener)), listens=True), listener.endpoint)
    _tell(f"{key}.endpoint", problem, listener.endpoint, problems)


def _check_directory(storage: schema.FileStorage, key: str, problems: Problems) -> None:
    if not storage.directory.startswith("/"):
        problems.error(f"{key}.directory", f"expected an absolute path, got {storage.directory!r}")


_CHECKS: dict[type[schema.Section], Callable[[Any, str, Problems], None]] = {
    schema.SocketsReceiver: _check_sockets,
    schema.PostgresqlReceiver: _check_login,
    schema.PgbouncerReceiver: _check_login,
    schema.ServerlogReceiver: _check_logs,
    schema.LeaksProcessor: _check_leaks,
    schema.MemoryLimiter: _check_memory,
    schema.FileExporter: _check_file,
    schema.PrometheusExporter: _check_listener,
    schema.HealthCheck: _check_listener,
    schema.FileStorage: _check_directory,
    schema.FlightRecorder: _check_flight_recorder,
}
