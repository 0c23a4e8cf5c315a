"""What is wrong with a configuration, gathered so that all of it can be told at once.

The rule: every problem names its key; none quotes a value that may be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from pgsonar.config.origins import Origins
from pgsonar.config.secrets import may_be_secret
from pgsonar.errors import ConfigError


@dataclass(slots=True)
class Problems:
    """Errors (each with a hint) and warnings, in the order they were met. Errors say where the key was written."""

    origins: Origins = field(default_factory=Origins)
    errors: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, key: str, what: str, hint: str = "") -> None:
        place = self.origins.place(key)
        told = (f"{key}: {what} ({place})" if place else f"{key}: {what}", hint)
        if told not in self.errors:  # one variable may serve three signals
            self.errors.append(told)

    def warn(self, key: str, what: str) -> None:
        self.warnings.append(f"{key}: {what}")

    def stop_if_any(self) -> None:
        """Raises everything gathered so far, as one error."""
        if not self.errors:
            return
        if len(self.errors) == 1:
            raise ConfigError(*self.errors[0])
        lines = [f"the configuration has {len(self.errors)} errors"]
        for message, hint in self.errors:
            lines.append(f"  {message}")
            lines.extend([f"    hint: {hint}"] if hint else [])
        raise ConfigError("\n".join(lines))


def allowed_hint(name: object, allowed: Iterable[str]) -> str:
    """The near name, if there is one, and all that is allowed."""
    names = sorted(allowed)
    near = near_hint(name, names)
    every = "allowed: " + ", ".join(names) if names else ""
    return f"{near} {every}" if near else every


def near_hint(name: object, allowed: Iterable[str]) -> str:
    """The near name, if there is one."""
    near = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"did you mean {near[0]}?" if near else ""


def shown(value: object, key: str) -> str:
    """A value as an error may quote it."""
    if may_be_secret(key):
        return "another kind of value" if not isinstance(value, str) else "another text"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(str(value)) if isinstance(value, str) else str(value)
