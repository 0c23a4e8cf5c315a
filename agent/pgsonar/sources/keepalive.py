"""Asks a silent client whether it is still there: the keepalive of its backend's socket, shortened for a few seconds.

The rule: off unless configured, only for sessions that are suspected already, and nothing stays changed. A descriptor
of the backend's socket is borrowed (man 2 pidfd_getfd, which takes ptrace's permission), its keepalive shortened,
restored and given back within WATCH seconds, or LONGEST while nobody answers. The count of probes is raised as well, so
that the kernel ends nothing meanwhile: whether the client answers is read from the socket's row.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import socket
from collections.abc import Collection
from dataclasses import dataclass

from pgsonar.model import SECOND

log = logging.getLogger("pgsonar")

WATCH = 5 * SECOND  # a probe goes out after one second, and again each second
LONGEST = 120 * SECOND  # of a client that does not answer, in case its network comes back
AGAIN = 600 * SECOND  # until the same session is asked again
AT_ONCE = 8  # sessions asked at a time
_SHORTENED = ((socket.TCP_KEEPCNT, 127), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPIDLE, 1))  # in this order
_PIDFD_GETFD = 438  # asm-generic/unistd.h, the same on x86-64 and aarch64
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Asked:
    socket: socket.socket
    before: list[tuple[int, int]]
    since: int


class KeepaliveProbe:
    """Asks the clients of backends, and remembers whom it has asked."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._open: dict[tuple[int, int], _Asked] = {}
        self._asked: dict[tuple[int, int], int] = {}
        self.asked = 0  # sessions, ever
        self.refused = 0

    def ask(self, pid: int, inode: int, at: int) -> None:
        """Asks the client behind a backend's socket, unless that was done lately."""
        key = pid, inode
        if len(self._open) >= AT_ONCE or (key in self._asked and at - self._asked[key] < AGAIN):
            return
        self._asked = {old: when for old, when in self._asked.items() if at - when < AGAIN} | {key: at}
        try:
            borrowed = self._borrow(pid, inode)
        except OSError as error:
            self._refuse(error)
            return
        if borrowed is None:
            return
        try:
            before = [(option, borrowed.getsockopt(socket.IPPROTO_TCP, option)) for option, _ in _SHORTENED]
            self._open[key] = _Asked(borrowed, before, at)
            for option, value in _SHORTENED:
                borrowed.setsockopt(socket.IPPROTO_TCP, option, value)
            self.asked += 1
        except OSError as error:
            self._give_back(key)
            borrowed.close()
            self._refuse(error)

    def settle(self, at: int, silent: Collection[int]) -> None:
        """Gives back what was borrowed for long enough.

        Of sessions (`silent`, by pid) whose client does not answer that is later: only a probe shows that it is back.
        """
        for key, asked in list(self._open.items()):
            if at - asked.since >= (LONGEST if key[0] in silent else WATCH):
                self._give_back(key)

    def close(self) -> None:
        """Gives everything back."""
        for key in list(self._open):
            self._give_back(key)

    @property
    def problem(self) -> str | None:
        """What keeps it from asking; None while nothing does."""
        if not self.refused:
            return None
        return f"half_open.probe: {self.refused} sessions could not be asked: run with CAP_SYS_PTRACE"

    def _borrow(self, pid: int, inode: int) -> socket.socket | None:
        """The backend's own socket under a descriptor of ours; None when it is gone."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            number = self._descriptor_of(pid, inode)
            if number is None:
                return None
            descriptor = _libc.syscall(_PIDFD_GETFD, process, number, 0)
            if descriptor < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(process)
        borrowed = socket.socket(fileno=descriptor)
        if os.fstat(borrowed.fileno()).st_ino != inode:  # the number was given to another file in between
            borrowed.close()
            return None
        return borrowed

    def _descriptor_of(self, pid: int, inode: int) -> int | None:
        directory = f"{self._proc}/{pid}/fd"
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"{directory}/{name}") == f"socket:[{inode}]":
                    return int(name)
        return None

    def _give_back(self, key: tuple[int, int]) -> None:
        asked = self._open.pop(key, None)
        if asked is None:
            return
        with contextlib.suppress(OSError):  # the connection has ended
            for option, value in asked.before:
                asked.socket.setsockopt(socket.IPPROTO_TCP, option, value)
        asked.socket.close()

    def _refuse(self, error: OSError) -> None:
        if error.errno in {errno.ENOENT, errno.ESRCH}:
            return
        self.refused += 1
        if self.refused == 1:
            log.warning(
                "half_open.probe: a session cannot be asked: %s (run with CAP_SYS_PTRACE; Linux 5.6 and later)",
                error.strerror,
            )
