"""A network namespace of its own for a program, as root or not: `python own_network.py PROGRAM ARGUMENTS...`.

The rule: what counts sockets to the last one runs here, and nobody else's come and go beside them. A walk of the
kernel's table is no snapshot, and a port of the test's may be somebody else's on another address.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

NEWNET, NEWUSER = 0x40000000, 0x10000000  # sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
REFUSED = 77  # the exit code where the kernel grants none


def enter():
    """Leaves the namespace of this process for one whose only device is the loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEWNET):
        uid, gid = os.getuid(), os.getgid()
        if libc.unshare(NEWUSER | NEWNET):
            raise PermissionError(ctypes.get_errno(), "no network namespace of its own")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name, flags = struct.unpack("16sH", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH", b"lo", 0)))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH", name, flags | IFF_UP))


if __name__ == "__main__":
    try:
        enter()
    except PermissionError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - this is what it is for
