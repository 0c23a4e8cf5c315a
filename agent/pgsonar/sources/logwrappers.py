"""What container runtimes wrap around each line of a log, taken off.

The rule: a piece of a line is joined to its other pieces, or dropped with them; it never stands as a line by itself.
Docker's json-file (https://docs.docker.com/engine/logging/drivers/json-file/) cuts lines at 16 KiB and leaves the line
break to the last piece; CRI (https://github.com/kubernetes/design-proposals-archive/blob/main/node/
kubelet-cri-logging.md) marks pieces with P and the last one with F.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Literal

Wrapper = Literal["cri", "docker"]

_CRI = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP])(?::\S*)? ?(.*)")
_DOCKER = re.compile(r'\{.*"log": ?"')
_MOST = 1 << 18  # characters of one line


def wrapper_of(line: str) -> Wrapper | None:
    """Who has written a line."""
    if _CRI.fullmatch(line):
        return "cri"
    return "docker" if _DOCKER.match(line) and _docker(line) else None


def _docker(line: str) -> tuple[str, str] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("log"), str):
        return None
    return str(entry.get("stream", "")), entry["log"]


class Unwrapping:
    """The lines within the lines of one file."""

    def __init__(self, wrapper: Wrapper) -> None:
        self._wrapper = wrapper
        self._pieces: dict[str, str | None] = {}  # by stream, what has no end yet; None: to be dropped

    @property
    def has_begun(self) -> bool:
        """Whether a line was begun that is waited for."""
        return any(self._pieces.values())

    def lines(self, wrapped: Iterable[str]) -> Iterator[str]:
        """Those that are whole."""
        for line in wrapped:
            piece = self._piece(line)
            if piece is None:
                continue
            stream, text, is_last = piece
            before = self._pieces.get(stream, "")
            if not is_last:
                self._pieces[stream] = None if before is None or len(before) > _MOST else before + text
                continue
            self._pieces.pop(stream, None)
            if before is not None:
                yield before + text

    def pass_over(self, last: str) -> None:
        """Drops what has no end yet, and what the last of some lines that were not looked at begins."""
        self._pieces = dict.fromkeys(self._pieces)
        piece = self._piece(last)
        if piece is None:
            return
        stream, _, is_last = piece
        if is_last:
            self._pieces.pop(stream, None)
        else:
            self._pieces[stream] = None

    def _piece(self, line: str) -> tuple[str, str, bool] | None:
        if self._wrapper == "cri":
            found = _CRI.fullmatch(line)
            return (found[1], found[3], found[2] == "F") if found else None
        told = _docker(line)
        if told is None:
            return None
        stream, text = told
        return stream, text.removesuffix("\n"), text.endswith("\n")
