"""The outside world as it was recorded: the same questions, answered from what was written down.

The rule: an answer is what was known at the tick that is played. A question that was not asked then is answered with
what is known, or not at all: nothing is made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Generic, TypeVar

from pgsonar.model import (
    BackendSighting,
    ChangeKind,
    ClientProcess,
    ClientSide,
    Details,
    LogCounts,
    Pooler,
    PoolerEnds,
    ScanStats,
    Server,
)
from pgsonar.sources.answers import Answers, aged
from pgsonar.sources.clients import Hop, LocalEnd
from pgsonar.sources.entries import Change

Answer = TypeVar("Answer")

_NEVER_SCANNED = ScanStats(*[0] * len(ScanStats._fields))


class RecordedSampler:
    """Stands in for sources.sockets.Sampler."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.waiting: list[Change] = []

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
    ) -> None:
        """What was watched is recorded; nothing else can be."""

    def set_ports(self, netns: int, ports: Collection[int], *, remote_too: bool = False) -> None:
        """The same."""

    def unwatch(self, netns: int) -> None:
        self._answers.forget(netns)

    def changes(self) -> list[Change]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def open_connections(self, netns: int) -> list[Change]:
        there = self._answers.connections.get(netns, {})
        return [(number, at, netns, ChangeKind.OPENED, 0, socket, None) for number, (at, socket) in there.items()]

    def details(self, netns: int) -> dict[int, Details]:
        there, at = self._answers.details.get(netns, {}), self._answers.details_at.get(netns, 0)
        return {number: aged(details, at) for number, details in there.items()}

    def stats(self, netns: int) -> ScanStats:
        return self._answers.stats.get(netns, _NEVER_SCANNED)


class RecordedBackends:
    """Stands in for sources.backends.BackendReader."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def read(self, server: Server, *, at: int) -> list[BackendSighting]:
        seen = self._answers.looks.get(server.id, {}).values()
        return [BackendSighting(s.pid, s.started, s.title, s.switches, at, s.inner_pid) for s in seen]

    def forget(self, server: Server) -> None:
        """Nothing is kept here."""


class RecordedOwners:
    """Stands in for sources.owners.OwnerReader."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def inodes(self, pid: int, *, postmaster: int) -> tuple[int, ...] | None:
        _ = postmaster
        return self._answers.inodes.get(pid, ())

    def forget(self, postmaster: int) -> None:
        """Nothing is kept here."""


class RecordedClients:
    """Stands in for sources.clients.ClientFinder: what was not looked for then is not found yet."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.astray: set[Hop] = set()

    def find(self, hops: Iterable[Hop], *, in_place: bool = False) -> dict[Hop, ClientProcess | None]:
        _ = in_place
        known = {hop: self._answers.clients[hop] for hop in hops if hop in self._answers.clients}
        self.astray = {hop for hop, (_, is_astray) in known.items() if is_astray}
        return {hop: client for hop, (client, _) in known.items()}

    def find_local(self, ends: Iterable[LocalEnd]) -> dict[LocalEnd, ClientProcess | None]:
        known = self._answers.local_clients
        return {end: known[end] for end in ends if end in known}


class RecordedFinder:
    """Stands in for sources.servers.ServerFinder."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def find(self) -> list[Server]:
        return list(self._answers.servers)


class RecordedSides:
    """Stands in for sources.applications.ApplicationFinder."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def find(self) -> list[ClientSide]:
        return list(self._answers.sides)


class RecordedPoolers:
    """Stands in for sources.poolers.PoolerFinder."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def find(self) -> list[Pooler]:
        return list(self._answers.poolers)

    def ends(self, pooler: Pooler, ports: Sequence[int]) -> PoolerEnds:
        _ = ports
        return self._answers.ends.get(pooler.id, PoolerEnds({}))


class RecordedPoller(Generic[Answer]):
    """Stands in for sources.poller.Poller."""

    def __init__(self) -> None:
        self.holds = 0
        self.problem: str | None = None
        self._latest: Answer | None = None

    def put(self, answer: Answer, holds: int) -> None:
        """The answer that is taken next."""
        self._latest, self.holds = answer, holds

    def take(self) -> Answer | None:
        latest, self._latest = self._latest, None
        return latest


class RecordedLogs:
    """Stands in for sources.serverlog.ServerLogs. Lines are not recorded, only how many there were."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def read(self, servers: Sequence[Server]) -> dict[str, LogCounts]:
        _ = servers
        told = self._answers.logs.items()
        return {
            server: LogCounts(Counter(log.by_class), {}, log.skipped_bytes, Counter(log.by_name))
            for server, log in told
        }

    def problems(self) -> list[str]:
        return []


class RecordedPace:
    """Stands in for budget.Budget."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    @property
    def interval(self) -> float:
        return self._answers.pace.interval

    @property
    def patience(self) -> int:
        return self._answers.pace.patience

    @property
    def reason(self) -> str:
        return self._answers.pace.reason
