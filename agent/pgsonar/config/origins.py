"""Where each value of a configuration came from: a line of a file, `--set`, a variable, a preset; else it is a default.

The rule: keys are written as errors write them (`a.b[0].c`). What is noted later lies above what was noted before, and
hides it as `reading.merge` does: a mapping over a mapping adds to it, anything else replaces all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

DEFAULT = "default"
PRESET = "preset "  # and its name
REFERENCE = re.compile(r"\$\$|\$\{([^{}]*)\}|\$\{")
VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Origins:
    """What is known of each key."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._nulls: dict[str, str] = {}  # keys without a value
        self._written: dict[str, str] = {}  # texts that hold references, as they stood in the file

    def note(self, key: str, value: Any, origin: str | Mapping[str, str]) -> None:
        """Says where everything in `value` comes from, which lies at `key` (empty: a whole document).

        The origin is one for all of it, or a mapping with one for each key.
        """
        if not isinstance(value, dict):
            for known in [known for known in self._of if within(known, key)] if key in self._of else ():
                del self._of[known]
        if value is None:  # stands for "not written"
            self._nulls[key] = origin if isinstance(origin, str) else origin[key]
            return
        if key:
            self._of[key] = origin if isinstance(origin, str) else origin[key]
        for inner, element in children(key, value):
            self.note(inner, element, origin)

    def note_below(self, key: str, value: Any, origin: str) -> None:
        """The same for what counts only where nothing was noted yet: a mapping adds what is not in it."""
        if isinstance(value, dict):
            for inner, element in children(key, value):
                self.note_below(inner, element, origin)
        elif key not in self._of:
            self.note(key, value, origin)

    def note_references(self, document: Any, environ: Mapping[str, str], key: str = "") -> None:
        """Keeps the texts that are about to be replaced, and says in their origins which variables they name."""
        if isinstance(document, str) and "${" in document:
            self._written[key] = document
            names = {found[1]: found[1] in environ for found in map(_variable, REFERENCE.findall(document)) if found}
            told = [f"${{env:{name}}}" if is_set else f"default of ${{env:{name}}}" for name, is_set in names.items()]
            self._of[key] = f"{', '.join(told)} in {self._of.get(key, DEFAULT)}"
        for inner, element in children(key, document):
            self.note_references(element, environ, inner)

    def rename(self, old: str, new: str) -> None:
        """Says the same of another key, and of all within it: an alias and its real name."""
        for known, origin in list(self._of.items()):
            if within(known, old):
                self._of[new + known[len(old) :]] = origin
        for known, text in list(self._written.items()):
            if within(known, old):
                self._written[new + known[len(old) :]] = text

    def of(self, key: str) -> str:
        """Where the value of a key came from. What a lone `${env:X}` held in itself came from there."""
        if key in self._of:
            return self._of[key]
        for outer in above(key):
            if outer in self._written:
                return self._of[outer]
        return DEFAULT

    def written(self, key: str) -> str | None:
        """The text before its references were replaced, where it held any."""
        return self._written.get(key)

    def place(self, key: str) -> str:
        """Where to look for a key that is wrong: its own origin, else that of what it stands in; empty: nowhere."""
        known = self._nulls | self._of
        return next((known[one] for one in (key, *above(key)) if one in known), "")


def children(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The elements of a mapping or a list, with their keys."""
    if isinstance(value, dict):
        for name, element in value.items():
            yield f"{key}.{name}" if key else name, element
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield f"{key}[{index}]", element


def within(key: str, outer: str) -> bool:
    """Whether a key is another one, or lies in it."""
    return key == outer or key.startswith((f"{outer}.", f"{outer}["))


def above(key: str) -> Iterator[str]:
    """The keys that a key stands in, the nearest first."""
    while (cut := max(key.rfind("."), key.rfind("["))) > 0:
        key = key[:cut]
        yield key


def _variable(reference: str) -> re.Match[str] | None:
    return VARIABLE.fullmatch(reference)
