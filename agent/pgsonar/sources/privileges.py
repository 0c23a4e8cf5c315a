"""What this process may do: its capabilities and limits (man 7 capabilities, man 5 proc).

The rule: read, never tried out.
"""

from __future__ import annotations

import os
import pwd
import resource
from pathlib import Path
from typing import NamedTuple

from pgsonar.model import Lack
from pgsonar.sources.hidepid import Hidden, hidden

# Bits of CapEff that matter to pgsonar, and what for (linux/capability.h).
CAPABILITIES = {
    "CAP_DAC_READ_SEARCH": (2, "data directories and configurations of other users"),
    "CAP_SYS_PTRACE": (19, "descriptors of other users' processes"),
    "CAP_SYS_ADMIN": (21, "sock_diag in other network namespaces, together with CAP_SYS_PTRACE"),
}
# Since Linux 5.14 /proc/PID/fdinfo has the inodes of sockets; links of /proc/PID/fd ask for both.
LOOKS_INTO_PROCESSES = "CAP_SYS_PTRACE (before Linux 5.14 CAP_DAC_READ_SEARCH as well)"
# /proc/PID/ns/net must be opened before it can be entered (setns, man 2).
ENTERS_NAMESPACES = "CAP_SYS_ADMIN with CAP_SYS_PTRACE"


class Privileges(NamedTuple):
    user: str
    capabilities: tuple[str, ...]
    open_files: int
    hidden: Hidden | None  # the processes of other users

    @property
    def hides_processes(self) -> bool:
        return self.hidden is not None


def hidden_processes(proc: str = "/proc") -> list[Lack]:
    """Whether /proc hides the processes of other users."""
    found = hidden(proc)
    if found is None:
        return []
    return [Lack("source", "processes", f"{found.what}, so no server of theirs is found ({found.helps})")]


def privileges(proc: str = "/proc") -> Privileges:
    """Of this process."""
    effective = 0
    for line in Path(proc, "self", "status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"uid {uid}"
    return Privileges(
        user=user,
        capabilities=tuple(name for name, (bit, _) in CAPABILITIES.items() if effective >> bit & 1),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        hidden=hidden(proc),
    )
