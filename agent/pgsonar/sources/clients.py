"""The process at the other end of a connection, where that end is on this host or node.

The rule: looked for only when somebody asks about a connection, once, and descriptors are walked within a bounded time
of each call; nothing is searched in a steady state. An address names its network namespace, the namespace's table the
socket, and the socket's inode the process that has it open: the last step takes the right to look into other users'
processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from pgsonar.model import ClientProcess, Endpoint, Socket
from pgsonar.sources.conntrack import Original
from pgsonar.sources.descriptors import HolderSearch
from pgsonar.sources.hostnamespaces import HostNamespaces
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.processes import Processes
from pgsonar.sources.unixdiag import UnixEnd

BUDGET = 0.05  # seconds of one call: a node may have a hundred thousand open descriptors

# Of a process, such as /proc/1234: the sockets of its namespace that have one of the ports at either end.
ReadConnections = Callable[[str, Sequence[int]], Sequence[Socket]]


# Of a process: the connected unix sockets of its network namespace, by inode.
ReadUnixEnds = Callable[[str], dict[int, UnixEnd]]

# Of a directory such as /proc/1234/net: translated connections, by their ends as the server has them.
ReadTranslations = Callable[[str], dict[tuple[Endpoint, Endpoint], Original]]

_EVERYWHERE = -1  # stands for a namespace where the whole host is searched
_TABLES = 100  # of translations that are kept
_KEEP_TRANSLATIONS = 5.0  # seconds: a table may have a million lines


class LocalEnd(NamedTuple):
    """A session over a unix socket: the server's process, and the sockets it has open."""

    pid: int
    inodes: tuple[int, ...]


class Hop(NamedTuple):
    """A connection as the server's side has it."""

    netns: int
    local: Endpoint
    remote: Endpoint


class _Wanted(NamedTuple):
    """A connection, and its ends as its client has them."""

    hop: Hop
    client: Endpoint
    server: Endpoint


