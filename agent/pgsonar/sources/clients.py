"""The process at the other end of a connection, where that end is on this host or node.

The rule: looked for only when somebody asks about a connection, once, within a bounded time; nothing is searched in a
steady state. An address names its network namespace, the namespace's table the socket, and the socket's inode the
process that has it open: the last step takes the right to look into other users' processes.
"""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from pgsonar.model import ClientProcess, Endpoint, Socket
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.placement import parse_cgroup
from pgsonar.sources.processes import Processes
from pgsonar.sources.titles import readable

BUDGET = 0.05  # seconds of one call: a node may have a hundred thousand open descriptors
_AGAIN = 30.0  # seconds until the namespaces of the host are listed anew
_LOCAL = re.compile(r"^\s+\|-- (\S+)\n\s+/32 host LOCAL$", re.MULTILINE)  # net/ipv4/fib_trie.c

# Of a process, such as /proc/1234: the sockets of its namespace that have one of the ports at either end.
ReadConnections = Callable[[str, Sequence[int]], Sequence[Socket]]


class Hop(NamedTuple):
    """A connection as the server's side has it."""

    netns: int
    local: Endpoint
    remote: Endpoint


@dataclass(slots=True)
class _Namespace:
    pids: list[int] = field(default_factory=list)
    addresses: set[str] | None = None  # None: not read yet


@dataclass(slots=True)
class _Search:
    """A walk through the processes of a namespace that goes on in the next call when time runs out."""

    wanted: frozenset[int]  # inodes, when it began
    asked: set[int] = field(default_factory=set)


class ClientFinder:
    """Finds client processes."""

    def __init__(self, processes: Processes, owners: OwnerReader, read_connections: ReadConnections) -> None:
        self._processes = processes
        self._owners = owners
        self._read_connections = read_connections
        self._namespaces: dict[int, _Namespace] = {}
        self._listed = -_AGAIN
        self._searches: dict[int, _Search] = {}
        self._likely: dict[int, list[int]] = {}  # by namespace: processes that were clients before
        self._hidden = 0  # processes whose namespace may not be read
        self.refused = 0  # processes that may not be looked into, at the last search

    def find(self, hops: Iterable[Hop]) -> dict[Hop, ClientProcess | None]:
        """The client of each; None where it is not here, or may not be seen. What time ran out for is absent."""
        deadline = time.monotonic() + BUDGET
        found: dict[Hop, ClientProcess | None] = {}
        wanted: dict[int, list[Hop]] = {}
        for hop in hops:
            netns = self._namespace_of(hop)
            if netns is None:
                found[hop] = None
            else:
                wanted.setdefault(netns, []).append(hop)
        for netns, there in wanted.items():
            if time.monotonic() >= deadline:
                break
            found |= self._in_namespace(netns, there, deadline)
        return found

    # --- which namespace an address belongs to -------------------------------------------------------------------

    def _namespace_of(self, hop: Hop) -> int | None:
        address = hop.remote.address
        if ip_address(address.partition("%")[0]).is_loopback or address == hop.local.address:
            return hop.netns
        for attempt in (False, True):
            if attempt and not self._list_again():
                return None
            for netns, namespace in self._namespaces.items():
                if namespace.addresses is None:
                    namespace.addresses = self._addresses(namespace.pids)
                if address in namespace.addresses:
                    return netns
        return None

    def _list_again(self) -> bool:
        """Lists the network namespaces of all processes, if that was not done lately."""
        if time.monotonic() - self._listed < _AGAIN:
            return False
        self._listed = time.monotonic()
        namespaces: dict[int, _Namespace] = {}
        self._hidden = 0
        for pid in self._processes.pids():
            netns = self._processes.network_namespace(pid)
            if netns is not None:
                namespaces.setdefault(netns, _Namespace()).pids.append(pid)
            else:
                self._hidden += 1
        self._namespaces = namespaces
        return True

    def _addresses(self, pids: Iterable[int]) -> set[str]:
        for pid in pids:
            directory = Path(self._processes.net_directory(pid))
            try:
                addresses = set(_LOCAL.findall((directory / "fib_trie").read_text("ascii")))
            except OSError:
                continue
            try:
                lines = (directory / "if_inet6").read_text("ascii").splitlines()
            except OSError:  # a kernel without IPv6
                lines = []
            return addresses | {str(ip_address(bytes.fromhex(line.split()[0]))) for line in lines}
        return set()

    # --- which process has the socket ----------------------------------------------------------------------------

    def _in_namespace(self, netns: int, hops: list[Hop], deadline: float) -> dict[Hop, ClientProcess | None]:
        self._list_again()
        self.refused = self._hidden
        pids = self._namespaces[netns].pids if netns in self._namespaces else []
        rows = self._rows(pids, sorted({hop.local.port for hop in hops}))
        ends = {(row.local, row.remote): row for row in rows}
        found: dict[Hop, ClientProcess | None] = {}
        inodes: dict[int, Hop] = {}
        users = set()
        for hop in hops:
            row = ends.get((hop.remote, hop.local))
            if row is None or not row.inode:
                found[hop] = None
            else:
                inodes[row.inode] = hop
                users.add(row.uid)
        return found | self._holders(netns, pids, inodes, users, deadline)

    def _rows(self, pids: Iterable[int], ports: Sequence[int]) -> Sequence[Socket]:
        for pid in pids:
            try:
                return self._read_connections(f"{self._processes.root}/{pid}", ports)
            except OSError:  # gone: another process of the namespace will do
                continue
        return []

    def _holders(
        self, netns: int, pids: list[int], inodes: dict[int, Hop], users: set[int], deadline: float
    ) -> dict[Hop, ClientProcess | None]:
        """Walks descriptors: those of former clients first, then of every process of the socket's user."""
        found: dict[Hop, ClientProcess | None] = {}
        left = dict(inodes)
        search = self._searches.setdefault(netns, _Search(frozenset(inodes)))
        for pid in self._candidates(netns, pids, users):
            if not left or time.monotonic() >= deadline:
                break
            if pid in search.asked:
                continue
            search.asked.add(pid)
            held = self._owners.inodes(pid, postmaster=pid, first_only=False)
            self._owners.forget(pid)
            if held is None:
                self.refused += 1
                continue
            mine = [inode for inode in held if inode in left]
            if mine:
                client = self._describe(pid)
                for inode in mine:
                    found[left.pop(inode)] = client
                likely = self._likely.setdefault(netns, [])
                self._likely[netns] = [pid, *(other for other in likely if other != pid)][:16]
        else:  # every process was asked, though not after what was wanted since the search began
            found |= {hop: None for inode, hop in left.items() if inode in search.wanted}
            left.clear()
        if not left:
            del self._searches[netns]
        return found

    def _candidates(self, netns: int, pids: list[int], users: set[int]) -> Iterator[int]:
        likely = [pid for pid in self._likely.get(netns, ()) if pid in pids]
        yield from likely
        for pid in reversed(pids):  # what came last is a client more likely than what boots a host
            try:
                is_users = os.stat(f"{self._processes.root}/{pid}").st_uid in users
            except OSError:
                continue
            if is_users and pid not in likely:
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
