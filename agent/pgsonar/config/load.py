"""The whole configuration: files, settings and environment -> one checked `Config`.

The rule: whatever is wrong is found before anything starts, all of it at once, each error naming its key. What lies
below what, from the bottom: the defaults of the schema, the OTEL_* variables, presets, the files in their order,
`--set`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from pgsonar.config.checks import check_components, check_numbered, check_storage, check_telemetry
from pgsonar.config.components import TYPES, Components, read_components
from pgsonar.config.convert import mapping, to_section
from pgsonar.config.environment import Environment, without_own
from pgsonar.config.files import check_files
from pgsonar.config.origins import Origins
from pgsonar.config.problems import Problems, allowed_hint
from pgsonar.config.reading import Document, files_of, merge, read_all
from pgsonar.config.schema import (
    SIGNALS,
    Config,
    FileStorage,
    FlightRecorder,
    HealthCheck,
    LeaksProcessor,
    MemoryLimiter,
    PgbouncerReceiver,
    Pipelines,
    PostgresqlReceiver,
    Section,
    ServerlogReceiver,
    Service,
    SocketsReceiver,
)
from pgsonar.config.substitution import substitute
from pgsonar.config.wiring import extensions_on, wire
from pgsonar.errors import ConfigError

Used = TypeVar("Used", bound=Section)


class Loaded(NamedTuple):
    """A configuration with its components as they were declared, and where each value came from."""

    config: Config
    components: Components
    origins: Origins
    files: list[str]


def load(paths: Sequence[str], settings: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Reads `--config` files and `--set` settings to run here. Raises ConfigError with everything that is wrong."""
    return read(paths, settings, environ).config


def read(
    paths: Sequence[str], settings: Sequence[str], environ: Mapping[str, str], *, is_for_here: bool = True
) -> Loaded:
    """The same with its origins. Where it is not for this machine, files that it names may be missing: a warning."""
    problems = Problems()
    files = _files(paths, problems)
    document = _document(files, settings, environ, problems)
    environment = Environment(environ, problems)
    service, extensions_written = _service(document.get("service"), environment, problems, has_file=bool(files))
    components = read_components(document, environment, problems)
    pipelines = wire(service.pipelines, components, problems)
    # Without a file there is nobody who could have asked for the health check, and probes expect one: it is on.
    extensions = extensions_on(
        service.extensions if extensions_written else None, components, problems, health_by_default=not files
    )
    environment.warn_of_unused()
    check_components(components, problems)
    check_telemetry(service.telemetry, problems)
    check_storage(components, extensions, problems)
    check_numbered(service.telemetry, extensions, problems)
    check_files(components, problems, is_for_here=is_for_here)
    problems.stop_if_any()
    health, recorder = extensions.get("health_check"), extensions.get("flight_recorder")
    storage = extensions.get("file_storage")
    config = Config(
        sockets=_sockets(components),
        postgresql=_used("receivers", PostgresqlReceiver, components, pipelines),
        pgbouncer=_used("receivers", PgbouncerReceiver, components, pipelines),
        serverlog=_used("receivers", ServerlogReceiver, components, pipelines),
        leaks=_processor(LeaksProcessor, components, pipelines),
        memory_limiter=_processor(MemoryLimiter, components, pipelines),
        exporters=_used("exporters", Section, components, pipelines),
        pipelines=pipelines,
        health_check=health if isinstance(health, HealthCheck) else None,
        file_storage=storage if isinstance(storage, FileStorage) else None,
        flight_recorder=recorder if isinstance(recorder, FlightRecorder) else None,
        telemetry=service.telemetry,
        warnings=problems.warnings,
    )
    return Loaded(config, components, problems.origins, files)


def _files(paths: Sequence[str], problems: Problems) -> list[str]:
    """What `--config` names, directories by what they hold."""
    files = []
    for path in paths:
        found = files_of(path)
        if not found:
            problems.warn(path, "holds no file that ends in .yaml or .yml")
        files += found
    return files


def _document(
    files: Sequence[str], settings: Sequence[str], environ: Mapping[str, str], problems: Problems
) -> Document:
    try:
        written = read_all(files, settings, problems.origins)
        problems.origins.note_references(written, environ)
        document: Document = substitute(written, environ, problems)
    except RecursionError:  # an anchor whose value holds its own alias
        raise ConfigError("the configuration contains itself", "look for a YAML alias (*name) in its anchor") from None
    allowed = (*TYPES, "service")
    for name in document:
        if name not in allowed:
            problems.error(name, "unknown key", allowed_hint(name, allowed))
    return document


def _service(written: Any, environment: Environment, problems: Problems, *, has_file: bool) -> tuple[Service, bool]:
    """The service section over what the environment says of it, and whether `extensions` is written."""
    settings = mapping(written, "service", problems) or {}
    interval = None if has_file else environment.metric_interval()
    below: Document = {"telemetry": {"metrics": {"interval": interval}}}
    service = to_section(Service, merge(below, settings), "service", problems) or Service()
    of_file = without_own(service.telemetry.resource, "service.telemetry.resource", problems)
    resource = environment.resource() | of_file
    telemetry = msgspec.structs.replace(service.telemetry, resource=resource)
    return msgspec.structs.replace(service, telemetry=telemetry), settings.get("extensions") is not None


def _sockets(components: Components) -> SocketsReceiver:
    section = components.get("receivers", components.of_type("receivers", "sockets") or "")
    return section if isinstance(section, SocketsReceiver) else SocketsReceiver()


def _processor(of: type[Used], components: Components, pipelines: Pipelines) -> Used | None:
    """The only processor of a type, if a pipeline uses it."""
    for signal in SIGNALS:
        for processor in getattr(getattr(pipelines, signal), "processors", []):
            section = components.get("processors", processor)
            if isinstance(section, of):
                return section
    return None


def _used(kind: str, of: type[Used], components: Components, pipelines: Pipelines) -> dict[str, Used]:
    """The components of a kind and of one type that a pipeline uses."""
    used = {one for signal in SIGNALS for one in getattr(getattr(pipelines, signal), kind, [])}
    return {
        component: section
        for component, section in components.sections[kind].items()
        if component in used and isinstance(section, of)
    }
