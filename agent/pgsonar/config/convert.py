"""Plain mappings -> the structs of `schema`, every error found in one walk.

The rule: the schema alone says what is allowed. Keys are walked here, so that each error names its key and the near
name; single values are left to msgspec. Null stands for "not written".
"""

from __future__ import annotations

import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from pgsonar.config.problems import Problems, allowed_hint, near_hint, shown
from pgsonar.config.reading import parse_yaml
from pgsonar.config.schema import Section
from pgsonar.config.substitution import Substituted
from pgsonar.config.units import ByteSize, Duration, Instant, Percent
from pgsonar.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)

_UNITS = (Duration, Percent, ByteSize, Instant)
_WORDS: dict[object, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


class _NoValueError(Exception):
    """The field keeps its default: what is wrong with its value is told already, or its variable is empty."""


def to_section(section: type[AnySection], value: Any, key: str, problems: Problems) -> AnySection | None:
    """The struct, or None when it could not be made at all. Fields that are wrong keep their default."""
    value = mapping(value, key, problems)
    if value is None:
        return None
    fields = {field.name: field for field in msgspec.structs.fields(section)}
    for name in value:
        if name not in fields:
            problems.error(f"{key}.{name}", "unknown key", allowed_hint(name, fields))
    values: dict[str, Any] = {}
    complete = True
    for name, field in fields.items():
        written = value.get(name)
        inner = f"{key}.{name}"
        if written is None:
            if field.required:
                problems.error(inner, f"is required, {_expected(field.type)}")
                complete = False
            continue
        try:
            values[name] = _to_type(field.type, written, inner, problems)
        except _NoValueError:
            complete = complete and not field.required
    return section(**values) if complete else None


def mapping(value: Any, key: str, problems: Problems) -> dict[str, Any] | None:
    """A mapping (null is an empty one), or None after telling what is wrong."""
    value = _typed(value, key, problems)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    problems.error(key, f"expected a mapping, got {shown(value, key)}")
    return None


def _typed(value: Any, key: str, problems: Problems) -> Any:
    """What a lone `${env:X}` stands for where the schema asks for something else than text."""
    if not isinstance(value, Substituted):
        return value
    try:
        return parse_yaml(value, key)
    except ConfigError:
        problems.error(key, "the environment variable does not hold YAML")
        return None


def _to_type(wanted: Any, value: Any, key: str, problems: Problems) -> Any:
    """The value as the schema's type wants it."""
    options = [option for option in _options(wanted) if option is not types.NoneType]
    if str in options or any(get_origin(option) is Literal for option in options if isinstance(value, Substituted)):
        value = str(value) if isinstance(value, Substituted) else value
    else:
        value = _typed(value, key, problems)
        if value is None:
            raise _NoValueError
    for option in options:
        if isinstance(option, type) and issubclass(option, Section):
            section = to_section(option, value, key, problems)
            if section is None:
                raise _NoValueError
            return section
        if isinstance(value, list) and get_origin(option) is list:
            (item,) = get_args(option)
            return [_to_type(item, element, f"{key}[{index}]", problems) for index, element in enumerate(value)]
        if isinstance(value, dict) and get_origin(option) is dict:
            item = get_args(option)[1]
            return {
                name: _to_type(item, element, f"{key}.{name}", problems)
                for name, element in value.items()
                if element is not None
            }
    return _to_scalar(wanted, value, key, problems)


def _to_scalar(wanted: Any, value: Any, key: str, problems: Problems) -> Any:
    try:
        return msgspec.convert(value, wanted, strict=True, dec_hook=_unit)
    except msgspec.ValidationError as error:
        if any(option in _UNITS for option in _options(wanted)):
            problems.error(key, str(error).partition(" - at ")[0])
        else:
            hint = near_hint(value, _allowed_words(wanted))
            problems.error(key, f"{_expected(wanted)}, got {shown(value, key)}", hint)
        raise _NoValueError from None


def _unit(wanted: type, value: object) -> object:
    if wanted in _UNITS:
        return wanted.parse(value)
    raise TypeError(f"a field of the schema is of a type that no value can be converted to: {wanted}")


def _options(wanted: Any) -> tuple[Any, ...]:
    return get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)


def _allowed_words(wanted: Any) -> list[str]:
    return [word for option in _options(wanted) if get_origin(option) is Literal for word in get_args(option)]


def _expected(wanted: Any) -> str:
    """What is wanted, for people."""
    words = _allowed_words(wanted)
    parts = [("one of " if len(words) > 1 else "") + ", ".join(words)] if words else []
    for option in _options(wanted):
        if get_origin(option) is list:
            parts.append("a list")
        elif get_origin(option) is dict:
            parts.append("a mapping")
        elif option in _WORDS:
            parts.append(_WORDS[option])
    return "expected " + " or ".join(parts)
