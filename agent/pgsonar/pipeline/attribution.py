"""Names the processes at the client's end of connections, where these run on this host or node.

The rule: looked for once, and only when somebody asks: a finding, or a command that shows them. Behind a pooler the
application is named, never the pooler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pgsonar.model import LOCAL_HOST, SECOND, Backend, Connection, Finding, Sight
from pgsonar.pipeline.world import ClientSource
from pgsonar.sources.clients import Hop, LocalEnd
from pgsonar.tracking.backends import note_local_client
from pgsonar.tracking.connections import note_client
from pgsonar.tracking.poolers import PoolerTable

# A client that was not found is looked for again: soon while it is young, since its process may have just begun.
SOON, LATE = 2 * SECOND, 60 * SECOND


class Attribution:
    """Asks the finder of client processes, and remembers the answers with the connections."""

    def __init__(self, finder: ClientSource, poolers: PoolerTable) -> None:
        self._finder = finder
        self._poolers = poolers

    def with_clients(self, findings: list[Finding], sights: Iterable[Sight], at: int) -> list[Finding]:
        """The findings with the processes behind them."""
        if not findings:
            return []
        backends = {(sight.server.id, b.pid): b for sight in sights for b in sight.backends}
        about = [backends.get((f.server, f.pid)) if f.pid is not None else None for f in findings]
        holding = {(f.server, pid) for f in findings for holder in f.holders for pid in holder.pids}
        self.name([b for b in (*about, *map(backends.get, holding)) if b is not None], at)
        named = (_with_client(f, b) if b is not None else f for f, b in zip(findings, about, strict=True))
        return [_with_processes(f, backends) if f.holders else f for f in named]

    def name(self, backends: Iterable[Backend], at: int) -> bool:
        """Looks for the clients of backends that were not looked for lately; whether it got round to all."""
        backends = list(backends)
        hops: dict[Hop, Connection] = {}
        behind: dict[Hop, Backend] = {}  # a pooler
        for backend in backends:
            far = self._poolers.hops(backend, at)
            if far is not None:
                behind[Hop(*far)] = backend
            near = backend.connection
            if near is not None and _is_due(near, at):
                hops[Hop(near.netns, near.socket.local, near.socket.remote)] = near
        found = self._finder.find(hops.keys() | behind.keys()) if hops or behind else {}
        for hop, client in found.items():
            if hop in hops:
                note_client(hops[hop], client, at, is_astray=hop in self._finder.astray)
            if hop in behind:
                self._poolers.note_process(behind[hop], client, at)
        local = {LocalEnd(b.pid, b.inodes or ()): b for b in backends if _is_local_and_due(b, at)}
        ends = self._finder.find_local(local) if local else {}
        for end, client in ends.items():
            note_local_client(local[end], client, at)
        return len(found) == len(hops.keys() | behind.keys()) and len(ends) == len(local)

    def name_outgoing(self, connections: Iterable[Connection], at: int) -> bool:
        """The same for connections from here to databases, which have the client's end for their local one."""
        hops = {Hop(c.netns, c.socket.remote, c.socket.local): c for c in connections if _is_due(c, at)}
        found = self._finder.find(hops, in_place=True) if hops else {}
        for hop, client in found.items():
            note_client(hops[hop], client, at)
        return len(found) == len(hops)


def _with_processes(finding: Finding, backends: Mapping[tuple[str, int], Backend]) -> Finding:
    """Each holder with the process behind most of its sessions that were looked for."""
    holders = []
    for holder in finding.holders:
        sessions = (backends.get((finding.server, pid)) for pid in holder.pids)
        clients = Counter(b.client for b in sessions if b is not None and b.client is not None)
        holders.append(replace(holder, process=next((client for client, _ in clients.most_common(1)), None)))
    return replace(finding, holders=tuple(holders))


def _with_client(finding: Finding, backend: Backend) -> Finding:
    """A proxy is called one, and that the application is another."""
    between = backend.between
    if between is None:
        return replace(finding, client=backend.client)
    return replace(
        finding,
        client=backend.client,
        evidence=finding.evidence | {"pgsonar.between": between},
        alternative=finding.alternative or f"the client comes through {between}: whose it is cannot be told from here",
    )


def _is_local_and_due(backend: Backend, at: int) -> bool:
    is_known = backend.local_client is not None or backend.via is not None
    if backend.title.host != LOCAL_HOST or not backend.inodes or is_known:
        return False
    return _is_time(backend.looked_for_client_at, backend.first_seen, at)


def _is_due(connection: Connection, at: int) -> bool:
    if connection.client is not None or connection.closed_at is not None:
        return False
    return _is_time(connection.looked_for_client_at, connection.opened_at, at)


def _is_time(looked_at: int | None, met_at: int, at: int) -> bool:
    return looked_at is None or at - looked_at >= min(max(SOON, looked_at - met_at), LATE)
