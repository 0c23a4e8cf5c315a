"""Components as a configuration declares them: ids, types and their structs.

The rule: an id is `type` or `type/name`; a component declared with null has its defaults; `sockets` and `leaks` exist
without being declared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pgsonar.config import schema, unbuilt
from pgsonar.config.convert import mapping, to_section
from pgsonar.config.environment import Environment
from pgsonar.config.headers import plain
from pgsonar.config.origins import PRESET
from pgsonar.config.presets import PRESETS, supplied
from pgsonar.config.problems import Problems, allowed_hint
from pgsonar.config.reading import Document, merge
from pgsonar.config.schema import Section

TYPES: dict[str, dict[str, type[Section]]] = {
    "receivers": schema.type_of_receiver,
    "processors": schema.type_of_processor,
    "exporters": schema.type_of_exporter,
    "extensions": schema.type_of_extension,
}
METRICS_ONLY = ("prometheus",)  # exporters
_ALIASES = {"otlp": "otlp_grpc", "otlphttp": "otlp_http"}  # the Collector's older names of exporters
_ALWAYS = {"receivers": "sockets", "processors": "leaks"}
_ONE_ONLY = ("sockets", "leaks", "memory_limiter", "health_check", "file_storage", "flight_recorder")


@dataclass(slots=True)
class Components:
    """What is declared, by kind (receivers, ...) and id; None stands for a component that is wrong."""

    sections: dict[str, dict[str, Section | None]] = field(default_factory=dict)
    undeclared: set[str] = field(default_factory=set)  # ids that exist without being written
    exporter_of_signal: dict[str, str] = field(default_factory=dict)  # the environment's, where none is declared

    def get(self, kind: str, component_id: str) -> Section | None:
        return self.sections[kind].get(component_id)

    def of_type(self, kind: str, component_type: str) -> str | None:
        """The id of the only component of a type."""
        return next((one for one in self.sections[kind] if type_of(one) == component_type), None)


def type_of(component_id: str) -> str:
    """`otlp_http` of `otlp_http/backup`."""
    return component_id.partition("/")[0]


def real_id(kind: str, component_id: str) -> str:
    """The id with an alias of its type replaced."""
    if kind != "exporters":
        return component_id
    component_type, slash, name = component_id.partition("/")
    return _ALIASES.get(component_type, component_type) + slash + name


def read_components(document: Document, environment: Environment, problems: Problems) -> Components:
    """Every component, with the default exporters where none is declared."""
    reader = _Reader(environment, problems)
    components = Components()
    for kind in TYPES:
        sections = components.sections[kind] = reader.every(kind, document.get(kind))
        always = _ALWAYS.get(kind)
        if always and all(type_of(one) != always for one in sections):
            sections[always] = TYPES[kind][always]()
            components.undeclared.add(always)
    if not components.sections["exporters"]:
        defaults = environment.defaults()
        for exporter_id, settings in defaults.exporters.items():
            key = f"exporters.{exporter_id}"
            components.sections["exporters"][exporter_id] = to_section(schema.OtlpExporter, settings, key, problems)
            components.undeclared.add(exporter_id)
        components.exporter_of_signal = defaults.of_signal
    return components


@dataclass(frozen=True, slots=True)
class _Reader:
    environment: Environment
    problems: Problems

    def every(self, kind: str, written: Any) -> dict[str, Section | None]:
        """The components of one kind."""
        sections: dict[str, Section | None] = {}
        for written_id, value in (mapping(written, kind, self.problems) or {}).items():
            key = f"{kind}.{written_id}"
            component_id = real_id(kind, written_id)
            component_type = type_of(component_id)
            if component_id != written_id:
                self.problems.warn(key, f"{type_of(written_id)} is an alias, write {component_type}")
                self.problems.origins.rename(key, f"{kind}.{component_id}")
            if component_id in sections:
                self.problems.error(key, f"is {component_id}, which is declared already")
            elif component_type in _ONE_ONLY and any(type_of(other) == component_type for other in sections):
                self.problems.error(key, f"only one {component_type} is allowed")
            else:
                sections[component_id] = self._one(kind, component_id, key, value)
        return sections

    def _one(self, kind: str, component_id: str, key: str, value: Any) -> Section | None:
        component_type = type_of(component_id)
        if component_type not in TYPES[kind]:
            what = f"unknown {kind.removesuffix('s')}"
            self.problems.error(key, what, allowed_hint(component_type, TYPES[kind]))
            return None
        if component_id.endswith("/"):
            hint = f"write {component_type}, or {component_type}/name"
            self.problems.error(key, "the name behind the / is missing", hint)
        if unbuilt.refuse_component(kind, component_type, key, self.problems):
            return None
        settings = mapping(value, key, self.problems)
        if settings is None:
            return None
        section = TYPES[kind][component_type]
        if section is schema.OtlpExporter:
            if "headers" in settings:
                settings = settings | {"headers": plain(settings["headers"])}
            settings = self.environment.fill(key, component_type, self._with_preset(key, component_type, settings))
        return to_section(section, settings, key, self.problems)

    def _with_preset(self, key: str, component_type: str, written: Document) -> Document:
        """An exporter over what its preset supplies; a preset that is none is told of by the schema."""
        name = str(written.get("preset"))
        if name not in PRESETS:
            return written
        added = supplied(name, component_type, written)
        self.problems.origins.note_below(key, added, f"{PRESET}{name}")
        return merge(written, added)
