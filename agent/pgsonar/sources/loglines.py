"""Lines of PostgreSQL's log, taken apart: which severity each entry has, and what it says.

The rule: a severity counts where it stands in that format, and nothing that is quoted has one. Which format it is, and
what a container runtime or an operator wraps around it, is told by the lines themselves; where they tell nothing, that
is a problem and no silence.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from pgsonar.sources.logprefixes import Prefixes
from pgsonar.sources.logwrappers import Unwrapping, wrapper_of

Format = Literal["auto", "stderr", "csvlog", "jsonlog"]

# Columns of csvlog, the same in every version; later ones have more of them
# (https://www.postgresql.org/docs/current/runtime-config-logging.html#RUNTIME-CONFIG-LOGGING-CSVLOG).
_CSV_SEVERITY, _CSV_MESSAGE, _CSV_COLUMNS = 11, 13, 23
_CSV_BEGINS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [^,]{1,10},")
_STATE = re.compile(r"\A[0-9A-Z]{5}: ")  # log_error_verbosity = verbose
# It lies beside PostgreSQL's on Debian, and is known to tell nothing of ours.
_PGBOUNCER = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \S+ \[\d+\] (?:LOG|WARNING|ERROR|FATAL|DEBUG|NOISE) ")
_SAMPLE = 200  # lines that are looked at to tell the format
_LESSONS = 20  # lines at a time whose prefix is looked at although they say nothing of ours
_LESSON = 4096  # characters of them
# https://cloudnative-pg.io/docs/current/logging; the names of its other keys can be changed.
_CLOUDNATIVEPG = {"record", "logging_pod", "logging_podName"}
_LONGEST_ROW = 1 << 18  # characters of csvlog


class Entry(NamedTuple):
    severity: str
    message: str
    line: str  # for people


class LogLines:
    """The lines of one file, from the first that is read."""

    def __init__(self, form: Format = "auto", neighbours: Iterable[LogLines] = ()) -> None:
        self.is_strange = False  # there were lines, and no format was told
        self._wanted = form
        self._form: Format = form  # auto: not told yet
        self._is_told = False
        self._unwrapping: Unwrapping | None = None
        self.prefixes: Prefixes = Prefixes(lines.prefixes for lines in neighbours)  # a server's next file has the same
        self._row: list[str] = []  # of csvlog, while it has no end
        self._is_torn = False

    def tear(self) -> None:
        """What follows does not follow what was read last: its first line may be the end of another."""
        self._is_torn, self._row = True, []
        if self._unwrapping is not None:
            self._unwrapping.pass_over("")

    def begin(self, text: str) -> None:
        """Takes in what was there before anything counts; nothing that it leaves open is waited for."""
        self.learn(text)
        self._row, self._is_torn = [], False

    def learn(self, text: str) -> None:
        """Takes in lines that say nothing which counts."""
        if self._form == "stderr" and self._is_told and self._unwrapping is None and not self._is_torn:
            text = text[text.rfind("\n", 0, max(0, len(text) - _LESSON)) + 1 :]
        lines = self._told(text)
        if self._unwrapping is not None:
            if lines:
                self._unwrapping.pass_over(lines[-1])
        elif self._form == "stderr":
            for line in lines[-_LESSONS:]:
                if self.prefixes.begin(line):
                    self.prefixes.split(line)
        elif self._form == "csvlog" and (self._row or text.count('"') % 2):
            for _ in self._rows(lines):
                pass

    def take(self, text: str, says: Sequence[str]) -> Iterator[Entry]:
        """The same of any lines. A row or a line that was begun may have had the words already."""
        has_begun = bool(self._row) or (self._unwrapping is not None and self._unwrapping.has_begun)
        if has_begun or _has(text, says):
            return self.entries(text, says)
        self.learn(text)  # as almost always
        return iter(())

    def entries(self, text: str, says: Sequence[str]) -> Iterator[Entry]:
        """The entries of some lines in which one of some words stands."""
        lines = self._told(text)
        if self._unwrapping is not None:
            lines = list(self._unwrapping.lines(lines))
        if self._form == "jsonlog":
            return (entry for line in lines if _has(line, says) and (entry := _json_entry(line)))
        if self._form == "csvlog":
            return (entry for row in self._rows(lines) if _has(row, says) and (entry := _csv_entry(row)))
        return self._stderr(lines, says)

    def _told(self, text: str) -> list[str]:
        """The lines of a text that ends with a line break, once it is told what they are."""
        lines = text.split("\n")  # `splitlines` knows other breaks, which a message may hold
        lines.pop()
        if self._is_torn and lines:
            self._is_torn = False
            del lines[0]
        if not self._is_told and any(lines):
            self._is_told = self._tell(lines[-_SAMPLE:])
            self.is_strange = not self._is_told
        return lines

    # --- which format it is ------------------------------------------------------------------------------------------

    def _tell(self, sample: Sequence[str]) -> bool:
        """Tells the format, by what most lines are."""
        wrappers = Counter(wrapper_of(line) for line in sample)
        wrapper, number = wrappers.most_common(1)[0]
        unwrapping = Unwrapping(wrapper) if wrapper is not None and 2 * number >= len(sample) else None
        if unwrapping is not None:
            sample = list(unwrapping.lines(sample))
        objects = sum(_object(line) is not None for line in sample)
        rows = sum(bool(_CSV_BEGINS.match(line)) and line.count(",") >= _CSV_MESSAGE for line in sample)
        form: Format = "auto"
        if objects and 2 * objects >= len(sample):
            form = "jsonlog"
        elif rows:
            form = "csvlog"
        elif sum(self.prefixes.begin(line) and self.prefixes.split(line) is not None for line in sample):
            form = "stderr"
        elif 2 * sum(bool(_PGBOUNCER.match(line)) for line in sample) >= len(sample):
            return True
        if self._wanted == "auto":
            self._form = form
        is_told = form == self._form != "auto"
        if is_told and wrapper is not None and unwrapping is not None:
            self._unwrapping = Unwrapping(wrapper)
        return is_told

    # --- what each says ----------------------------------------------------------------------------------------------

    def _stderr(self, lines: Sequence[str], says: Sequence[str]) -> Iterator[Entry]:
        unclear, lessons = [], _LESSONS
        for line in lines:
            if not self.prefixes.begin(line):
                continue
            is_ours = _has(line, says)
            lessons -= not is_ours
            if not is_ours and lessons < 0:
                continue
            split = self.prefixes.split(line)
            if is_ours and split is not None:
                yield _stderr_entry(split, line)
            elif is_ours:
                unclear.append(line)
        for line in unclear:  # what stands after them may have told more
            if split := self.prefixes.split(line):
                yield _stderr_entry(split, line)

    def _rows(self, lines: Iterable[str]) -> Iterator[str]:
        """The rows of csvlog that are whole. Within quotes a line break ends none; the last is kept until it is."""
        row, self._row = self._row, []
        quotes = sum(line.count('"') for line in row)
        for line in lines:
            if not row and not _CSV_BEGINS.match(line):
                continue
            row.append(line)
            quotes += line.count('"')
            if quotes % 2 == 0:
                yield "\n".join(row)
                row, quotes = [], 0
        if sum(map(len, row)) <= _LONGEST_ROW:
            self._row = row


def _has(text: str, says: Sequence[str]) -> bool:
    for words in says:  # noqa: SIM110 -- asked of every line
        if words in text:
            return True
    return False


def _stderr_entry(split: tuple[str, str], line: str) -> Entry:
    severity, message = split
    return Entry(severity, message[7:] if message[5:7] == ": " and _STATE.match(message) else message, line)


def _csv_entry(row: str) -> Entry | None:
    try:
        columns = next(csv.reader(io.StringIO(row, newline="")))
    except csv.Error:  # a field that is longer than any we look for
        return None
    if len(columns) < _CSV_COLUMNS:
        return None
    return Entry(columns[_CSV_SEVERITY], columns[_CSV_MESSAGE], ",".join(columns[: _CSV_MESSAGE + 1]))


def _object(line: str) -> dict[str, object] | None:
    """A line of JSON: an entry of jsonlog, or what an operator says beside those it has taken from there."""
    if not line.startswith("{"):
        return None
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    return told if "error_severity" in told or ("logger" in told and told.keys() & _CLOUDNATIVEPG) else None


def _json_entry(line: str) -> Entry | None:
    """Of jsonlog, or of an operator that has put an entry into `record` of its own line, as CloudNativePG does."""
    told = _object(line)
    inner = told.get("record", told) if told is not None else None
    if not isinstance(inner, dict):
        return None
    severity, message = inner.get("error_severity"), inner.get("message")
    return Entry(severity, message, line) if isinstance(severity, str) and isinstance(message, str) else None
