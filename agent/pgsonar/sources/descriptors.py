"""Which process has a socket open, found by walking descriptors.

The rule: within a bounded time, going on in the next call where this one stopped. It takes the right to look into the
processes of other users.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pgsonar.model import ClientProcess
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.placement import parse_cgroup
from pgsonar.sources.processes import Processes
from pgsonar.sources.titles import readable

_PLACES = 1000

Asked = TypeVar("Asked", bound=Hashable)


@dataclass(slots=True)
class _Search:
    """A walk through the processes of a place that goes on in the next call when time runs out."""

    wanted: frozenset[int]  # inodes, when it began
    asked: set[int] = field(default_factory=set)


class HolderSearch:
    """Finds the holders of inodes, and remembers who held some before."""

    def __init__(self, processes: Processes, owners: OwnerReader) -> None:
        self._processes = processes
        self._owners = owners
        self._searches: dict[int, _Search] = {}
        self._likely: dict[int, list[int]] = {}  # by place: processes that were clients before

    def find(
        self, place: int, pids: list[int], inodes: dict[int, Asked], users: set[int] | None, deadline: float
    ) -> dict[Asked, ClientProcess | None]:
        """Who has these inodes open, among the processes of a place (a number of the caller's).

        Those that were found before come first, then every process of the users, if these are known. What is absent
        from the answer was not got round to before the deadline, by the monotonic clock.
        """
        found: dict[Asked, ClientProcess | None] = {}
        left = dict(inodes)
        if len(self._likely) > _PLACES:  # pods come and go
            self._likely, self._searches = {}, {}
        search = self._searches.setdefault(place, _Search(frozenset(inodes)))
        has_asked = False
        for pid in self._candidates(place, pids, users):
            if not left or (has_asked and time.monotonic() >= deadline):
                break
            if pid in search.asked:
                continue
            search.asked.add(pid)
            has_asked = True
            held = self._owners.inodes(pid, postmaster=pid, first_only=False)
            self._owners.forget(pid)
            if held is None:
                continue
            mine = [inode for inode in held if inode in left]
            if mine:
                client = self._describe(pid)
                for inode in mine:
                    found[left.pop(inode)] = client
                likely = self._likely.setdefault(place, [])
                self._likely[place] = [pid, *(other for other in likely if other != pid)][:16]
        else:  # every process was asked, though not after what was wanted since the search began
            found |= {hop: None for inode, hop in left.items() if inode in search.wanted}
            left.clear()
        if not left:
            del self._searches[place]
        return found

    def _candidates(self, place: int, pids: list[int], users: set[int] | None) -> Iterator[int]:
        likely = [pid for pid in self._likely.get(place, ()) if pid in pids]
        yield from likely
        for pid in reversed(pids):  # what came last is a client more likely than what boots a host
            if pid in likely:
                continue
            try:
                is_users = users is None or os.stat(f"{self._processes.root}/{pid}").st_uid in users
            except OSError:
                continue
            if is_users:
                yield pid

    def _describe(self, pid: int) -> ClientProcess | None:
        stat, uid = self._processes.stat(pid), self._processes.uid(pid)
        if stat is None:
            return None
        placement = parse_cgroup((self._processes.read(pid, "cgroup") or b"").decode("utf-8", "replace"))
        return ClientProcess(
            pid=pid,
            started=stat.started,
            command=readable(self._processes.comm(pid).encode()) or "?",
            user=_user(uid) if uid is not None and placement.container_id is None else None,
            unit=placement.unit,
            container_id=placement.container_id,
            pod_uid=placement.pod_uid,
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
