"""A recording in files that are rotated: FILE is the newest, FILE.1 the one before, and so on.

The rule: all files together stay below what is allowed, each begins with a key frame, and what was read is on the disk
a second later, because whoever records may be killed. A file that is no recording is never written over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec

from pgsonar.errors import PgsonarError, RecordingError
from pgsonar.model import SECOND
from pgsonar.sources.recording import MAGIC, Header, Segment, header_bytes

FLUSHED = SECOND  # ns between two blocks


class RotatingFiles:
    """Where `pgsonar record` writes. `failed` is called once when the disk refuses."""

    def __init__(self, path: str, most: int, files: int, failed: Callable[[], None]) -> None:
        self.error: PgsonarError | None = None
        self.written = 0  # bytes, in all files
        self._path = path
        self._each = most // files
        self._files = files
        self._failed = failed
        self._part = 0
        self._file: BinaryIO | None = None
        self._size = 0
        self._flushed_at = 0
        self._segment = Segment()
        self._refuse_what_is_no_recording()

    def wants_key_frame(self, at: int) -> bool:
        """Whether the file is full."""
        _ = at
        return self._size >= self._each

    def begin(self, header: Header, key_frame: bytes, at: int) -> None:
        """A new file."""
        self.close()
        if self.error is not None:
            return
        try:
            self._rotate()
            # Who talks to whom is not for everybody.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
        except OSError as error:
            self._fail(error)
            return
        self._segment, self._size = Segment(), 0
        self._put(header_bytes(msgspec.structs.replace(header, part=self._part)))
        self._put(self._segment.add([key_frame]))
        self._put(self._segment.flush())
        self._part, self._flushed_at = self._part + 1, at

    def write(self, encoded: list[bytes], at: int) -> None:
        """Entries of one tick."""
        self._put(self._segment.add(encoded))
        if at - self._flushed_at >= FLUSHED:
            self._put(self._segment.flush())
            self._flushed_at = at

    def close(self) -> None:
        """Writes what waits."""
        self._put(self._segment.flush())
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _put(self, text: bytes) -> None:
        if self._file is None or not text:
            return
        try:
            self._file.write(text)
        except OSError as error:
            self._file.close()
            self._file = None
            self._fail(error)
        self._size += len(text)
        self.written += len(text)

    def _fail(self, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        self.error = PgsonarError(f"{self._path} cannot be written: {reason}", "choose another FILE, or free space")
        self._failed()

    def _paths(self) -> list[Path]:
        return [Path(self._path), *(Path(f"{self._path}.{number}") for number in range(1, self._files))]

    def _rotate(self) -> None:
        paths = self._paths()
        paths[-1].unlink(missing_ok=True)
        for path, older in reversed(list(pairwise(paths))):
            with suppress(FileNotFoundError):
                path.rename(older)

    def _refuse_what_is_no_recording(self) -> None:
        for path in self._paths():
            try:
                with path.open("rb") as file:
                    begins = file.read(len(MAGIC))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RecordingError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
            if begins not in {MAGIC, b""}:
                raise RecordingError(f"{path} exists and is no recording", "choose another FILE, or remove it")
