"""PostgreSQL's own log: who was refused, whose login timed out, whose client was lost.

The rule: counted by class, the last line of each class kept, and nothing else; no more is read at a time than is
allowed, and what was passed over is counted. What a file held before we saw it counts nothing, nor does a file that was
only renamed or copied. Told by the severity and the whole message
(https://www.postgresql.org/docs/current/errcodes-appendix.html), through rotation.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pgsonar.model import LogCounts, Server
from pgsonar.sources.loglines import Entry, Format, LogLines
from pgsonar.sources.processes import Processes
from pgsonar.sources.titles import readable

MOST = 1 << 18  # bytes of one file at a time: four times a second's worth of a server that logs each statement
_PAST = 1 << 16  # bytes of what was there when we came, to learn how its lines look
_HEAD = 256  # bytes by which a copy of a file is known (logrotate's copytruncate)
_SLACK = 2.0  # s by which a file system may tell times that are too old
_LAST_LINE = 500  # characters
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")  # rotated: nobody writes there

# The first that matches the whole message names the class. Refusals all have SQLSTATE 53300. None holds what stands
# between a severity and its message: else a name that begins like a message would be one, up to the end of its line.
_NO_LABEL = r"((?:(?!: {2}).)*)"
CLASSES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("role", re.compile(rf'too many connections for role "{_NO_LABEL}"', re.DOTALL)),
    ("database", re.compile(rf'too many connections for database "{_NO_LABEL}"', re.DOTALL)),
    ("walsenders", re.compile(r"number of requested standby connections exceeds [^:]+")),
    ("reserved", re.compile(r"remaining connection slots are reserved for [^:]+")),
    ("all_slots", re.compile(r"sorry, too many clients already")),
    ("authentication_timeout", re.compile(r"canceling authentication due to timeout")),
    (
        "lost_client",
        re.compile(
            r"unexpected EOF on client connection(?: with an open transaction)?|connection to client lost"
            r"|could not (?:receive data from|send data to) client(?:: [^:]*)?"
        ),
    ),
)
# One of these stands in each of them, as it stands in every format: almost no text has any.
SAYS = (
    "too many connections for ",
    "standby connections exceeds",
    "connection slots are reserved",
    "too many clients already",
    "canceling authentication",
    "unexpected EOF on client",
    "data from client",
    "data to client",
    "connection to client lost",
)
# Who is sent away hears FATAL. That a client is lost is the server's own note (COMMERROR), or the end of its session.
_SEVERITIES = {name: ("LOG", "FATAL") if name == "lost_client" else ("FATAL",) for name, _ in CLASSES}


def class_of(entry: Entry) -> tuple[str, str | None] | None:
    """What an entry counts as, and the name of the role or the database that it is about."""
    for name, pattern in CLASSES:
        found = pattern.fullmatch(entry.message)
        if found is not None:
            return (name, found[1] if found.lastindex else None) if entry.severity in _SEVERITIES[name] else None
    return None


@dataclass(slots=True)
class _File:
    inode: tuple[int, int]
    offset: int
    lines: LogLines
    head: bytes
    rest: bytes = b""


@dataclass(slots=True, eq=False)
class LogReader:
    """Follows the files that match some patterns."""

    include: Sequence[str]
    format: Format = "auto"
    refused: dict[str, str] = field(default_factory=dict)  # files that cannot be read, and why
    counts: dict[str, LogCounts] = field(default_factory=dict)  # of every file that has been followed
    _files: dict[str, _File] = field(default_factory=dict)
    _known: dict[tuple[int, int], _File] = field(default_factory=dict)  # by inode, as the last look left them
    _looked_at: float | None = None  # when files were last seen, by the clock of the file system

    def read(self) -> dict[str, LogCounts]:
        """What every file has told since the reader began, by path."""
        now = time.time()
        unread, self.refused = self.refused, {}
        self._known = {file.inode: file for file in self._files.values()}
        for path in self.paths():
            try:
                self._follow(path, is_old=path in unread)
            except OSError as error:
                self.refused[path] = os.strerror(error.errno or 0)
        if self._files:
            self._looked_at = now
        return self.counts

    def take_over(self, path: str, other: LogReader) -> None:
        """Goes on with a file where another reader was, and with what that counted of it."""
        if path in other._files:
            self._files[path], self.counts[path] = other._files[path], other.counts[path]

    def drop(self, path: str) -> LogCounts:
        """Counts a file from nothing; returns what it has told until now."""
        told, self.counts[path] = self.counts[path], LogCounts()
        return told

    def paths(self) -> list[str]:
        """The files that match now."""
        return sorted({path for pattern in self.include for path in glob.glob(pattern)})

    def strange(self) -> Iterator[str]:
        """The files in no format that is known."""
        for path in self.paths():
            file = self._files.get(path)
            if file is not None and file.lines.is_strange and not path.endswith(_COMPRESSED):
                yield path

    def _follow(self, path: str, *, is_old: bool) -> None:
        # Only a regular file: a pipe would hold us up, and a terminal would become ours.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            there = os.fstat(descriptor)
            if not stat.S_ISREG(there.st_mode):
                return
            file = self._file(path, there, descriptor, is_old=is_old)
            counts = self.counts.setdefault(path, LogCounts())
            if there.st_size - file.offset > MOST:
                counts.skipped_bytes += there.st_size - MOST - file.offset
                file.offset, file.rest = there.st_size - MOST, b""
                file.lines.tear()
            text = file.rest + os.pread(descriptor, MOST, file.offset)
            file.offset += len(text) - len(file.rest)
        finally:
            os.close(descriptor)
        lines, newline, file.rest = text.rpartition(b"\n")
        if newline:
            self._count((lines + newline).decode("utf-8", "backslashreplace"), file.lines, counts)
        if len(file.rest) > MOST:
            file.rest = b""
            file.lines.tear()

    def _file(self, path: str, there: os.stat_result, descriptor: int, *, is_old: bool) -> _File:
        """Where to go on: at the end of what was there when we came, at the start of what came since."""
        inode = there.st_dev, there.st_ino
        file = self._files.get(path)
        if file is not None and file.inode == inode and there.st_size == file.offset:
            return file
        head = os.pread(descriptor, _HEAD, 0)
        known = file if file is not None and file.inode == inode else self._known.get(inode)
        if known is not None and there.st_size >= known.offset and head.startswith(known.head):
            known.head = head
            self._files[path] = known
            return known
        new = _File(inode, 0, LogLines(self.format, [other.lines for other in self._files.values()]), head)
        if is_old or self._is_copy(inode, head) or (known is None and self._was_there(there)):
            _begin_at_end(new, there.st_size, descriptor)
        self._files[path] = new
        return new

    def _was_there(self, there: os.stat_result) -> bool:
        """Whether all that a file holds was written before we looked the last time."""
        return self._looked_at is None or there.st_mtime < self._looked_at - _SLACK

    def _is_copy(self, inode: tuple[int, int], head: bytes) -> bool:
        """Whether a file begins as another does that we have read."""
        return len(head) == _HEAD and any(head == other.head and inode != other.inode for other in self._known.values())

    def _count(self, text: str, lines: LogLines, counts: LogCounts) -> None:
        last = {}
        for entry in lines.take(text, SAYS):
            said = class_of(entry)
            if said is not None:
                name, of = said
                counts.by_class[name] += 1
                if of is not None:
                    counts.by_name[name, readable(of.encode())] += 1
                last[name] = entry.line
        counts.last_line |= {name: readable(line.encode())[:_LAST_LINE] for name, line in last.items()}


def _begin_at_end(file: _File, size: int, descriptor: int) -> None:
    """Learns from the last of what a file holds. A line that is not whole yet is new."""
    begin = max(0, size - _PAST)
    past = os.pread(descriptor, size - begin, begin)
    lines, newline, file.rest = past.rpartition(b"\n")
    if begin:
        file.lines.tear()
    file.lines.begin((lines + newline).decode("utf-8", "backslashreplace"))
    file.offset = begin + len(past)


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
        self._ids: set[str] = set()  # of the servers that there were at the last look
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
        is_settled, self._ids = ids == self._ids, ids
        for reader in self._readers:
            # Before they are read: what is new is the new owner's.
            for path in self._owners.keys() & reader.counts.keys():
                if not is_settled or self._owners[path] not in ids:
                    self._give(path, owner_of(path, servers, self._processes), reader)
            for path, counts in reader.read().items():
                if path not in self._owners:
                    self._owners[path] = owner_of(path, servers, self._processes)
                owner = self._owners[path]
                if owner in ids:
                    told.setdefault(owner, LogCounts()).add(counts)
        for server, counts in self._past:
            if server in ids:
                told.setdefault(server, LogCounts()).add(counts)
        return told

    def _give(self, path: str, owner: str | None, reader: LogReader) -> None:
        """A file has another owner: what it has told stays with the one before, and opens nothing at the next.

        While its owner is out of sight and nobody else is known to be, it keeps its owner.
        """
        before = self._owners[path]
        if owner is None or owner == before:
            return
        counts = reader.drop(path)
        if before is not None:
            self._past.append((before, counts))
        self._owners[path] = owner

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
        strange = [
            f"the log {path} is in no format that is known: PostgreSQL's stderr, csvlog or jsonlog in English, also as "
            "Docker, CRI or CloudNativePG wrap it"
            if reader.format == "auto"
            else f"the log {path} is no {reader.format} in English (receivers.serverlog.format)"
            for reader in self._readers
            for path in reader.strange()
        ]
        empty = [
            f"no log matches {', '.join(reader.include)} (receivers.serverlog.include)"
            for reader in self._readers
            if not reader.paths()
        ]
        return refused + nobodys + strange + empty
