"""A configuration as it could be written: plain mappings, lists and scalars, with every default that is in force.

The rule: what is read back makes an equal `Config`. What is not set is left out, and what is declared and not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from pgsonar.config.addresses import DEFAULT_ENDPOINTS
from pgsonar.config.components import Components, type_of
from pgsonar.config.headers import text_of
from pgsonar.config.origins import PRESET, Origins, children
from pgsonar.config.reading import Document
from pgsonar.config.schema import SIGNALS, Config, OtlpExporter, Section
from pgsonar.config.secrets import in_its_place
from pgsonar.config.units import ByteSize, Duration, Instant, Percent


class Value(NamedTuple):
    """A scalar or a list of scalars, and where it came from. A reference is shown instead of the secret it names."""

    key: str
    value: Any
    origin: str
    is_reference: bool = False


Tree: TypeAlias = "dict[str, Tree] | list[Tree] | Value"


def effective(config: Config, components: Components) -> Document:
    """The whole document, its sections in the order of the Collector's."""
    used = {
        kind: {one for signal in SIGNALS for one in getattr(getattr(config.pipelines, signal), kind, [])}
        for kind in ("receivers", "processors", "exporters")
    }
    extensions = _extensions(config, components)
    document: Document = {
        kind: {
            one: _component(one, components.get(kind, one))
            for one in components.sections[kind]
            if one in used[kind] or (type_of(one) == "sockets" and one not in components.undeclared)
        }
        for kind in used
    }
    document["extensions"] = {one: _plain(section) for one, section in extensions.items()}
    document["service"] = {
        "extensions": list(extensions),
        "pipelines": _plain(config.pipelines),
        "telemetry": _plain(config.telemetry),
    }
    return document


def trace(document: Any, origins: Origins, *, shows_secrets: bool, key: str = "") -> Tree:
    """The same document with each value's origin, and without secrets unless they are to be shown."""
    if document and isinstance(document, dict):
        inner = dict(children(key, document))
        return {
            name: trace(value, origins, shows_secrets=shows_secrets, key=place)
            for name, (place, value) in zip(document, inner.items(), strict=True)
        }
    if isinstance(document, list):
        if any(isinstance(one, dict) for one in document):
            return [
                trace(one, origins, shows_secrets=shows_secrets, key=place) for place, one in children(key, document)
            ]
        named = (place for place, _ in children(key, document) if origins.written(place))
        return Value(key, document, origins.of(next(named, key)))
    written = origins.written(key)
    origin = origins.of(key)
    is_public = shows_secrets or origin.startswith(PRESET)
    instead = None if is_public else in_its_place(key, document, written)
    if instead is None:
        return Value(key, document, origin)
    is_reference = instead == written
    return Value(key, instead, origin if is_reference else f"{origin}, redacted", is_reference)


def values(tree: Tree) -> Iterator[Value]:
    """All values of a tree, in its order."""
    if isinstance(tree, Value):
        yield tree
    else:
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from values(inner)


def _extensions(config: Config, components: Components) -> dict[str, Section]:
    """Those that are on, by the ids they were declared with."""
    on = {
        "health_check": config.health_check,
        "file_storage": config.file_storage,
        "flight_recorder": config.flight_recorder,
    }
    return {components.of_type("extensions", kind) or kind: section for kind, section in on.items() if section}


def _component(component_id: str, section: Section | None) -> Document:
    """A component with the endpoint of its protocol, where signals without one of their own go."""
    written: Document = _plain(section)
    if isinstance(section, OtlpExporter):
        written["headers"] = {name: text_of(value) for name, value in section.headers.items()}
    if isinstance(section, OtlpExporter) and not all(getattr(section, f"{signal}_endpoint") for signal in SIGNALS):
        return {"endpoint": DEFAULT_ENDPOINTS[type_of(component_id)], **written}
    return written


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return {name: _plain(inner) for name, inner in fields.items() if inner is not None}
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Duration | Percent | ByteSize | Instant) else value
