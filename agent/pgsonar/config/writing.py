"""A traced configuration as YAML, with the origin of each value as a comment behind it.

The rule: what is written is read back as the same, `$` and all. Lines keep within 80 columns where the value lets them:
an origin that has no room stands above its value. A mapping of one origin takes one line, where it fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from pgsonar.config.effective import Tree, Value, values
from pgsonar.config.reading import parse_yaml
from pgsonar.errors import ConfigError

WIDTH = 80
_COLUMN = 42  # of comments
_PLAIN = re.compile(r"[A-Za-z0-9_./]([A-Za-z0-9_./:@%+-]*[A-Za-z0-9_./@%+-])?")


def yaml_lines(tree: dict[str, Tree]) -> list[str]:
    """The lines of a document."""
    return list(_mapping(tree, ""))


def _mapping(tree: dict[str, Tree], indent: str) -> Iterator[str]:
    for name, inner in tree.items():
        head = f"{indent}{_scalar(name)}:"
        if isinstance(inner, Value):
            yield from _value(head, inner, indent)
        elif line := _one_line(head, inner) if indent else None:  # the sections of the document stay apart
            yield line
        else:
            yield head
            yield from _mapping(inner, f"{indent}  ") if isinstance(inner, dict) else _items(inner, f"{indent}  ")


def _items(items: list[Tree], indent: str) -> Iterator[str]:
    for item in items:
        if line := _one_line(f"{indent}-", item):
            yield line
        elif isinstance(item, dict):
            yield f"{indent}-"
            yield from _mapping(item, f"{indent}  ")


def _value(head: str, value: Value, indent: str) -> Iterator[str]:
    text = f"{head} {_flow(value)}"
    if isinstance(value.value, list) and len(text) > WIDTH:
        yield from _commented(head, value.origin, indent)
        yield from (f"{indent}  - {_scalar(_escaped(item))}" for item in value.value)
    else:
        yield from _commented(text, value.origin, indent)


def _one_line(head: str, tree: Tree) -> str | None:
    """Everything in one line, if it fits and came from one place."""
    origins = {value.origin for value in values(tree)}
    if len(origins) != 1:
        return None
    lines = list(_commented(f"{head} {_flow(tree)}", origins.pop(), ""))
    return lines[0] if len(lines) == 1 and len(lines[0]) <= WIDTH else None


def _commented(text: str, origin: str, indent: str) -> Iterator[str]:
    comment = "# " + "".join(character if character.isprintable() else "?" for character in origin)
    for column in (_COLUMN, len(text) + 2):
        if len(text) + 2 <= column and column + len(comment) <= WIDTH:
            yield f"{text:<{column}}{comment}"
            return
    yield f"{indent}{comment}"
    yield text


def _flow(tree: Tree) -> str:
    if isinstance(tree, dict):
        return f"{{{', '.join(f'{_scalar(name)}: {_flow(inner)}' for name, inner in tree.items())}}}"
    if isinstance(tree, list):
        return f"[{', '.join(map(_flow, tree))}]"
    if isinstance(tree.value, list):
        return f"[{', '.join(_scalar(_escaped(item)) for item in tree.value)}]"
    return _scalar(tree.value if tree.is_reference else _escaped(tree.value))


def _escaped(value: Any) -> Any:
    return value.replace("$", "$$") if isinstance(value, str) else value


def _scalar(value: Any) -> str:
    """Text stands plain where YAML reads it as the same text, else in quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return "{}" if value == {} else repr(value)
    try:
        if _PLAIN.fullmatch(value) and parse_yaml(f"[{value}]", "") == [value]:
            return value
    except ConfigError:  # what looks like a date and is none
        pass
    return str(yaml.safe_dump(value, default_style='"', width=float("inf"), allow_unicode=True)).strip()
