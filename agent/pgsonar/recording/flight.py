"""The flight recorder: the last minutes in memory, and a file of them when an episode is critical.

The rule: it never holds the agent up. Files are written by a thread of their own, at most one a minute; a disk that
refuses is counted and told once. What follows the opening for a few seconds is appended. A slow disk may have several
files written at once: each takes its place in the directory after the one before, so that no more than `keep` stay.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import secrets
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pgsonar.config.schema import FlightRecorder as Settings
from pgsonar.model import SECOND, Severity
from pgsonar.signals.rows import Batch, EventRow
from pgsonar.sources.recording import Header, Segment, header_bytes

log = logging.getLogger("pgsonar")

PAUSE = 60 * SECOND  # between two files
FOLLOWED = 10 * SECOND
SEGMENTS = 5  # in a window: one more is kept, the oldest goes as a whole
CLOSES_WITHIN = 1.0  # seconds
_BEGINS = frozenset({"threshold", "severity"})  # why an episode is critical now and was not before
_NAME = re.compile(r"pgsonar-\d{8}T\d{6}Z-\w+-[0-9a-f]{32}\.rec")


@dataclass(slots=True)
class _Kept:
    """A segment in memory."""

    began: int
    segment: Segment = field(default_factory=Segment)
    blocks: list[bytes] = field(default_factory=list)
    size: int = 0
    grown: int = 0  # of it: behind the key frame

    def add(self, block: bytes) -> None:
        if block:
            self.blocks.append(block)
            self.size += len(block)
            self.grown += len(block)


class FlightRecorder:
    """Where entries go, and an outlet that hears of episodes."""

    def __init__(self, settings: Settings) -> None:
        self.files = 0
        self.failures = 0
        self.problem: str | None = None
        self._settings = settings
        self._window = round(settings.window * SECOND)
        self._header: Header | None = None
        self._kept: deque[_Kept] = deque()
        self._critical: EventRow | None = None
        self._written_at: int | None = None
        self._file: _File | None = None  # that is followed up
        self._newest: _File | None = None
        self._counting = threading.Lock()  # files that end at once

    def export(self, batch: Batch) -> None:
        """Hears of an episode that is critical from now on; see reporting.Outlet."""
        rows = [row for _, rows in batch.resources for row in rows if isinstance(row, EventRow)]
        for row in rows:
            told = row.attributes
            begins = told["pgsonar.leak.fired_because"] in _BEGINS and not told.get("pgsonar.shadow")
            if begins and row.severity_number >= Severity.CRITICAL:
                self._critical = self._critical or row

    # --- where entries go; see recorder.Sink ---------------------------------------------------------------------

    def wants_key_frame(self, at: int) -> bool:
        """Whether the segment is old or large enough for another one."""
        newest = self._kept[-1]
        is_large = newest.grown >= self._settings.max_bytes // (SEGMENTS + 1)
        return is_large or at - newest.began >= self._window // SEGMENTS

    def begin(self, header: Header, key_frame: bytes, at: int) -> None:
        """Another segment; what is older than the window goes, and what was read with another configuration."""
        if self._header is not None and header.id != self._header.id:
            self._end_file()
            self._kept.clear()
        self._header = header
        if self._kept:
            self._pass_on(self._kept[-1], self._kept[-1].segment.flush())
        kept = _Kept(at)
        self._kept.append(kept)
        self._pass_on(kept, kept.segment.add([key_frame]) or kept.segment.flush())
        kept.grown = 0
        while len(self._kept) > 1 and (
            self._kept[1].began < at - self._window or self._size > self._settings.max_bytes
        ):
            self._kept.popleft()

    def write(self, encoded: list[bytes], at: int) -> None:
        """Entries of one tick, and a file when it is time for one."""
        newest = self._kept[-1]
        self._pass_on(newest, newest.segment.add(encoded))
        if self._file is not None and at - (self._written_at or 0) >= FOLLOWED:
            self._end_file()
        row, self._critical = self._critical, None
        if row is not None and (self._written_at is None or at - self._written_at >= PAUSE):
            self._written_at = at
            self._begin_file(row)

    def close(self) -> None:
        """Gives the file that is being written a moment."""
        self._end_file()
        if self._newest is not None:
            self._newest.join(CLOSES_WITHIN)

    def report(self) -> dict[str, object]:
        """For the health answer."""
        return {"files": self.files, "failures": self.failures, "problem": self.problem, "bytes": self._size}

    @property
    def _size(self) -> int:
        return sum(kept.size for kept in list(self._kept))  # whole, also for the thread of the health answer

    def _pass_on(self, kept: _Kept, block: bytes) -> None:
        kept.add(block)
        if self._file is not None and block:
            self._file.blocks.put(block)

    # --- files ---------------------------------------------------------------------------------------------------

    def _begin_file(self, row: EventRow) -> None:
        if self._header is None:
            return
        newest = self._kept[-1]
        newest.add(newest.segment.flush())
        began = datetime.fromtimestamp(row.time_unix // SECOND, UTC)
        name = f"pgsonar-{began:%Y%m%dT%H%M%SZ}-{row.attributes['pgsonar.leak.kind']}-{row.trace_id:032x}.rec"
        header = msgspec.structs.replace(self._header, id=secrets.token_hex(8))
        before = self._newest.placed if self._newest is not None else None
        self._file = _File(Path(self._settings.directory, name), self._settings.keep, self, before)
        for block in [header_bytes(header), *(block for kept in self._kept for block in kept.blocks)]:
            self._file.blocks.put(block)
        self._newest = self._file
        self._file.start()

    def _end_file(self) -> None:
        if self._file is not None:
            self._pass_on(self._kept[-1], self._kept[-1].segment.flush())
            self._file.blocks.put(None)
            self._file = None

    def written(self, path: Path) -> None:
        """A file is complete."""
        with self._counting:
            self.files += 1
            if self.problem is not None:
                log.info("recordings can be written again")
            self.problem = None
        log.info("what led to it is recorded in %s", path)

    def failed(self, path: Path, error: OSError) -> None:
        """A disk refused; told once until it works again."""
        reason = (error.strerror or str(error)).lower()
        with self._counting:
            self.failures += 1
            if self.problem is None:
                log.warning(
                    "the recording %s cannot be written: %s; the agent goes on "
                    "(set extensions.flight_recorder.directory, or free space there)",
                    path,
                    reason,
                )
            self.problem = f"the recording {path} cannot be written: {reason}"


class _File(threading.Thread):
    """Writes one file from a queue of blocks, which ends with None."""

    def __init__(self, path: Path, keep: int, told: FlightRecorder, before: threading.Event | None) -> None:
        super().__init__(name="pgsonar flight recorder", daemon=True)
        self.blocks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.placed = threading.Event()  # it stands in the directory, or never will
        self._before = before  # `placed` of the file before
        self._path = path
        self._keep = keep
        self._told = told

    def run(self) -> None:
        if self._before is not None:
            self._before.wait()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room()
            # Who talks to whom is not for everybody.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._told.failed(self._path, error)
            return
        finally:
            self.placed.set()
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                while (block := self.blocks.get()) is not None:
                    file.write(block)
        except OSError as error:
            with suppress(OSError):  # half of it would hold the space that is missing
                self._path.unlink()
            self._told.failed(self._path, error)
            return
        self._told.written(self._path)

    def _make_room(self) -> None:
        """Removes the oldest, so that with this one there are as many as are kept."""
        mine = sorted(path for path in self._path.parent.iterdir() if _NAME.fullmatch(path.name))
        for path in mine[: max(len(mine) - self._keep + 1, 0)]:
            path.unlink(missing_ok=True)
