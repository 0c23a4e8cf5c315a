"""Counters of a network namespace from /proc/PID/net/netstat (man 5 proc; net/ipv4/proc.c).

The rule: names stand on one line and values on the next; a name that the kernel does not have is None, never 0.
"""

from __future__ import annotations

from pathlib import Path


def listen_overflows(net_directory: str) -> int | None:
    """How often a full accept queue made the kernel drop a client, since the namespace exists; None if unreadable."""
    try:
        lines = Path(net_directory, "netstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            found = dict(zip(names.split(), values.split(), strict=True)).get("ListenOverflows")
            return None if found is None else int(found)
    return None
