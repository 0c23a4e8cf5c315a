"""Finds the PostgreSQL servers that run on this host, without a login.

The rule: a server is a postmaster; each has a key of its own, and joins the one target that agrees with it. What cannot
change is read once.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pgsonar.config.schema import Target
from pgsonar.model import Server
from pgsonar.sources.describing import Describer, ReadInodes, ReadSockets
from pgsonar.sources.limits import running_limits
from pgsonar.sources.names import ProcessNames
from pgsonar.sources.postmasters import PostmasterFinder
from pgsonar.sources.processes import Processes

DESCRIBE_EVERY = 10.0  # seconds
YOUNG = 60.0  # seconds in which a server that recovers may open its port
_TELLING = ("port", "data_directory", "netns", "pid")  # what servers of one key may differ in, the lasting first

_BY_SOCKETS = (
    "processes, so neither slots nor logins under way (share the process namespace, shareProcessNamespace: true in a "
    "pod, or add receivers.postgresql)"
)

log = logging.getLogger("pgsonar")


class ServerFinder:
    """Finds servers, and joins them with the targets of the configuration."""

    def __init__(
        self,
        processes: Processes,
        names: ProcessNames,
        *,
        read_table: ReadSockets,
        read_listeners: ReadSockets,
        read_inodes: ReadInodes,
        targets: Literal["auto"] | Sequence[Target],
        hostname: str,
        host_id: str | None,
    ) -> None:
        self._processes = processes
        self._names = names
        self._postmasters = PostmasterFinder(processes, names)
        self._describer = Describer(
            processes,
            read_table=read_table,
            read_listeners=read_listeners,
            read_inodes=read_inodes,
            hostname=hostname,
            host_id=host_id,
        )
        self._targets = targets
        self._hostname = hostname
        self._host_id = host_id
        self._known: dict[tuple[int, int], tuple[Server, float]] = {}
        self._matched: set[int] = set()
        self._shared: set[str] = set()  # keys of more than one server, told once

    def find(self) -> list[Server]:
        """The servers that run now; with targets listed, only those that agree with one."""
        known: dict[tuple[int, int], tuple[Server, float]] = {}
        self._names.look()
        self._matched = set()
        found = []
        for postmaster in self._postmasters.find():
            key = postmaster.pid, postmaster.started
            server, described = self._known.get(key, (None, 0.0))
            # A young server may not have opened its port yet, and an old one may be promoted.
            is_young = (
                postmaster.age < YOUNG
                and server is not None
                and (not server.listens_on or server.system_identifier is None)
            )
            is_due = time.monotonic() - described >= DESCRIBE_EVERY
            if server is None or server.port is None or is_young or is_due or key in self._describer.unread:
                server, described = self._describer.describe(postmaster), time.monotonic()
            known[key] = server, described
            joined = self._join(server)
            if joined is not None:
                found.append(joined)
        self._known = known
        self._describer.keep(known)
        return self._apart(found + self._by_sockets())

    def _apart(self, servers: list[Server]) -> list[Server]:
        """Gives servers that would share a key one of their own each, by the first thing they differ in."""
        shared = {key for key, count in Counter(server.id for server in servers).items() if count > 1}
        apart = []
        for server in servers:
            if server.id in shared:
                same = [other for other in servers if other.id == server.id]
                name = next(name for name in _TELLING if len({getattr(other, name) for other in same}) == len(same))
                self._warn_of_shared(server.id, name)
                server = replace(server, id=f"{server.id}#{getattr(server, name)}")  # noqa: PLW2901 - the same one
            apart.append(server)
        return apart

    def _warn_of_shared(self, key: str, name: str) -> None:
        if key not in self._shared:
            self._shared.add(key)
            log.warning(
                "more than one server is %s: they are told apart by their %s (one target each is better)", key, name
            )

    def unmatched(self) -> list[Target]:
        """Targets that no running server agreed with at the last look."""
        if self._targets == "auto":
            return []
        return [target for index, target in enumerate(self._targets) if index not in self._matched]

    def _by_sockets(self) -> list[Server]:
        """Targets of which no process can be seen, but something listens on their port: a sidecar sees no more."""
        targets = [] if self._targets == "auto" else list(enumerate(self._targets))
        lost = [(i, t) for i, t in targets if i not in self._matched and t.port and not (t.pid or t.data_directory)]
        if not lost:
            return []
        own = os.getpid() if self._processes.root == "/proc" else 0
        listening = {row.local.port for row in self._describer.listeners(own)} if own else set()
        servers = []
        for index, target in lost:
            if target.port in listening:
                self._matched.add(index)
                key = f"{self._host_id or self._hostname}:{target.port}"
                servers.append(_as_target(target, self._unseen(key, target.port)))
        return servers

    def _unseen(self, key: str, port: int) -> Server:
        return Server(
            id=key,
            pid=0,
            started=0,
            netns=self._describer.namespace(os.getpid()),
            port=port,
            address=self._hostname,
            missing=(_BY_SOCKETS,),
        )

    # --- targets -------------------------------------------------------------------------------------------------

    def _join(self, server: Server) -> Server | None:
        if self._targets == "auto":
            return server
        for index, target in enumerate(self._targets):
            if _agrees(target, server):
                self._matched.add(index)
                return _as_target(target, server)
        return None


def _agrees(target: Target, server: Server) -> bool:
    return (
        (target.pid is None or target.pid == server.pid)
        and (target.port is None or target.port == server.port)
        and (target.data_directory is None or _same_path(target.data_directory, server.data_directory))
    )


def _same_path(one: str, other: str | None) -> bool:
    return other is not None and os.path.normpath(one) == os.path.normpath(other)


def _as_target(target: Target, server: Server) -> Server:
    """The server by the names its target gives it; a configured limit serves where none could be read."""
    limits = server.limits
    if limits.max_connections is None and target.max_connections is not None:
        limits = running_limits(None, {}, None, files_changed=False, configured=target.max_connections)
    attributes = (("cluster", target.cluster), ("env", target.env))
    return replace(
        server,
        id=target.name or server.id,
        name=target.name,
        address=target.address or server.address,
        limits=limits,
        attributes=tuple((key, value) for key, value in attributes if value),
    )
