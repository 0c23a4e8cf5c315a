"""The children of a postmaster: who they are and what they do, read several times a second.

The rule: a descriptor kept on /proc/PID/cmdline belongs to that process and no later one, so a pid that returns is
never mistaken. At most half of the descriptors we may have are kept: beyond that the files are opened anew each time,
so that thousands of backends leave room for everything else. Who is of the family and what a title means is asked anew
only when the title is another one. Context switches are read at each look where a title alone
would not be believed, and of idle sessions now and then: short statements leave the title idle in every sample.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, field

from pgsonar.model import Activity, BackendKind, BackendSighting, Server, Title
from pgsonar.sources.kin import Kin
from pgsonar.sources.processes import Processes, voluntary_switches
from pgsonar.sources.titles import PREFIX, parse_title

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
    is_stranger: bool = False  # it runs another program
    doubted_at: int = 0  # when the context switches of an idle one are read next


@dataclass(slots=True)
class _Family:
    kin: Kin
    is_contained: bool  # whether it lives in a pid namespace of its own
    room: int | None  # for titles; None: it may not be read
    cluster_name: str
    children: dict[int, _Child] = field(default_factory=dict)
    longest: int = 0  # title that was seen
    cut_at: int | None = None  # what a title that was cut says of the room
    has_learned: bool = False  # what titles are read by: those read before are read again

    def learn(self, cluster_name: str) -> None:
        if cluster_name != self.cluster_name:
            self.cluster_name, self.has_learned = cluster_name, True

    def follow(self, children: dict[int, _Child]) -> None:
        """The children of now."""
        self.children = children
        if self.has_learned:
            self.has_learned = False
            for child in children.values():
                child.raw = b""

    def parse(self, raw: bytes) -> Title:
        length = len(raw.rstrip(b"\0"))
        self.longest = max(self.longest, length)
        if self.cut_at is not None and length > self.cut_at:  # it was not cut, only odd
            self.cut_at, self.has_learned = None, True
        room = self.room if self.room is not None else self.cut_at
        title = parse_title(raw, self.cluster_name, self.kin.cmdline, room)
        if title.is_cut and room is None and length == self.longest:
            self.cut_at, self.has_learned = length, True
        return title


class BackendReader:
    """Reads the children of any number of postmasters."""

    def __init__(self, processes: Processes, idle_every: float = 30.0) -> None:
        """The context switches of idle sessions are read every `idle_every` seconds."""
        self._processes = processes
        self._idle_every = round(idle_every * 1e9)
        self._families: dict[tuple[str, int], _Family] = {}  # by server id and postmaster
        self._room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2  # descriptors that may yet be kept

    def read(self, server: Server, *, at: int) -> list[BackendSighting]:
        """One look at all children that are alive; `at` is the instant it is stamped with."""
        family = self._family(server)
        known = family.children
        present: dict[int, _Child] = {}
        sightings = []
        for pid in self._processes.children(server.pid):
            child = known.pop(pid, None) or self._meet(pid, family)
            raw = self._text(pid, child.cmdline, "cmdline", _TITLE_BYTES) if child is not None else b""
            if child is not None and raw:
                present[pid] = child
                sighting = self._look(pid, child, raw, family, at)
                if sighting is not None:
                    sightings.append(sighting)
            elif child is not None:  # ended: its memory is gone, its entry may stand for a moment
                self._close(child)
        for gone in known.values():
            self._close(gone)
        family.follow(present)
        return sightings

    def _family(self, server: Server) -> _Family:
        key = server.id, server.pid
        family = self._families.get(key)
        if family is None:
            contained = len(self._processes.pids_in_namespaces(server.pid)) > 1
            kin, room = Kin(self._processes, server.pid), self._processes.title_room(server.pid)
            family = self._families[key] = _Family(kin, contained, room, server.cluster_name)
        family.learn(server.cluster_name)
        family.follow(family.children)
        return family

    def forget(self, server: Server) -> None:
        """Lets go of a server that is not watched any more."""
        family = self._families.pop((server.id, server.pid), None)
        for child in family.children.values() if family is not None else ():
            self._close(child)

    def _meet(self, pid: int, family: _Family) -> _Child | None:
        stat = self._processes.stat(pid)
        if stat is None or stat.state in "ZX":
            return None
        inner_pid = self._processes.pids_in_namespaces(pid)[-1] if family.is_contained else pid
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

    def _look(self, pid: int, child: _Child, raw: bytes, family: _Family, at: int) -> BackendSighting | None:
        if raw != child.raw:
            # What has a title was one of the family when it was met, and still is.
            if child.title is None or not raw.startswith(PREFIX):
                child.is_stranger = not family.kin.has(pid, raw)
            child.raw, child.title = raw, family.parse(raw)
        if child.is_stranger or child.title is None:
            return None
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
