"""`${env:X}`, `${env:X:-default}` and `$$` in the values of a configuration, as in the OpenTelemetry Collector.

The rule: a variable that is not set and has no default is an error naming the variable and the key; what a variable
holds is never looked into for further references, and never quoted.
https://opentelemetry.io/docs/collector/configuration/#environment-variables
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pgsonar.config.origins import REFERENCE, VARIABLE
from pgsonar.config.problems import Problems

_HINT = "write ${env:NAME} or ${env:NAME:-default}, and $$ for a dollar sign"


class Substituted(str):
    """The text of a value that was one `${env:X}` and nothing else: YAML to the schema, unless it asks for text."""

    __slots__ = ()


def substitute(value: Any, environ: Mapping[str, str], problems: Problems, key: str = "") -> Any:
    """A copy of the document with every reference replaced."""
    if isinstance(value, dict):
        prefix = f"{key}." if key else ""
        return {name: substitute(inner, environ, problems, f"{prefix}{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [substitute(inner, environ, problems, f"{key}[{index}]") for index, inner in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value
    before = len(problems.errors)
    text = REFERENCE.sub(lambda match: _replacement(match, environ, problems, key), value)
    if len(problems.errors) > before:
        return None  # as if it were not written, so that one mistake makes one error
    alone = REFERENCE.fullmatch(value)
    return Substituted(text) if alone and alone[1] is not None else text


def _replacement(match: re.Match[str], environ: Mapping[str, str], problems: Problems, key: str) -> str:
    if match[0] == "$$":
        return "$"
    inner = match[1]
    variable = VARIABLE.fullmatch(inner) if inner is not None else None
    if variable is None:
        problems.error(key, "a ${...} that cannot be understood", _HINT)
        return ""
    name, default = variable.groups()
    found = environ.get(name, default)
    if found is None:
        problems.error(
            key, f"the environment variable {name} is not set", f"set it, or give a default: ${{env:{name}:-default}}"
        )
        return ""
    return found
