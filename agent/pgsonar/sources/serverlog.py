"""PostgreSQL's own log: who was refused, whose login timed out, whose client was lost.

The rule: counted by class, the last line of each class kept, and nothing else; no more is read at a time than is
allowed, and what was passed over is counted. Told by SQLSTATE and text (https://www.postgresql.org/docs/current/
errcodes-appendix.html), from stderr, csvlog or jsonlog, through rotation.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pgsonar.model import LogCounts, Server
from pgsonar.sources.processes import Processes
from pgsonar.sources.titles import readable

Format = Literal["auto", "stderr", "csvlog", "jsonlog"]

MOST = 1 << 18  # bytes of one file at a time: four times a second's worth of a server that logs each statement
_LAST_LINE = 500  # characters
_CSV_MESSAGE, _CSV_STATE = 13, 12  # columns of csvlog, the same in every version

# The first that matches names the class. Refusals all have SQLSTATE 53300.
CLASSES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("role", re.compile(r'too many connections for role "(.*)"')),
    ("database", re.compile(r'too many connections for database "(.*)"')),
    ("walsenders", re.compile(r"number of requested standby connections exceeds")),
    ("reserved", re.compile(r"remaining connection slots are reserved")),
    ("all_slots", re.compile(r"sorry, too many clients already")),
    ("authentication_timeout", re.compile(r"canceling authentication due to timeout")),
    (
        "lost_client",
        re.compile(
            r"unexpected EOF on client connection|could not (?:receive data from|send data to) client"
            r"|connection to client lost"
        ),
    ),
)
REFUSALS_OF_SLOTS = frozenset({"reserved", "all_slots"})
_SEVERITY = re.compile(r"\b(?:FATAL|LOG|ERROR|PANIC|WARNING):  ")


@dataclass(slots=True)
class _File:
    inode: tuple[int, int]
    offset: int
    rest: bytes = b""


@dataclass(slots=True, eq=False)
class LogReader:
    """Follows the files that match some patterns."""

    include: Sequence[str]
    format: Format = "auto"
    refused: dict[str, str] = field(default_factory=dict)  # files that cannot be read, and why
    counts: dict[str, LogCounts] = field(default_factory=dict)  # of every file that has been followed
    _files: dict[str, _File] = field(default_factory=dict)
    _is_first: bool = True

    def read(self) -> dict[str, LogCounts]:
        """What every file has told since the reader began, by path."""
        self.refused = {}
        for path in self.paths():
            try:
                self._follow(path)
            except OSError as error:
                self.refused[path] = os.strerror(error.errno or 0)
        self._is_first = False
        return self.counts

    def take_over(self, path: str, other: LogReader) -> None:
        """Goes on with a file where another reader was, and with what that counted of it."""
        if path in other._files:
            self._files[path], self.counts[path] = other._files[path], other.counts[path]

    def paths(self) -> list[str]:
        """The files that match now."""
        return sorted({path for pattern in self.include for path in glob.glob(pattern)})

    def _follow(self, path: str) -> None:
        # Only a regular file: a pipe would hold us up, and a terminal would become ours.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            there = os.fstat(descriptor)
            if not stat.S_ISREG(there.st_mode):
                return
            file = self._file(path, there)
            counts = self.counts.setdefault(path, LogCounts())
            if there.st_size - file.offset > MOST:
                counts.skipped_bytes += there.st_size - MOST - file.offset
                file.offset, file.rest = there.st_size - MOST, b""
            text = file.rest + os.pread(descriptor, MOST, file.offset)
            file.offset += len(text) - len(file.rest)
        finally:
            os.close(descriptor)
        lines, newline, file.rest = text.rpartition(b"\n")
        if len(file.rest) > MOST:
            file.rest = b""
        if newline:
            self._count(path, lines.decode("utf-8", "backslashreplace"), counts)

    def _file(self, path: str, there: os.stat_result) -> _File:
        """Where to go on: at the end of what was there when we came, at the start of what came since."""
        inode = there.st_dev, there.st_ino
        file = self._files.get(path)
        if file is None or file.inode != inode or there.st_size < file.offset:
            is_old = file is None and self._is_first
            file = self._files[path] = _File(inode, there.st_size if is_old else 0)
        return file

    def _count(self, path: str, text: str, counts: LogCounts) -> None:
        if not any(pattern.search(text) for _, pattern in CLASSES):  # as almost always
            return
        for line, message in _messages(text, self._format_of(path, text)):
            said = next(((name, found) for name, pattern in CLASSES if (found := pattern.match(message))), None)
            if said is not None:
                name, found = said
                counts.by_class[name] += 1
                if found.groups():
                    counts.by_name[name, readable(found[1].encode())] += 1
                counts.last_line[name] = readable(line.encode())[:_LAST_LINE]

    def _format_of(self, path: str, text: str) -> Format:
        if self.format != "auto":
            return self.format
        if path.endswith(".csv"):
            return "csvlog"
        return "jsonlog" if path.endswith(".json") or text.startswith("{") else "stderr"


def _messages(text: str, form: Format) -> Iterable[tuple[str, str]]:
    """Lines, and what each has to say. A message that quotes another (a statement, a detail) does not say it."""
    if form == "jsonlog":
        for line in text.splitlines():
            try:
                message = json.loads(line).get("message", "")
            except (ValueError, AttributeError):
                continue
            yield line, str(message)
    elif form == "csvlog":
        for row in csv.reader(text.splitlines(keepends=True)):
            if len(row) > _CSV_MESSAGE:
                yield ",".join(row[: _CSV_MESSAGE + 1]), row[_CSV_MESSAGE]
    else:
        for line in text.splitlines():
            severity = _SEVERITY.search(line)
            if severity is not None:
                yield line, line[severity.end() :]


def owner_of(path: str, servers: Sequence[Server], processes: Processes) -> str | None:
    """The server a log belongs to: it or its logger writes there, or it lies in its data directory, or it is alone."""
    if len(servers) == 1:
        return servers[0].id
    for server in servers:
        writers = [server.pid, *processes.children(server.pid)[:2]]  # the logger is the first child
        if any(processes.link(pid, f"fd/{number}") == path for pid in writers for number in range(1, 6)):
            return server.id
    inside = [s for s in servers if s.data_directory and path.startswith(f"{s.data_directory}/")]
    return inside[0].id if len(inside) == 1 else None


class ServerLogs:
    """All logs that are followed, by the server each belongs to."""

    def __init__(self, readers: Sequence[LogReader], processes: Processes) -> None:
        self._readers = readers
        self._processes = processes
        self._owners: dict[str, str | None] = {}
        self._past: list[tuple[str, LogCounts]] = []  # server ids, and what files told that are followed no more

    def take_over(self, before: ServerLogs) -> None:
        """Goes on where the readers of another configuration were, which are not used any more.

        What they have counted stays counted: a total never falls.
        """
        self._past += before._past
        same = {(tuple(reader.include), reader.format): reader for reader in before._readers}
        self._readers = [same.get((tuple(reader.include), reader.format), reader) for reader in self._readers]
        new = [reader for reader in self._readers if reader not in before._readers]
        for gone in (reader for reader in before._readers if reader not in self._readers):
            left = dict(gone.counts)
            for reader in new:
                for path in left.keys() & set(reader.paths()):
                    reader.take_over(path, gone)
                    del left[path]
            self._past += [(owner, counts) for path, counts in left.items() if (owner := before._owners.get(path))]
        followed = {path for reader in self._readers for path in reader.counts}
        self._owners = {path: owner for path, owner in before._owners.items() if path in followed}

    def read(self, servers: Sequence[Server]) -> dict[str, LogCounts]:
        """What the logs have told since they are followed, by server id."""
        told: dict[str, LogCounts] = {}
        ids = {server.id for server in servers}
        for server, counts in self._past:
            if server in ids:
                told.setdefault(server, LogCounts()).add(counts)
        for reader in self._readers:
            for path, counts in reader.read().items():
                if self._owners.get(path) not in ids:
                    self._owners[path] = owner_of(path, servers, self._processes)
                owner = self._owners[path]
                if owner is not None:
                    told.setdefault(owner, LogCounts()).add(counts)
        return told

    def problems(self) -> list[str]:
        """Logs that cannot be followed, or belong to nobody we know."""
        refused = [
            f"the log {path} cannot be read: {why} (run as a member of its group)"
            for reader in self._readers
            for path, why in reader.refused.items()
        ]
        nobodys = [
            f"the log {path} belongs to no server that is known (several run here: set log_directory inside its own "
            "data directory)"
            for path, owner in self._owners.items()
            if owner is None
        ]
        empty = [
            f"no log matches {', '.join(reader.include)} (receivers.serverlog.include)"
            for reader in self._readers
            if not reader.paths()
        ]
        return refused + nobodys + empty
