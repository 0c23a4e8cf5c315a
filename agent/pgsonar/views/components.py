"""`pgsonar components` as lines of text. The rule: pure, at most 80 columns; keys that are alike are told once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 80
_NAME = 18  # columns


def component_lines(listed: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Each kind, its types in the order of the schema, each type with its sentence and its keys."""
    lines: list[str] = []
    for kind, found in listed.items():
        if not found:
            continue
        lines.append(kind.upper())
        for one in found:
            lines += _wrap(f"  {one['type']:<{_NAME - 3}} ", one["summary"])
            lines += _wrap(" " * _NAME, ", ".join(_keys(one["keys"]))) if one["keys"] else []
        lines.append("")
    return lines[:-1]


def _keys(keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """`interval (100ms)`, `tls {ca_file, ...}`; names of the same keys stand together."""
    alike: dict[str, list[str]] = {}
    for key in keys:
        alike.setdefault(_within(key) or f"\0{key['key']}", []).append(key["key"] + _aside(key))
    return [f"{', '.join(names)}{'' if inner.startswith(chr(0)) else ' ' + inner}" for inner, names in alike.items()]


def _within(key: Mapping[str, Any]) -> str:
    if not key["keys"]:
        return ""
    inner = "{" + ", ".join(_keys(key["keys"])) + "}"
    return f"[{inner}, ...]" if "list" in key["takes"] else inner


def _aside(key: Mapping[str, Any]) -> str:
    """The words that are allowed, the first of them by default, or the default alone."""
    default, allowed = key["default"], key["allowed"]
    if key["required"]:
        return " (required)"
    if allowed and default in allowed:
        return f" ({' | '.join([default, *(word for word in allowed if word != default)])})"
    if allowed:
        return f" ({' | '.join(allowed)})"
    if default in (None, [], {}):
        return ""
    return f" ({str(default).lower() if isinstance(default, bool) else default})"


def _wrap(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * _NAME,
        break_long_words=False,
        break_on_hyphens=False,
    )
