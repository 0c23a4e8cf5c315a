"""The children of a postmaster: who they are and what they do, read several times a second.

The rule: a descriptor kept on /proc/PID/cmdline belongs to that process and no later one, so a pid that returns is
never mistaken. At most half of the descriptors we may have are kept: beyond that the files are opened anew each time,
so that thousands of backends leave room for everything else. Context switches are read at each look where a title alone
would not be believed, and of idle sessions now and then: short statements leave the title idle in every sample.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from pgsonar.model import Activity, BackendKind, BackendSighting, Server, Title
from pgsonar.sources.processes import Processes, voluntary_switches
from pgsonar.sources.titles import parse_title

_TITLE_BYTES = 4096  # a title is as long as the postmaster's arguments and environment were
_STATUS_BYTES = 4096
_DOUBTED = frozenset(
    {Activity.IN_TRANSACTION, Activity.ABORTED, Activity.AUTHENTICATION, Activity.STARTUP, Activity.INITIALIZING}
)


@dataclass(slots=True)
class _Child:
    started: int
    inner_pid: int
    cmdline: int | None = None  # descriptors
    status: int | None = None
    raw: bytes = b""
    title: Title | None = None
    doubted_at: int = 0  # when the context switches of an idle one are read next


class BackendReader:
    """Reads the children of any number of postmasters."""

    def __init__(self, processes: Processes, idle_every: float = 30.0) -> None:
        """The context switches of idle sessions are read every `idle_every` seconds."""
        self._processes = processes
        self._idle_every = round(idle_every * 1e9)
        self._children: dict[tuple[str, int], dict[int, _Child]] = {}  # by server id and postmaster, then by pid
        self._cmdlines: dict[tuple[str, int], bytes] = {}
        self._contained: dict[int, bool] = {}  # by postmaster: whether it lives in a pid namespace of its own
        self._room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2  # descriptors that may yet be kept

    def read(self, server: Server, *, at: int) -> list[BackendSighting]:
        """One look at all children that are alive; `at` is the instant it is stamped with."""
        key = server.id, server.pid
        known = self._children.setdefault(key, {})
        if key not in self._cmdlines:
            self._cmdlines[key] = self._processes.cmdline(server.pid)
        present: dict[int, _Child] = {}
        sightings = []
        for pid in self._processes.children(server.pid):
            child = known.pop(pid, None) or self._meet(pid, server.pid)
            sighting = self._look(pid, child, server, at) if child is not None else None
            if child is not None and sighting is not None:
                present[pid] = child
                sightings.append(sighting)
            elif child is not None:
                self._close(child)
        for gone in known.values():
            self._close(gone)
        self._children[key] = present
        return sightings

    def forget(self, server: Server) -> None:
        """Lets go of a server that is not watched any more."""
        for child in self._children.pop((server.id, server.pid), {}).values():
            self._close(child)
        self._cmdlines.pop((server.id, server.pid), None)
        self._contained.pop(server.pid, None)

    def _meet(self, pid: int, postmaster: int) -> _Child | None:
        stat = self._processes.stat(pid)
        if stat is None or stat.state in "ZX":
            return None
        if postmaster not in self._contained:
            self._contained[postmaster] = len(self._processes.pids_in_namespaces(postmaster)) > 1
        inner_pid = self._processes.pids_in_namespaces(pid)[-1] if self._contained[postmaster] else pid
        child = _Child(stat.started, inner_pid)
        child.cmdline = self._keep_open(pid, "cmdline")
        return child

    def _keep_open(self, pid: int, name: str) -> int | None:
        """A descriptor to keep; None when there is no room for it, and the file is read by its name each time."""
        if self._room <= 0:
            return None
        try:
            descriptor = os.open(f"{self._processes.root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        self._room -= 1
        return descriptor

    def _close(self, child: _Child) -> None:
        for descriptor in (child.cmdline, child.status):
            if descriptor is not None:
                os.close(descriptor)
                self._room += 1

    def _look(self, pid: int, child: _Child, server: Server, at: int) -> BackendSighting | None:
        raw = self._text(pid, child.cmdline, "cmdline", _TITLE_BYTES)
        if not raw:  # ended: its memory is gone, its entry may stand for a moment
            return None
        if child.title is None or raw != child.raw:
            child.raw = raw
            child.title = parse_title(raw, server.cluster_name, self._cmdlines[server.id, server.pid])
        switches = None
        if child.title.kind is BackendKind.CLIENT and self._is_doubted(child, at):
            if child.status is None and child.cmdline is not None and child.title.activity != Activity.IDLE:
                child.status = self._keep_open(pid, "status")
            switches = voluntary_switches(self._text(pid, child.status, "status", _STATUS_BYTES))
        return BackendSighting(pid, child.started, child.title, switches, at, child.inner_pid)

    def _is_doubted(self, child: _Child, at: int) -> bool:
        activity = child.title.activity if child.title is not None else None
        if activity != Activity.IDLE:
            return activity in _DOUBTED
        if at < child.doubted_at:
            return False
        child.doubted_at = at + self._idle_every
        return True

    def _text(self, pid: int, descriptor: int | None, name: str, size: int) -> bytes:
        if descriptor is None:
            return self._processes.read(pid, name) or b""
        try:
            return os.pread(descriptor, size, 0)
        except OSError:  # ESRCH: the process has gone
            return b""
