"""Which children of a postmaster are its own, and which it has only been given.

The rule: a process of PostgreSQL's runs the program of its postmaster, as its user. The first process of a container is
given every orphan there is, and what PostgreSQL starts beside itself runs something else: these hold no slot. Where
programs may not be looked at, the title or the name decides. A program is told by its path, because a file may lie
where nobody answers any more; to have another there takes a user who is PostgreSQL already.
"""

from __future__ import annotations

from pgsonar.sources.processes import Processes
from pgsonar.sources.titles import PREFIX


class Kin:
    """The family of one postmaster."""

    def __init__(self, processes: Processes, postmaster: int) -> None:
        self.cmdline = processes.cmdline(postmaster)
        self._processes = processes
        self._program = _program(processes, postmaster)
        self._owner = processes.owner(postmaster)
        self._name = processes.comm(postmaster)

    def has(self, pid: int, raw: bytes) -> bool:
        """Whether a child is of it. `raw` is its command line or title."""
        if self._processes.owner(pid) != self._owner:
            return False
        program = _program(self._processes, pid) if self._program is not None else None
        if program is not None:
            return program == self._program
        return raw.startswith(PREFIX) or raw == self.cmdline or self._processes.comm(pid) == self._name


def _program(processes: Processes, pid: int) -> str | None:
    """The file it runs. An upgrade replaces that of a server that runs on, and the kernel marks it (proc(5))."""
    path = processes.link(pid, "exe")
    return None if path is None else path.removesuffix(" (deleted)")
