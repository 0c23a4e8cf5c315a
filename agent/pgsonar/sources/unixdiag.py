"""Which unix stream sockets talk to each other: of each connected one its peer and its path (man 7 sock_diag).

The rule: asked only when somebody wants to know who is at the other end of a session over a unix socket. Both ends
are listed in the network namespace of the one that has connected (net/unix/af_unix.c: unix_stream_connect).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ESTABLISHED = 1 << 1
_SHOW = 1 | 4  # UDIAG_SHOW_NAME, UDIAG_SHOW of linux/unix_diag.h
_NAME, _PEER = 0, 2  # UNIX_DIAG_NAME, UNIX_DIAG_PEER
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_QUESTION = struct.Struct("=BBHIIIII")  # unix_diag_req: family, protocol, padding, states, inode, show, cookie
_ANSWER = struct.Struct("=BBBBIII")  # unix_diag_msg: family, type, state, padding, inode, cookie
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_PATIENCE = 1.0  # seconds


class UnixEnd(NamedTuple):
    """One end of a connection. Who has accepted it has the path of who listens, who has connected mostly none."""

    peer: int  # inode
    path: str


def read_unix_ends(process_directory: str) -> dict[int, UnixEnd]:
    """By inode, in the network namespace of a process, e.g. /proc/1234.

    Raises OSError where that namespace may not be entered.
    """
    namespace = os.open(f"{process_directory}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        own = os.stat("/proc/thread-self/ns/net").st_ino
        if os.fstat(namespace).st_ino == own:
            return _ask()
        return _ask_within(namespace)
    finally:
        os.close(namespace)


def _ask_within(namespace: int) -> dict[int, UnixEnd]:
    """A thread's namespace is its own, and ends with it."""
    told: list[dict[int, UnixEnd] | OSError] = []

    def ask() -> None:
        try:
            _enter(namespace)
            told.append(_ask())
        except OSError as error:
            told.append(error)

    thread = threading.Thread(target=ask, name="pgsonar-unix-peers")
    thread.start()
    thread.join()
    if isinstance(told[0], OSError):
        raise told[0]
    return told[0]


def _enter(namespace: int) -> None:
    """Python has os.setns since 3.12 only."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        reason = ctypes.get_errno()
        raise OSError(reason, os.strerror(reason))


def _ask() -> dict[int, UnixEnd]:
    question = _QUESTION.pack(socket.AF_UNIX, 0, 0, _ESTABLISHED, 0, _SHOW, 0, 0)
    ends: dict[int, UnixEnd] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(_PATIENCE)
        asking.send(_HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + question)
        while not parse(asking.recv(1 << 17), ends):
            pass
    return ends


def parse(answer: bytes, ends: dict[int, UnixEnd]) -> bool:
    """Adds the pairs of one datagram of the answer; whether it was the last. Raises OSError for a refusal."""
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, at)
        if length < _HEADER.size or at + length > len(answer):
            raise OSError(errno.EBADMSG, "a message of unix_diag that cannot be read")
        body = answer[at + _HEADER.size : at + length]
        if kind == _NLMSG_DONE:
            return True
        if kind == _NLMSG_ERROR:
            # ENOENT says that the kernel has no unix_diag; of a file it would say that a process is gone.
            code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else errno.EBADMSG
            code = errno.EPROTONOSUPPORT if code == errno.ENOENT else code
            raise OSError(code, os.strerror(code))
        if kind == _SOCK_DIAG_BY_FAMILY and len(body) >= _ANSWER.size:
            _add(body, ends)
        at += (length + 3) & ~3
    return False


def _add(body: bytes, ends: dict[int, UnixEnd]) -> None:
    _, kind_of_socket, _, _, inode, *_ = _ANSWER.unpack_from(body)
    if kind_of_socket != socket.SOCK_STREAM:
        return
    peer, path = 0, ""
    at = _ANSWER.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        value = body[at + _ATTRIBUTE.size : at + length]
        if kind == _PEER and len(value) == 4:
            peer = struct.unpack("=I", value)[0]
        elif kind == _NAME:
            path = os.fsdecode(value.rstrip(b"\0"))
        at += (length + 3) & ~3
    if peer:
        ends[inode] = UnixEnd(peer, path)
