"""What the schema knows and this version does not do yet. A later version deletes lines here, and nothing else.

The rule: what would change the result is refused with "not in this version"; what only adds to it is ignored, with a
warning. Both apply only to what is written, never to a default.
"""

from __future__ import annotations

from pgsonar.config import schema
from pgsonar.config.problems import Problems

COMPONENTS: dict[str, frozenset[str]] = {
    "receivers": frozenset(),
    "processors": frozenset({"owners"}),
    "exporters": frozenset({"prometheus"}),
    "extensions": frozenset({"file_storage", "status_page"}),
}

# Section, key, and the values that are refused; None refuses every value that is not empty.
REFUSED: tuple[tuple[type[schema.Section], str, tuple[object, ...] | None], ...] = (
    (schema.LeaksProcessor, "overrides", None),
    (schema.LeakKind, "shadow", (True,)),
    (schema.OtlpExporter, "temporality", ("delta",)),
    (schema.OtlpExporter, "preset", None),
    (schema.OtlpExporter, "profile", None),
    (schema.SendingQueue, "storage", None),
    (schema.TelemetryMetrics, "endpoint", None),
)

IGNORED: tuple[tuple[type[schema.Section], str], ...] = (
    (schema.LeaksProcessor, "idle_leak"),
    (schema.LeaksProcessor, "half_open"),
    (schema.LeaksProcessor, "slow_reader"),
    (schema.LeaksProcessor, "backend_busy_unread_input"),
    (schema.LeaksProcessor, "client_socket_leak"),
    (schema.LeaksProcessor, "connection_thrash"),
    (schema.LeaksProcessor, "role_or_database_limit"),
    (schema.LeaksProcessor, "pooler_waiting"),
    (schema.LeaksProcessor, "pooler_pinned"),
    (schema.LeaksProcessor, "pooler_forgotten_server"),
    (schema.LeaksProcessor, "long_query"),
    (schema.LeaksProcessor, "network_path"),
    (schema.LeaksProcessor, "unaccounted"),
)


def refuse_component(kind: str, component_type: str, key: str, problems: Problems) -> bool:
    """Whether a component of this type (`kind` is receivers, processors, ...) was refused."""
    if component_type not in COMPONENTS[kind]:
        return False
    problems.error(key, f"the {kind.removesuffix('s')} {component_type} is not in this version", f"remove {key}")
    return True


def remark(section: type[schema.Section], name: str, value: object, key: str, problems: Problems) -> None:
    """Refuses or warns about a value that was written at `key`, when this version does nothing with it."""
    for owner, refused_name, refused in REFUSED:
        if not issubclass(section, owner) or name != refused_name:
            continue
        if refused is None and value not in (None, [], {}):
            problems.error(key, "is not in this version", f"remove {key}")
        elif refused is not None and value in refused:
            shown = str(value).lower() if isinstance(value, bool) else value
            problems.error(key, f"{shown} is not in this version", f"remove {key}")
    if any(issubclass(section, owner) and name == ignored for owner, ignored in IGNORED):
        problems.warn(key, "not in this version, ignored")