class ClientFinder:
    """Finds client processes."""

    def __init__(
        self,
        processes: Processes,
        namespaces: HostNamespaces,
        owners: OwnerReader,
        *,
        read_connections: ReadConnections,
        read_unix_ends: ReadUnixEnds,
        read_translations: ReadTranslations,
    ) -> None:
        self._processes = processes
        self._holders = HolderSearch(processes, owners)
        self._read_connections = read_connections
        self._read_unix_ends = read_unix_ends
        self._read_translations = read_translations
        self._namespaces = namespaces
        self._translated: dict[int, tuple[dict[tuple[Endpoint, Endpoint], Original], float]] = {}
        self.astray: set[Hop] = set()  # of the last search: their address is here, no socket has it

    def find(self, hops: Iterable[Hop], *, in_place: bool = False) -> dict[Hop, ClientProcess | None]:
        """The client of each; None where it is not here, or may not be seen. What time ran out for is absent.

        `in_place`: the client's ends are known to be in the hops' own namespaces.
        """
        found: dict[Hop, ClientProcess | None] = {}
        wanted: dict[int, list[_Wanted]] = {}
        self.astray = set()
        for hop in hops:
            netns = hop.netns if in_place else self._namespace_of(hop.remote.address, hop)
            if netns is None:
                found[hop] = None
            else:
                wanted.setdefault(netns, []).append(_Wanted(hop, hop.remote, hop.local))
        astray = self._in_namespaces(wanted, found)
        untranslated = self._untranslated(astray)
        known = {one.hop for there in untranslated.values() for one in there}
        astray = [lost for lost in astray if lost[1] not in known] + self._in_namespaces(untranslated, found)
        self.astray = {hop for _, hop in astray}
        return found | dict.fromkeys(self.astray)

    def _in_namespaces(
        self, wanted: dict[int, list[_Wanted]], found: dict[Hop, ClientProcess | None]
    ) -> list[tuple[int, Hop]]:
        """Adds to what was found; returns what has no socket in the namespace of its address."""
        deadline = time.monotonic() + BUDGET
        astray = []
        for netns, there in wanted.items():
            rows = self._rows(self._namespaces.pids(netns), sorted({one.server.port for one in there}))
            if rows is None:  # nothing follows from what may not be read
                found |= {one.hop: None for one in there}
                continue
            ends = {(row.local, row.remote): row for row in rows}
            inodes: dict[int, Hop] = {}
            users = set()
            for one in there:
                row = ends.get((one.client, one.server))
                if row is not None and row.inode:
                    inodes[row.inode] = one.hop
                    users.add(row.uid)
                elif row is not None:
                    found[one.hop] = None
                else:
                    astray.append((netns, one.hop))
            dialled = {one.hop: one.server for one in there if one.server != one.hop.local}
            holders = self._holders.find(netns, self._namespaces.pids(netns), inodes, users, deadline)
            missed = {inode: hop for inode, hop in inodes.items() if hop in holders and holders[hop] is None}
            if missed and self._namespaces.list_again(at_once=True):  # its process may have just begun
                holders |= self._holders.find(netns, self._namespaces.pids(netns), missed, users, deadline + BUDGET)
            for hop, client in holders.items():
                found[hop] = client._replace(dialled=dialled.get(hop)) if client is not None else None
        return astray

    def _untranslated(self, astray: list[tuple[int, Hop]]) -> dict[int, list[_Wanted]]:
        """Connections as their clients made them, before addresses were translated in one of the namespaces passed."""
        wanted: dict[int, list[_Wanted]] = {}
        for netns, hop in astray:
            tables = (self._translations(passed) for passed in dict.fromkeys((netns, hop.netns)))
            original = next(
                (table[hop.local, hop.remote] for table in tables if (hop.local, hop.remote) in table), None
            )
            home = self._namespace_of(original.client.address, hop) if original is not None else None
            if original is not None and home is not None:
                wanted.setdefault(home, []).append(_Wanted(hop, original.client, original.server))
        return wanted

    def _translations(self, netns: int) -> dict[tuple[Endpoint, Endpoint], Original]:
        """What is translated in a namespace, as of a few seconds ago at the most."""
        known, read_at = self._translated.get(netns, ({}, -_KEEP_TRANSLATIONS))
        if time.monotonic() - read_at < _KEEP_TRANSLATIONS:
            return known
        known = {}
        for pid in self._namespaces.pids(netns):
            try:
                known = self._read_translations(self._processes.net_directory(pid))
            except FileNotFoundError:
                if self._processes.stat(pid) is None:  # gone: another process of the namespace will do
                    continue
            except OSError:  # not for us to read
                pass
            break
        if len(self._translated) >= _TABLES:
            self._translated.clear()
        self._translated[netns] = known, time.monotonic()
        return known

    def find_local(self, ends: Iterable[LocalEnd]) -> dict[LocalEnd, ClientProcess | None]:
        """The same for sessions over unix sockets, whose client may be any process of the host."""
        deadline = time.monotonic() + BUDGET
        unknown, wanted = set(ends), dict[int, LocalEnd]()
        for _, pids in self._namespaces:
            if not unknown:
                break
            there = self._unix_ends(pids)
            met = {there[own].peer: end for end in unknown for own in end.inodes if own in there}
            wanted |= met
            unknown -= set(met.values())
        found: dict[LocalEnd, ClientProcess | None] = dict.fromkeys(unknown)
        if wanted:
            everybody = sorted(pid for _, pids in self._namespaces for pid in pids)
            found |= self._holders.find(_EVERYWHERE, everybody, wanted, None, deadline)
            missed = {inode: end for inode, end in wanted.items() if end in found and found[end] is None}
            if missed and self._namespaces.list_again(at_once=True):
                everybody = sorted(pid for _, pids in self._namespaces for pid in pids)
                found |= self._holders.find(_EVERYWHERE, everybody, missed, None, deadline + BUDGET)
        return found

    def _unix_ends(self, pids: Iterable[int]) -> dict[int, UnixEnd]:
        for pid in pids:
            try:
                return self._read_unix_ends(f"{self._processes.root}/{pid}")
            except FileNotFoundError:  # gone: another process of the namespace will do
                continue
            except OSError:  # not for us to enter
                break
        return {}

    # --- which namespace an address belongs to -------------------------------------------------------------------

    def _namespace_of(self, address: str, hop: Hop) -> int | None:
        if ip_address(address.partition("%")[0]).is_loopback or address == hop.local.address:
            return hop.netns
        return self._namespaces.of_address(address)

    # --- which sockets are there ----------------------------------------------------------------------------

    def _rows(self, pids: Iterable[int], ports: Sequence[int]) -> Sequence[Socket] | None:
        for pid in pids:
            try:
                return self._read_connections(f"{self._processes.root}/{pid}", ports)
            except OSError:  # gone: another process of the namespace will do
                continue
        return None
