"""Which processes are postmasters: told by what they do, not by what they are called.

The rule: the titles of its children are PostgreSQL's. A process that has no children yet is one by its name alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from pgsonar.sources.names import ProcessNames
from pgsonar.sources.processes import Processes
from pgsonar.sources.titles import PREFIX

_NAMES = ("postgres", "postmaster")
_NO_SERVER = (b"--single", b"--boot", b"--check", b"--describe-config", b"--version", b"-V", b"--help", b"-C")
_AT_LEAST = 3  # of one name: a postmaster, its checkpointer and its background writer or startup process
_ASKED = 8  # children whose titles are read where the name tells nothing: those that were forked first


@dataclass(frozen=True, slots=True)
class Postmaster:
    """One of them; pids return, so its start is part of what it is."""

    pid: int
    started: int
    cmdline: bytes

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.started) / 1e9


class PostmasterFinder:
    """Looks through the processes of the host."""

    def __init__(self, processes: Processes, names: ProcessNames) -> None:
        self._processes = processes
        self._names = names

    def find(self) -> Iterable[Postmaster]:
        """Whose children have PostgreSQL's titles, whatever it is called; and by its name one that has none yet."""
        named = self._names.called(_NAMES)
        family = named | self._other_names()
        children = self._names.children(family)
        waiting = [pid for pid in sorted(family) if self._names.parent(pid) not in family]
        while waiting:
            pid = waiting.pop(0)
            theirs = children.get(pid, [])
            cmdline = self._processes.cmdline(pid)
            is_titled = cmdline.startswith(PREFIX)
            if not is_titled and self._is_any_titled(theirs):
                waiting += [grandchild for child in theirs for grandchild in children.get(child, [])]
            else:
                # A fresh fork has the command line of its parent; a program that it waits for has its own.
                # What has ended and was not waited for has none.
                lines = {child: self._processes.cmdline(child) for child in theirs}
                others = [child for child, line in lines.items() if line and line != cmdline]
                waiting += others
                if is_titled or others or pid not in named:
                    continue
            stat = self._processes.stat(pid)
            if stat is None or stat.state in "ZX" or not cmdline or set(cmdline.split(b"\0")[1:]) & set(_NO_SERVER):
                continue
            yield Postmaster(pid, stat.started, cmdline)

    def _other_names(self) -> set[int]:
        """Processes that are not called as PostgreSQL calls them, and are: through a link or a wrapper."""
        found: set[int] = set()
        for children in self._names.families(_NAMES, least=_AT_LEAST):
            if any(self._is_any_titled(theirs[:_ASKED]) for theirs in children.values()):
                found.update(children, *children.values())
        return found

    def _is_any_titled(self, pids: Iterable[int]) -> bool:
        return any(self._processes.cmdline(pid).startswith(PREFIX) for pid in pids)
