"""What a configuration can name, from the schema: each type of component with its sentence and its keys.

The rule: nothing is listed by hand, and nothing that `unbuilt` refuses is listed.
"""

from __future__ import annotations

import types
from typing import Any, Literal, TypedDict, Union, get_args, get_origin

import msgspec

from pgsonar.config import unbuilt
from pgsonar.config.addresses import DEFAULT_ENDPOINTS
from pgsonar.config.checks import NOT_GRPC
from pgsonar.config.components import TYPES
from pgsonar.config.presets import PRESETS
from pgsonar.config.schema import Section
from pgsonar.config.units import ByteSize, Duration, Instant, Percent

_WORDS: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    Duration: "duration",
    Percent: "percentage",
    ByteSize: "size",
    Instant: "time",
}


class Key(TypedDict):
    """One key of a section. `keys` are those of a mapping (or of each mapping in a list) with keys of its own."""

    key: str
    takes: str
    allowed: list[str]
    default: Any
    required: bool
    keys: list[Key]


class Type(TypedDict):
    """One type of component, or one preset."""

    type: str
    summary: str
    keys: list[Key]


def catalog() -> dict[str, list[Type]]:
    """All of them, by kind (receivers, ...), and the presets of exporters."""
    listed = {
        kind: [
            Type(type=name, summary=summary(section), keys=_keys_of_type(name, section))
            for name, section in sections.items()
            if name not in unbuilt.COMPONENTS[kind]
        ]
        for kind, sections in TYPES.items()
    }
    listed["presets"] = [
        Type(type=name, summary=f"{preset.title}: what it wants of an OTLP exporter.", keys=[])
        for name, preset in PRESETS.items()
    ]
    return listed


def _keys_of_type(name: str, section: type[Section]) -> list[Key]:
    """The keys of a section as this type takes them: both protocols of OTLP share one."""
    found = keys(section)
    if name == "otlp_grpc":
        found = [key for key in found if key["key"] not in NOT_GRPC]
    for key in found:
        if key["key"] == "endpoint" and name in DEFAULT_ENDPOINTS:
            key["default"] = DEFAULT_ENDPOINTS[name]
    return found


def summary(section: type[Section]) -> str:
    """The first sentence of what the schema says of a section."""
    return " ".join((section.__doc__ or "").split("\n\n")[0].split()).partition(". ")[0].removesuffix(".") + "."


def keys(section: type[Section]) -> list[Key]:
    """The keys of a section that this version takes."""
    found = []
    for field in msgspec.structs.fields(section):
        options = [option for option in _options(field.type) if option is not types.NoneType]
        inner = next((one for one in map(_inner, options) if one is not None), None)
        found.append(
            Key(
                key=field.name,
                takes=" or ".join(dict.fromkeys(map(_takes, options))),
                allowed=_allowed(options),
                default=_default(field),
                required=field.required,
                keys=keys(inner) if inner is not None else [],
            )
        )
    return found


def _options(wanted: Any) -> tuple[Any, ...]:
    return get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)


def _inner(option: Any) -> type[Section] | None:
    """The section that a key holds, or a list of them."""
    option = get_args(option)[0] if get_origin(option) is list else option
    return option if isinstance(option, type) and issubclass(option, Section) else None


def _takes(option: Any) -> str:
    origin = get_origin(option)
    if origin is Literal:
        return "word"
    if origin is list:
        return f"list of {_takes(get_args(option)[0])}"
    return "mapping" if origin is dict or _inner(option) else _WORDS[option]


def _allowed(options: list[Any]) -> list[str]:
    return [word for option in options if get_origin(option) is Literal for word in get_args(option)]


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.required:
        return None
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, Section):  # its keys tell
        return None
    return str(value) if isinstance(value, Duration | Percent | ByteSize) else value
