"""Which sockets a process has open.

The rule: every backend of one postmaster has its client on the same descriptor number, because all are forked by the
same process; so that number is looked at first, and the whole list only when it holds no socket. A process that
vanished simply owns nothing; a refusal is counted and answered with None.
"""

from __future__ import annotations

import os

from pgsonar.sources.sockets import ffi, lib


class OwnerReader:
    """Reads inodes of sockets from /proc/PID/fd or, where that is refused, from /proc/PID/fdinfo."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._descriptors: dict[int, int] = {}  # by postmaster: where the last client was found
        self._inodes = ffi.new("uint64_t[]", 64)  # a backend has a handful of sockets, a pooler thousands
        self.refused = 0
        self.vanished = 0

    def inodes(self, pid: int, *, postmaster: int, first_only: bool = True) -> tuple[int, ...] | None:
        """The inodes of the sockets a process has open; None where looking is refused.

        With `first_only` the one on the learned descriptor is enough. Without it every socket is listed, which is
        dear (about 4 us an open descriptor), and the descriptor is learned anew.
        """
        learned = self._descriptors.get(postmaster, -1)
        count, found = self._read(pid, learned, first_only=first_only)
        if count == lib.PGS_E_NOENT:
            self.vanished += 1
            return ()
        if count < 0:
            self.refused += 1
            return None
        if found >= 0:
            self._descriptors[postmaster] = found
        return tuple(self._inodes[0:count])

    def forget(self, postmaster: int) -> None:
        """Drops what was learned of a postmaster that is gone."""
        self._descriptors.pop(postmaster, None)

    def _read(self, pid: int, learned: int, *, first_only: bool) -> tuple[int, int]:
        """The number of inodes read, or an error code, and the descriptor of the last one."""
        directory = os.fsencode(f"{self._proc}/{pid}")
        while True:
            descriptor = ffi.new("int *", learned)
            size = len(self._inodes)
            count = lib.pgs_owner_inodes(directory, descriptor, first_only, self._inodes, size)
            if count < size:
                return count, descriptor[0]
            self._inodes = ffi.new("uint64_t[]", 4 * size)
