"""YAML files, directories of them and `--set` settings, laid over one another into one plain mapping.

The rule: files are merged in the order given (mappings merge; lists, scalars and null replace), settings come last.
What cannot be read is named by file, line and column; nothing of a setting's value is quoted, it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from pgsonar.config.origins import Origins
from pgsonar.errors import ConfigError

Document = dict[str, Any]

# Their keys may hold dots: `--set service.telemetry.resource.service.name=x` sets `service.name` in `resource`.
_FREE_KEYS = {"resource", "headers"}
_SUFFIXES = (".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key written twice and keys that are not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = key.value, key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, "keys are text: put this one in quotes", key.start_mark
                )
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name} is written twice, first in line {seen[name]}", key.start_mark
                )
            seen[name] = line
        for key, value in node.value:
            if key.value == "headers" and isinstance(value, yaml.MappingNode):
                _as_text(value)
        return super().construct_mapping(node, deep)


def _as_text(headers: yaml.MappingNode) -> None:
    """The value of a header is text as it stands there: a key such as 0123 is no number."""
    for _, value in headers.value:
        if isinstance(value, yaml.ScalarNode) and value.tag != "tag:yaml.org,2002:null":
            value.tag = "tag:yaml.org,2002:str"


def parse_yaml(text: str, origin: str) -> Any:
    """One YAML document. `origin` is what an error calls the text."""
    return _parsed(text, origin)[0]


def _parsed(text: str, origin: str) -> tuple[Any, yaml.Node | None]:
    """A document, and its nodes, which know their lines."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        raise ConfigError(f"{place}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a date such as 2024-13-45. A reader error tells which character YAML does not allow.
        problem = getattr(error, "reason", "a value that YAML takes for a date or a number, and is none")
        raise ConfigError(f"{origin}: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: nested too deeply") from None


def files_of(path: str) -> list[str]:
    """A file, or those of a directory that end in .yaml or .yml, in the order of their names.

    Hidden ones are left out; what editors and packagers leave beside a file ends otherwise (`~`, `.rpmsave`).
    """
    try:
        if not Path(path).is_dir():
            return [path]
        found = [one for one in sorted(Path(path).iterdir()) if one.suffix in _SUFFIXES and one.name[0] != "."]
        return [str(one) for one in found if not one.is_dir()]
    except OSError as error:
        hint = "allow this user to enter the directory"
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", hint) from None


def read_file(path: str) -> tuple[Document, dict[str, str]]:
    """The mapping in a file, and the place of each key (`file:line`); an empty file is an empty mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "check the name given with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    content, node = _parsed(text, path)
    if content is None:
        return {}, {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected a mapping, got {'a list' if isinstance(content, list) else 'a single value'}",
            "a file has the keys receivers, processors, exporters, extensions and service",
        )
    return content, {key: f"{path}:{line}" for key, line in _lines(node, "")}


def _lines(node: yaml.Node | None, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:  # merge keys were resolved when the document was made
            inner = f"{key}.{name.value}" if key else str(name.value)
            yield inner, name.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{key}[{index}]", value.start_mark.line + 1
            yield from _lines(value, f"{key}[{index}]")


def read_setting(setting: str) -> Document:
    """`a.b.c=value` or `a::b::c=value` as a nested mapping; the value is YAML."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    parts = key.split("::") if "::" in key else _split_at_dots(key)
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {key or '(nothing)'}: expected key=value", "for example --set receivers.sockets.interval=200ms"
        )
    try:
        value = parse_yaml(text, f"--set {key}")
    except ConfigError:
        raise ConfigError(f"--set {key}: the value is not YAML", "put it in quotes: --set 'key=\"value\"'") from None
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def _split_at_dots(key: str) -> list[str]:
    parts = key.split(".")
    for index, part in enumerate(parts):
        if part in _FREE_KEYS and parts[index + 1 :]:
            return [*parts[: index + 1], ".".join(parts[index + 1 :])]
    return parts


def merge(below: Document, above: Document) -> Document:
    """A new mapping: `above` laid over `below`."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def read_all(files: Sequence[str], settings: Sequence[str], origins: Origins) -> Document:
    """Every file and setting, merged; where each value stands is noted."""
    document: Document = {}
    for file in files:
        content, places = read_file(file)
        origins.note("", content, places)
        document = merge(document, content)
    for setting in settings:
        content = read_setting(setting)
        origins.note("", content, "--set")
        document = merge(document, content)
    return document
