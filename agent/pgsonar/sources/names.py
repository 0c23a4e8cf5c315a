"""The names of all processes of the host and who is whose parent, read as seldom as will do.

The rule: a pid may execute another program at any time, so names are read again and again; but of thousands of
processes only those that came since the last look, and every third time all. Parents are read of those alone whose name
others have too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container

from pgsonar.sources.processes import Processes

_ALL_EVERY = 3  # looks


class ProcessNames:
    """Processes by their name (`comm`)."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._names: dict[int, str] = {}
        self._parents: dict[int, int] = {}
        self._looks = 0

    def look(self) -> None:
        """Reads what has come, and every third time everything."""
        self._looks += 1
        before = {} if self._looks % _ALL_EVERY == 1 else self._names
        self._names = {
            pid: before[pid] if pid in before else self._processes.comm(pid) for pid in self._processes.pids()
        }
        self._parents = {pid: parent for pid, parent in self._parents.items() if pid in before and pid in self._names}

    def called(self, names: Container[str]) -> set[int]:
        """The processes of these names."""
        return {pid for pid, name in self._names.items() if name in names}

    def parent(self, pid: int) -> int:
        """Its parent; 0 when it has gone."""
        if pid not in self._parents:
            stat = self._processes.stat(pid)
            self._parents[pid] = stat.parent if stat is not None else 0
        return self._parents[pid]

    def families(self, but: Container[str], *, least: int) -> list[dict[int, list[int]]]:
        """By each name that at least so many have, and none of these: the children of those it is the name of as well.

        Whoever forks and executes nothing has children of its own name.
        """
        by_name: dict[str, list[int]] = defaultdict(list)
        for pid, name in self._names.items():
            if name not in but:
                by_name[name].append(pid)
        return [self.children(set(pids)) for pids in by_name.values() if len(pids) >= least]

    def children(self, family: set[int]) -> dict[int, list[int]]:
        """The children that are of this family, by their parents of it."""
        children: dict[int, list[int]] = defaultdict(list)
        for pid in sorted(family):
            if (parent := self.parent(pid)) in family:
                children[parent].append(pid)
        return children
