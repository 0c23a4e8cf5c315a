"""The network namespaces of this host or node, by the processes in them, and which addresses each has.

The rule: listed anew as often as that takes little of the time; a process that may not be looked into is in none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pgsonar.sources.processes import Processes

OFTEN, SELDOM = 2.0, 60.0  # seconds until the namespaces of the host are listed anew, which depends on
SHARE = 300  # times what it takes
AT_ONCE = 0.5  # and for a process that has just begun, SHARE_AT_ONCE times that
SHARE_AT_ONCE = 30


def pause(cost: float) -> float:
    """Seconds until something that took so many is done again."""
    return min(max(OFTEN, SHARE * cost), SELDOM)


_LOCAL = re.compile(r"^\s+\|-- (\S+)\n\s+/32 host LOCAL$", re.MULTILINE)  # net/ipv4/fib_trie.c


@dataclass(slots=True)
class _Namespace:
    pids: list[int] = field(default_factory=list)
    addresses: set[str] | None = None  # None: not read yet


class HostNamespaces:
    """Those that processes of this host are in, by inode."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._namespaces: dict[int, _Namespace] = {}
        self._due = 0.0
        self._due_at_once = 0.0

    def list_again(self, *, at_once: bool = False) -> bool:
        """Lists them, if that was not done lately; whether it was done now. `at_once`: somebody is missed."""
        if time.monotonic() < (self._due_at_once if at_once else self._due):
            return False
        begun = time.thread_time()
        namespaces: dict[int, _Namespace] = {}
        for pid in self._processes.pids():
            netns = self._processes.network_namespace(pid)
            if netns is not None:
                namespaces.setdefault(netns, _Namespace()).pids.append(pid)
        self._namespaces = namespaces
        now, cost = time.monotonic(), time.thread_time() - begun
        self._due = now + pause(cost)
        self._due_at_once = now + max(AT_ONCE, SHARE_AT_ONCE * cost)
        return True

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Each with its processes."""
        self.list_again()
        return iter([(netns, namespace.pids) for netns, namespace in self._namespaces.items()])

    def pids(self, netns: int) -> list[int]:
        """The processes of one."""
        self.list_again()
        return self._namespaces[netns].pids if netns in self._namespaces else []

    def of_address(self, address: str) -> int | None:
        """The one that has an address, which is not a loopback's; None where none of this host has it."""
        for attempt in (False, True):
            if attempt and not self.list_again():
                return None
            for netns, namespace in self._namespaces.items():
                if namespace.addresses is None:
                    namespace.addresses = self._addresses(namespace.pids)
                if address in namespace.addresses:
                    return netns
        return None

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
