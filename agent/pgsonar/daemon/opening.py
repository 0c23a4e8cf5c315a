"""The outside world, opened as configured.

The rule: what is not configured is not imported either, for the memory it takes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pgsonar.config.schema import Config, Section
from pgsonar.model import DatabaseReading, PoolerReading
from pgsonar.pipeline.budget import Budget
from pgsonar.pipeline.world import ClientProbe, Sources
from pgsonar.sources.applications import ApplicationFinder
from pgsonar.sources.backends import BackendReader
from pgsonar.sources.clients import ClientFinder
from pgsonar.sources.conntrack import read_translations
from pgsonar.sources.hostnamespaces import HostNamespaces
from pgsonar.sources.names import ProcessNames
from pgsonar.sources.netstat import listen_overflows
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.poller import Poller
from pgsonar.sources.poolers import PoolerFinder
from pgsonar.sources.processes import Processes
from pgsonar.sources.resolver import Resolver
from pgsonar.sources.servers import ServerFinder
from pgsonar.sources.sockets import Sampler, read_connections, read_listeners, read_table
from pgsonar.sources.unixdiag import read_unix_ends
from pgsonar.tracking.client_side import ports_of

if TYPE_CHECKING:
    from pgsonar.sources.serverlog import ServerLogs

Answer = TypeVar("Answer")

IDLE_EVERY = 30.0  # seconds
RESOLVE = 60.0  # seconds between two looks at what names of targets resolve to


def host_id() -> str | None:
    """The machine id (man 5 machine-id), which outlives the host name."""
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def idle_every(config: Config) -> float:
    """Seconds between two looks at the context switches of an idle session: often enough for what idle_leak asks."""
    return IDLE_EVERY if config.leaks is None else min(IDLE_EVERY, config.leaks.idle_leak.idle_after / 10)


@dataclass(frozen=True)
class OpenSources(Sources):
    """The outside world itself: what must be started, can be asked more than the pipeline asks, and must be closed."""

    sampler: Sampler
    finder: ServerFinder
    budget: Budget
    databases: tuple[Poller[DatabaseReading], ...] = ()
    consoles: tuple[Poller[PoolerReading], ...] = ()
    applications: ApplicationFinder | None = None
    names: Poller[dict[str, str]] | None = None
    logs: ServerLogs | None = None

    def pollers(self) -> list[Poller[Any]]:
        """Everybody who is asked in a thread of its own."""
        return [*self.databases, *self.consoles, *([self.names] if self.names else [])]


def open_sources(config: Config, sampler: Sampler | None = None) -> OpenSources:
    """The outside world as configured, seen by a sampler that runs already or by a new one, which the caller closes."""
    processes = Processes()
    names = ProcessNames(processes)
    namespaces = HostNamespaces(processes)
    postmasters = OwnerReader()
    finder = ServerFinder(
        processes,
        names,
        read_table=read_table,
        read_listeners=read_listeners,
        read_inodes=lambda pid: postmasters.inodes(pid, postmaster=pid, first_only=False),
        targets=config.sockets.targets,
        hostname=socket.gethostname(),
        host_id=host_id(),
    )
    return OpenSources(
        sampler=sampler or Sampler(config.sockets.interval),
        finder=finder,
        backends=BackendReader(processes, idle_every(config)),
        owners=OwnerReader(),
        clients=ClientFinder(
            processes,
            namespaces,
            OwnerReader(),
            read_connections=read_connections,
            read_unix_ends=read_unix_ends,
            read_translations=read_translations,
        ),
        listen_overflows=listen_overflows,
        budget=Budget(config.sockets.max_cpu, config.sockets.interval),
        poolers=PoolerFinder(
            processes,
            names,
            OwnerReader(),
            read_listeners=read_listeners,
            read_connections=read_connections,
            read_unix_ends=read_unix_ends,
            hostname=socket.gethostname(),
        ),
        applications=ApplicationFinder(processes, namespaces, read_connections, ports_of(config.sockets.targets))
        if config.sockets.side != "server"
        else None,
        names=open_names(config),
        sees_servers=config.sockets.side != "client",
        databases=open_databases(config),
        consoles=open_consoles(config),
        logs=open_logs(config, processes),
        probe=open_probe(config),
        source=config.sockets.source,
        destroy_events=config.sockets.destroy_events,
    )


def reopen_sources(open_now: OpenSources, before: Config, config: Config) -> OpenSources:
    """The outside world as another configuration has it. What that does not change is kept as it is.

    The caller starts the pollers that are new and stops those that are gone.
    """
    same = (config.sockets, idle_every(config)) == (before.sockets, idle_every(before))
    sources = open_now if same else open_sources(config, open_now.sampler)
    is_probing = open_now.probe is not None
    return replace(
        sources,
        databases=_kept(open_now.databases, before.postgresql, config.postgresql, open_databases(config)),
        consoles=_kept(open_now.consoles, before.pgbouncer, config.pgbouncer, open_consoles(config)),
        names=open_now.names if same else sources.names,
        logs=open_now.logs if config.serverlog == before.serverlog else reopen_logs(open_now.logs, config),
        probe=open_now.probe if is_probing and wants_probe(config) else open_probe(config),
    )


def _kept(
    pollers: Iterable[Poller[Answer]],
    before: Mapping[str, Section],
    after: Mapping[str, Section],
    fresh: Iterable[Poller[Answer]],
) -> tuple[Poller[Answer], ...]:
    """The fresh pollers, but for those whose receiver has not changed: these go on."""
    same = {f"receivers.{key}" for key, section in after.items() if before.get(key) == section}
    running = {poller.name: poller for poller in pollers if poller.name in same}
    return tuple(running.get(poller.name, poller) for poller in fresh)


def open_logs(config: Config, processes: Processes) -> ServerLogs | None:
    """The readers of the logs that are configured."""
    if not config.serverlog:
        return None
    from pgsonar.sources.serverlog import LogReader, ServerLogs  # noqa: PLC0415 - for those who read logs

    return ServerLogs([LogReader(log.include, log.format) for log in config.serverlog.values()], processes)


def reopen_logs(open_now: ServerLogs | None, config: Config) -> ServerLogs | None:
    """The readers that are configured now, which go on where the others were."""
    logs = open_logs(config, Processes())
    if logs is not None and open_now is not None:
        logs.take_over(open_now)
    return logs


def wants_probe(config: Config) -> bool:
    """Whether clients may be asked if they are still there."""
    return config.leaks is not None and config.leaks.half_open.probe


def open_probe(config: Config) -> ClientProbe | None:
    """What asks clients whether they are still there; None unless that is wanted."""
    if not wants_probe(config):
        return None
    from pgsonar.sources.keepalive import KeepaliveProbe  # noqa: PLC0415 - ctypes, for those who ask

    return KeepaliveProbe()


def open_databases(config: Config) -> tuple[Poller[DatabaseReading], ...]:
    """A poller for each login, not started."""
    if not config.postgresql:
        return ()
    from pgsonar.sources.activity import ActivityReader  # noqa: PLC0415 - 11 MB, for those who configure a login
    from pgsonar.sources.login import Login  # noqa: PLC0415

    pollers = []
    for key, receiver in config.postgresql.items():
        login = Login(key, receiver, database="postgres")
        reader = ActivityReader(login, receiver.query_text)
        pollers.append(Poller(f"receivers.{key}", reader.read, login.close, receiver.collection_interval))
    return tuple(pollers)


def open_names(config: Config) -> Poller[dict[str, str]] | None:
    """What the names of databases elsewhere resolve to, not started; None where there is nothing to resolve."""
    targets = config.sockets.targets
    if config.sockets.side == "server" or targets == "auto":
        return None
    names = [target.address for target in targets if target.address]
    return Poller("receivers.sockets.targets", Resolver(names).read, lambda: None, RESOLVE) if names else None


def open_consoles(config: Config) -> tuple[Poller[PoolerReading], ...]:
    """A poller for each console of PgBouncer, not started."""
    if not config.pgbouncer:
        return ()
    from pgsonar.sources.login import Login  # noqa: PLC0415
    from pgsonar.sources.pgbouncer import DATABASE, ConsoleReader  # noqa: PLC0415

    pollers = []
    for key, receiver in config.pgbouncer.items():
        login = Login(key, receiver, database=DATABASE, guards=())
        pollers.append(Poller(f"receivers.{key}", ConsoleReader(login).read, login.close, receiver.collection_interval))
    return tuple(pollers)
