"""The outside world, as the pipeline reads it: one field for each thing that looks at it, and what is asked of it.

The rule: no more than names and types. What is opened, and how, stands in daemon.opening; what was recorded answers the
same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pgsonar.model import (
    BackendSighting,
    ClientProcess,
    ClientSide,
    DatabaseReading,
    Details,
    LogCounts,
    Pooler,
    PoolerEnds,
    PoolerReading,
    ScanStats,
    Server,
)
from pgsonar.sources.clients import Hop, LocalEnd
from pgsonar.sources.sockets import SocketChange

Answer_co = TypeVar("Answer_co", covariant=True)


class SocketSource(Protocol):
    """What changes in the kernel's tables; see sources.sockets.Sampler."""

    def watch(
        self,
        netns: int,
        net_directory: str,
        ports: Collection[int],
        *,
        remote_too: bool = False,
        netns_file: str | None = None,
        source: str = "auto",
        events: str = "auto",
    ) -> None: ...
    def set_ports(self, netns: int, ports: Collection[int], *, remote_too: bool = False) -> None: ...
    def unwatch(self, netns: int) -> None: ...
    def changes(self) -> Iterable[SocketChange]: ...
    def open_connections(self, netns: int) -> Iterable[SocketChange]: ...
    def details(self, netns: int) -> Mapping[int, Details]: ...
    def stats(self, netns: int) -> ScanStats: ...


class ServerSource(Protocol):
    def find(self) -> list[Server]: ...


class BackendSource(Protocol):
    def read(self, server: Server, *, at: int) -> list[BackendSighting]: ...
    def forget(self, server: Server) -> None: ...


class InodeSource(Protocol):
    def inodes(self, pid: int, *, postmaster: int) -> tuple[int, ...] | None: ...
    def forget(self, postmaster: int) -> None: ...


class ClientSource(Protocol):
    @property
    def astray(self) -> Collection[Hop]: ...
    def find(self, hops: Iterable[Hop], *, in_place: bool = False) -> dict[Hop, ClientProcess | None]: ...
    def find_local(self, ends: Iterable[LocalEnd]) -> dict[LocalEnd, ClientProcess | None]: ...


class PoolerSource(Protocol):
    def find(self) -> list[Pooler]: ...
    def ends(self, pooler: Pooler, ports: Sequence[int]) -> PoolerEnds: ...


class SideSource(Protocol):
    def find(self) -> list[ClientSide]: ...


class AnswerSource(Protocol[Answer_co]):
    """Who is asked in a thread of its own; see sources.poller.Poller."""

    @property
    def holds(self) -> int: ...
    @property
    def problem(self) -> str | None: ...
    def take(self) -> Answer_co | None: ...


class LogSource(Protocol):
    def read(self, servers: Sequence[Server]) -> dict[str, LogCounts]: ...
    def problems(self) -> list[str]: ...


class ClientProbe(Protocol):
    """Asks clients whether they are still there; see sources.keepalive.KeepaliveProbe."""

    @property
    def problem(self) -> str | None: ...
    def ask(self, pid: int, inode: int, at: int) -> None: ...
    def settle(self, at: int, silent: Collection[int]) -> None: ...
    def close(self) -> None: ...


class Pace(Protocol):
    """How often is looked; see budget.Budget."""

    @property
    def interval(self) -> float: ...
    @property
    def patience(self) -> int: ...
    @property
    def reason(self) -> str: ...


@dataclass(frozen=True)
class Sources:
    """What is configured; a part that is not is empty or None."""

    sampler: SocketSource
    finder: ServerSource
    backends: BackendSource
    owners: InodeSource
    clients: ClientSource
    listen_overflows: Callable[[str], int | None]
    budget: Pace
    poolers: PoolerSource
    databases: Sequence[AnswerSource[DatabaseReading]] = ()
    consoles: Sequence[AnswerSource[PoolerReading]] = ()
    applications: SideSource | None = None
    names: AnswerSource[dict[str, str]] | None = None  # of destinations, by address
    sees_servers: bool = True
    logs: LogSource | None = None
    probe: ClientProbe | None = None
    source: str = "auto"
    destroy_events: str = "auto"
    proc: str = "/proc"
