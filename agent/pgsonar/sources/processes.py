"""What /proc tells of a process (man 5 proc).

The rule: the root is an argument; a process that has gone is None or nothing, never an error, and so is one that may
not be looked into.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # ns
_PIECE = 1 << 16  # bytes
_PAGE = os.sysconf("SC_PAGESIZE")
_SWITCHES = b"\nvoluntary_ctxt_switches:\t"


class Stat(NamedTuple):
    """From /proc/PID/stat. `started` is ns of CLOCK_BOOTTIME, exact to one clock tick."""

    state: str
    parent: int
    started: int


class Processes:
    """Reads one /proc tree."""

    def __init__(self, root: str = "/proc") -> None:
        self.root = root

    def pids(self) -> list[int]:
        """Everybody. Raises OSError when descriptors have run out, from which nothing about processes follows."""
        try:
            return [int(name) for name in os.listdir(self.root) if name.isdigit()]
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return []

    def read(self, pid: int, name: str, enough: int = 1) -> bytes | None:
        """A whole small file of a process. A read of less than `enough` bytes is known to be the last one."""
        # Hundreds of these are read at every look: without the layers of pathlib and io it costs a fifth.
        try:
            file = os.open(f"{self.root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            text = piece = os.read(file, _PIECE)  # a page at a time, however much is asked for (fs/seq_file.c)
            while len(piece) >= enough:
                piece = os.read(file, _PIECE)
                text += piece
        except OSError:
            return None
        finally:
            os.close(file)
        return text

    def comm(self, pid: int) -> str:
        text = self.read(pid, "comm")
        return text.decode("utf-8", "replace").rstrip("\n") if text else ""

    def cmdline(self, pid: int) -> bytes:
        return self.read(pid, "cmdline") or b""

    def stat(self, pid: int) -> Stat | None:
        text = self.read(pid, "stat")
        # The name stands in parentheses and may itself hold any character: what follows the last one counts.
        fields = text.rpartition(b")")[2].split() if text else []
        if len(fields) < 20:
            return None
        return Stat(fields[0].decode("ascii"), int(fields[1]), int(fields[19]) * _TICK)

    def title_room(self, pid: int) -> int | None:
        """How long a title it may write over its arguments and environment; None when that may not be looked into.

        PostgreSQL leaves the last byte of both and ends with a zero (src/backend/utils/misc/ps_status.c).
        """
        text = self.read(pid, "stat")
        fields = text.rpartition(b")")[2].split() if text else []
        if len(fields) < 49:
            return None
        arguments, arguments_end, environment, end = map(int, fields[45:49])
        if environment != arguments_end or end < environment:
            end = arguments_end
        return end - arguments - 2 if end > arguments else None

    def owner(self, pid: int) -> int | None:
        """The user its files in /proc belong to: its effective one, or root where it may not be dumped."""
        try:
            return os.stat(f"{self.root}/{pid}").st_uid
        except OSError:
            return None

    def uid(self, pid: int) -> int | None:
        """The effective user id."""
        for line in (self.read(pid, "status") or b"").splitlines():
            if line.startswith(b"Uid:"):
                return int(line.split()[2])
        return None

    def pids_in_namespaces(self, pid: int) -> list[int]:
        """The process's pid in each pid namespace it is in, from ours inward (NSpid)."""
        for line in (self.read(pid, "status") or b"").splitlines():
            if line.startswith(b"NSpid:"):
                return [int(word) for word in line.split()[1:]]
        return [pid]

    def children(self, pid: int) -> list[int]:
        """Its children; by a search of all processes where the kernel keeps no list (CONFIG_PROC_CHILDREN)."""
        # To be told "nothing more" the kernel walks the whole list again; a pid takes eight bytes at most.
        text = self.read(pid, f"task/{pid}/children", _PAGE - 8)
        if text is not None:
            return list(map(int, text.split()))
        found = ((child, self.stat(child)) for child in self.pids())
        return [child for child, stat in found if stat is not None and stat.parent == pid]

    def network_namespace(self, pid: int) -> int | None:
        """The inode of its network namespace; None when it may not be looked into."""
        try:
            return os.stat(f"{self.root}/{pid}/ns/net").st_ino
        except OSError:
            return None

    def net_directory(self, pid: int) -> str:
        return f"{self.root}/{pid}/net"

    def link(self, pid: int, name: str) -> str | None:
        """The target of a symbolic link such as cwd or exe."""
        try:
            return os.readlink(f"{self.root}/{pid}/{name}")
        except OSError:
            return None

    def path_seen_by(self, pid: int, path: str) -> Path:
        """A path as the process sees it: through its root where that may be followed, else as we see it."""
        through = Path(self.root, str(pid), "root" + path)
        try:
            os.stat(through)
        except OSError:
            return Path(path)
        return through


def voluntary_switches(status: bytes) -> int | None:
    """`voluntary_ctxt_switches` from the text of /proc/PID/status."""
    start = status.find(_SWITCHES)
    if start < 0:
        return None
    start += len(_SWITCHES)
    return int(status[start : status.find(b"\n", start)])
