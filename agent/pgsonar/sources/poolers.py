"""Finds the PgBouncer processes of this host, without their console.

The rule: a pooler is a listening PgBouncer process; processes that share a port are one pooler. Its configuration is
read where that is allowed, and passwords in it are not kept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pgsonar.model import Pooler, PoolerEnds, Socket
from pgsonar.sources.clients import ReadConnections, ReadUnixEnds
from pgsonar.sources.names import ProcessNames
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.processes import Processes
from pgsonar.sources.regular import SETTINGS_MOST, read_regular
from pgsonar.sources.settings import whole_number

Told = TypeVar("Told")

NAMES = ("pgbouncer",)
_DEFAULT_PORT = 6432
_DESCRIBE_EVERY = 10.0  # seconds
_KEPT = frozenset(  # of its settings; what is not here may be a secret
    (
        "listen_addr",
        "listen_port",
        "unix_socket_dir",
        "so_reuseport",
        "pool_mode",
        "default_pool_size",
        "max_client_conn",
        "min_pool_size",
        "reserve_pool_size",
        "query_wait_timeout",
        "server_idle_timeout",
        "server_lifetime",
        "client_idle_timeout",
        "idle_transaction_timeout",
    )
)
_SOCKET = "/.s.PGSQL."  # what listens for clients of PostgreSQL is called so, PgBouncer's too
_DEPTH = 10


class PoolerFinder:
    """Finds poolers."""

    def __init__(
        self,
        processes: Processes,
        names: ProcessNames,
        owners: OwnerReader,
        *,
        read_listeners: Callable[[str], Sequence[Socket]],
        read_connections: ReadConnections,
        read_unix_ends: ReadUnixEnds,
        hostname: str,
    ) -> None:
        self._processes = processes
        self._names = names
        self._owners = owners
        self._read_listeners = read_listeners  # of a process, such as /proc/1234
        self._read_connections = read_connections
        self._read_unix_ends = read_unix_ends
        self._hostname = hostname
        self._known: dict[tuple[int, int], tuple[Pooler, float]] = {}

    def find(self) -> list[Pooler]:
        """The poolers that run now."""
        known: dict[tuple[int, int], tuple[Pooler, float]] = {}
        by_port: dict[tuple[int, int | None], Pooler] = {}
        for pid in sorted(self._names.called(NAMES)):
            stat = self._processes.stat(pid)
            if stat is None or stat.state in "ZX":
                continue
            key = pid, stat.started
            pooler, at = self._known.get(key, (None, 0.0))
            if pooler is None or time.monotonic() - at >= _DESCRIBE_EVERY:
                pooler, at = self._describe(pid), time.monotonic()
            known[key] = pooler, at
            place = pooler.netns, pooler.port if pooler.port is not None else -pid
            same = by_port.get(place)
            by_port[place] = pooler if same is None else _together(same, pooler)
        self._known = known
        return list(by_port.values())

    def ends(self, pooler: Pooler, ports: Sequence[int]) -> PoolerEnds:
        """Its own ends of connections.

        Those to these ports of databases are told by inode or, where that is refused, by user; those over unix sockets
        by inode alone.
        """
        inodes: set[int] = set()
        users: set[int | None] = set()
        for pid in pooler.pids:
            held = self._owners.inodes(pid, postmaster=pid, first_only=False)
            self._owners.forget(pid)
            inodes.update(held or ())
            users.update([self._processes.uid(pid)] if held is None else [])
        tcp = {
            row.local: row.state
            for row in self._ask(pooler, lambda process: self._read_connections(process, ports))
            if row.remote.port in ports and row.inode and (row.inode in inodes or row.uid in users)
        }
        local = dict(self._ask(pooler, lambda process: self._read_unix_ends(process).items()))
        own = [local[inode] for inode in inodes if inode in local]  # a journal's or a bus's are among them
        unix = frozenset(end.peer for end in own if end.peer in local and _SOCKET in local[end.peer].path)
        return PoolerEnds(tcp, unix, sum(_SOCKET in end.path for end in own))

    def _ask(self, pooler: Pooler, read: Callable[[str], Iterable[Told]]) -> Iterable[Told]:
        """What is read of the first of its processes that is there yet."""
        for pid in pooler.pids:
            try:
                return read(f"{self._processes.root}/{pid}")
            except OSError:
                continue
        return ()

    def _describe(self, pid: int) -> Pooler:
        missing: list[str] = []
        config = self._config_file(pid)
        settings = self._settings(pid, config) if config is not None else None
        if settings is None:
            missing.append(f"the configuration of PgBouncer (pid {pid}): run as its user, or with CAP_DAC_READ_SEARCH")
        listening = self._listening(pid, settings or {}, missing)
        port = listening[0].local.port if listening else None
        addresses = frozenset(row.local.address for row in listening)
        netns = self._processes.network_namespace(pid) or 0
        only = next(iter(addresses)) if len(addresses) == 1 else None
        address = only if only not in {None, "0.0.0.0", "::"} else self._hostname  # noqa: S104 - compared with
        return Pooler(
            id=f"{self._hostname}:{netns}:{port if port is not None else pid}",
            pids=(pid,),
            netns=netns,
            port=port,
            address=address or self._hostname,
            addresses=addresses,
            socket_directories=frozenset(filter(None, [(settings or {}).get("unix_socket_dir")])),
            config_file=config,
            settings=tuple(sorted((settings or {}).items())),
            missing=tuple(missing),
            is_here=netns in {0, self._processes.network_namespace(os.getpid())},
        )

    def _config_file(self, pid: int) -> str | None:
        """The last argument, against the directory it was started in."""
        arguments = [part for part in self._processes.cmdline(pid).split(b"\0") if part]
        if len(arguments) < 2 or arguments[-1].startswith(b"-"):
            return None
        path = os.fsdecode(arguments[-1])
        if path.startswith("/"):
            return path
        directory = self._processes.link(pid, "cwd")
        return f"{directory}/{path}" if directory else None

    def _listening(self, pid: int, settings: dict[str, str], missing: list[str]) -> list[Socket]:
        """Its listening sockets: by inode, else by what its configuration says, else by its user and usual port."""
        try:
            rows = list(self._read_listeners(f"{self._processes.root}/{pid}"))
        except OSError:
            return []
        inodes = self._owners.inodes(pid, postmaster=pid, first_only=False)
        self._owners.forget(pid)
        if inodes is not None:
            return [row for row in rows if row.inode in inodes]
        missing.append(f"the sockets of PgBouncer (pid {pid}): run as its user, or with CAP_SYS_PTRACE")
        port = whole_number(settings.get("listen_port")) or _DEFAULT_PORT
        return [row for row in rows if row.local.port == port and row.uid == self._processes.uid(pid)]

    def _settings(self, pid: int, path: str) -> dict[str, str] | None:
        settings: dict[str, str] = {}
        return settings if self._read(pid, path, settings, 0) else None

    def _read(self, pid: int, path: str, settings: dict[str, str], depth: int) -> bool:
        """The [pgbouncer] section of a file and of what it includes (https://www.pgbouncer.org/config.html)."""
        try:
            seen: Path = self._processes.path_seen_by(pid, path)
            text = read_regular(seen, SETTINGS_MOST).decode("utf-8", "replace")
        except OSError:
            return False
        section = "pgbouncer" if depth else ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("%include") and depth < _DEPTH:
                self._read(pid, os.path.join(os.path.dirname(path), line[8:].strip()), settings, depth + 1)
            elif line.startswith("["):
                section = line.strip("[] ").lower()
            elif section == "pgbouncer" and line[:1] not in {";", "#", ""}:
                name, _, value = line.partition("=")
                if name.strip().lower() in _KEPT:
                    settings[name.strip().lower()] = value.strip()
        return True


def _together(one: Pooler, other: Pooler) -> Pooler:
    return Pooler(
        id=one.id,
        pids=(*one.pids, *other.pids),
        netns=one.netns,
        port=one.port,
        address=one.address,
        addresses=one.addresses | other.addresses,
        socket_directories=one.socket_directories | other.socket_directories,
        config_file=one.config_file,
        settings=one.settings,
        missing=(*one.missing, *other.missing),
        is_here=one.is_here,
    )
