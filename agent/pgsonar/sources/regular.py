"""Files that somebody else placed, read without being held up by them.

The rule: only a regular file is read, and only so much of it. A pipe or a device that stands where a configuration file
should, in the directory of a process that merely calls itself postgres, is as good as unreadable.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

SETTINGS_MOST = 1 << 20  # bytes: a configuration file with all its comments has 30 KiB
RECORD_MOST = 1 << 14  # postmaster.pid, PG_VERSION, pg_control (8 KiB)


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file; OSError when it is anything else, or longer than `most` bytes."""
    # O_NONBLOCK: opening a pipe would wait for a writer; O_NOCTTY: opening a terminal would make it ours.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = b""
        while len(content) <= most and (piece := os.read(file, most + 1 - len(content))):
            content += piece
    finally:
        os.close(file)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"longer than {most} bytes", str(path))
    return content
