"""Recordings as files: a header, then blocks of entries, compressed.

The rule: whatever happens to a file, what stands before the damage can be played. A block has its length and checksum;
those of a segment are one zlib stream, cut where blocks end, and a segment begins with a key frame, so that those
before it may be missing. Layout, integers little-endian: MAGIC; `<HII` format, length and CRC-32 of the header; the
header in msgpack; then for each block `<IIB` length, CRC-32 that starts with the flag, the flag (1 where a segment
begins), and the block.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from pgsonar.errors import PgsonarError, RecordingError
from pgsonar.sources.entries import Entry, decode, joined

MAGIC = b"pgsonar\x1a"
FORMAT = 1
BLOCK = 1 << 16  # bytes of entries, before they are compressed
_HEADER = struct.Struct("<HII")
_BLOCK = struct.Struct("<IIB")
_LARGEST = 1 << 28  # bytes: what claims to be larger is damaged
_LEVEL = 1  # of zlib: 6 takes three times as long for an eighth less


class Parts(msgspec.Struct, frozen=True):
    """What was configured, for there to be somebody who answers."""

    databases: int = 0  # how many
    consoles: int = 0
    applications: bool = False
    names: bool = False
    logs: bool = False
    sees_servers: bool = True


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording says of itself."""

    version: str  # of pgsonar
    host: str
    started_unix: int
    id: str
    part: int = 0  # of a recording in several files
    parts: Parts = Parts()
    hidden: tuple[str, ...] = ()  # addresses, users: rewritten by service.telemetry.redaction


_read_header = msgspec.msgpack.Decoder(Header).decode


def header_bytes(header: Header) -> bytes:
    """How a file begins."""
    text = msgspec.msgpack.encode(header)
    return MAGIC + _HEADER.pack(FORMAT, len(text), zlib.crc32(text)) + text


class Segment:
    """Encodes entries that follow a key frame into blocks."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL)
        self._entries: list[bytes] = []
        self._size = 0  # of the entries that wait
        self._is_first = True

    def add(self, entries: list[bytes]) -> bytes:
        """Takes entries in; returns a block once it is full."""
        self._entries += entries
        self._size += sum(map(len, entries))
        return self.flush() if self._size >= BLOCK else b""

    def flush(self) -> bytes:
        """The block of what waits; empty when nothing does."""
        if not self._entries:
            return b""
        text = self._stream.compress(joined(self._entries)) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        head = _BLOCK.pack(len(text), zlib.crc32(text, self._is_first), self._is_first)
        self._entries, self._size, self._is_first = [], 0, False
        return head + text


class Recording:
    """A file that is read. `damage` says where it ended before its time, once it was read that far."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.damage: str | None = None
        self.position = 0  # bytes read
        try:
            self.size = os.stat(path).st_size
            with open(path, "rb") as file:
                self.header = self._header(file)
                self._begin = file.tell()
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error

    def _header(self, file: BinaryIO) -> Header:
        if file.read(len(MAGIC)) != MAGIC:
            raise RecordingError(f"{self.path} is not a recording", "`pgsonar record` writes them")
        try:
            version, length, checksum = _HEADER.unpack(file.read(_HEADER.size))
        except struct.error:
            raise self._headless() from None
        if version > FORMAT:
            hint = "play it with the pgsonar that wrote it, or a newer one"
            raise RecordingError(f"{self.path} has format {version}, this pgsonar reads up to {FORMAT}", hint)
        text = file.read(min(length, _LARGEST))
        if zlib.crc32(text) != checksum:
            raise self._headless()
        try:
            return _read_header(text)
        except msgspec.MsgspecError:
            raise self._headless() from None

    def _headless(self) -> PgsonarError:
        return RecordingError(f"{self.path} is damaged at its very beginning", "nothing of it can be played")

    def entries(self) -> Iterator[Entry]:
        """All entries up to the end or the damage."""
        with open(self.path, "rb") as file:
            file.seek(self._begin)
            stream = zlib.decompressobj()
            while head := file.read(_BLOCK.size):
                self.position = file.tell()
                if len(head) < _BLOCK.size:
                    return self._end("a block is cut off")
                length, checksum, is_first = _BLOCK.unpack(head)
                text = file.read(length) if length <= _LARGEST else b""
                if len(text) < length:
                    return self._end("a block is cut off")
                if zlib.crc32(text, is_first) != checksum:
                    return self._end("a checksum is wrong")
                stream = zlib.decompressobj() if is_first else stream
                try:
                    known = decode(stream.decompress(text, _LARGEST))
                except (zlib.error, msgspec.MsgspecError) as error:
                    return self._end(f"pgsonar {self.header.version} wrote what this one cannot read, {error}")
                yield from known
        self.position = self.size
        return None

    def _end(self, why: str) -> None:
        self.damage = f"{self.path} ends at byte {self.position}: {why}"
