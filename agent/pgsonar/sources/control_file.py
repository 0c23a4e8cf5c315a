"""global/pg_control of a data directory: what a server runs with, without asking it (src/include/catalog/pg_control.h).

The rule: a layout is believed only if the checksum at its own end matches, so a version that moves a field reads as
unknown and never as a wrong number. Offsets are those of 64-bit platforms in native byte order.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from pgsonar.sources.regular import RECORD_MOST, read_regular

_DIRECTORY = Path("global", "pg_control")
_TRIES = 3
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_IN_PRODUCTION = 6  # enum DBState
_STANDBY = (2, 5)  # shut down in recovery, in archive recovery


class ControlFile(NamedTuple):
    """What pg_control says."""

    system_identifier: int
    state: int
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int

    @property
    def role(self) -> str | None:
        if self.state == _IN_PRODUCTION:
            return "primary"
        return "standby" if self.state in _STANDBY else None


class Layout(NamedTuple):
    """Where max_connections stands (max_worker_processes and max_wal_senders follow it), and the checksum."""

    max_connections: int
    crc: int


# By pg_control_version. 1201: PostgreSQL 12; 1300: 13 to 16; 1700: 17; 1800: 18.
LAYOUTS = {
    1201: Layout(180, 288),
    1300: Layout(180, 288),
    1700: Layout(180, 288),
    1800: Layout(180, 292),
}


def read_control_file(data_directory: Path) -> ControlFile | None:
    """The control file of a data directory; None when it cannot be read or is of a layout we do not know.

    It is written in place: what is read meanwhile may be half of either, and is read again.
    """
    for _ in range(_TRIES):
        try:
            told = parse_control_file(read_regular(data_directory / _DIRECTORY, RECORD_MOST))
        except OSError:
            return None
        if told is not None:
            return told
    return None


def parse_control_file(raw: bytes) -> ControlFile | None:
    """The bytes of pg_control; None unless its checksum is right."""
    if len(raw) < 512:
        return None
    system_identifier, version, _catalog, state = struct.unpack_from("=QIIi", raw, 0)
    layout = LAYOUTS.get(version)
    if layout is None or struct.unpack_from("=I", raw, layout.crc)[0] != crc32c(raw[: layout.crc]):
        return None
    connections, workers, senders = struct.unpack_from("=iii", raw, layout.max_connections)
    return ControlFile(system_identifier, state, connections, workers, senders)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as src/port/pg_crc32c_sb8.c has it; bit by bit, for three hundred bytes now and then."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
