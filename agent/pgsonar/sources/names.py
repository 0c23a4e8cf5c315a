"""The names of all processes of the host, read as seldom as will do.

The rule: a pid may execute another program at any time, so names are read again and again; but of thousands of
processes only those that came since the last look, and every third time all.
"""

from __future__ import annotations

from collections.abc import Container

from pgsonar.sources.processes import Processes

_ALL_EVERY = 3  # looks


class ProcessNames:
    """Processes by their name (`comm`)."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._names: dict[int, str] = {}
        self._looks = 0

    def look(self) -> None:
        """Reads what has come, and every third time everything."""
        self._looks += 1
        before = {} if self._looks % _ALL_EVERY == 1 else self._names
        self._names = {
            pid: before[pid] if pid in before else self._processes.comm(pid) for pid in self._processes.pids()
        }

    def called(self, names: Container[str]) -> set[int]:
        """The processes of these names."""
        return {pid for pid, name in self._names.items() if name in names}
