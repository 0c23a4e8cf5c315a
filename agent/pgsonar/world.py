"""The outside world, as the pipeline reads it: one field for each thing that looks at it.

The rule: no more than names and types; what is opened, and how, stands in opening.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgsonar.budget import Budget
from pgsonar.model import DatabaseReading, PoolerReading
from pgsonar.sources.applications import ApplicationFinder
from pgsonar.sources.backends import BackendReader
from pgsonar.sources.clients import ClientFinder
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.poller import Poller
from pgsonar.sources.poolers import PoolerFinder
from pgsonar.sources.serverlog import ServerLogs
from pgsonar.sources.servers import ServerFinder
from pgsonar.sources.sockets import Sampler


@dataclass(frozen=True)
class Sources:
    """What is configured; a part that is not is empty or None."""

    sampler: Sampler
    finder: ServerFinder
    backends: BackendReader
    owners: OwnerReader
    clients: ClientFinder
    listen_overflows: Callable[[str], int | None]
    budget: Budget
    poolers: PoolerFinder
    databases: tuple[Poller[DatabaseReading], ...] = ()
    consoles: tuple[Poller[PoolerReading], ...] = ()
    applications: ApplicationFinder | None = None
    names: Poller[dict[str, str]] | None = None  # of destinations, by address
    sees_servers: bool = True
    logs: ServerLogs | None = None
    source: str = "auto"
    destroy_events: str = "auto"
    proc: str = "/proc"
