"""`pgsonar scan` as lines of text: who holds the slots of each server and why, at 80 columns or at 100.

The rule: pure, and nothing invented. What one look cannot tell is named, with what would change that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from pgsonar.episodes.verdicts import Look, Seen
from pgsonar.model import Connection, Destination, Pooling, Sight, TcpState
from pgsonar.signals.words import age, count, out_of
from pgsonar.tracking.client_side import NAMED
from pgsonar.views.holders import bar_lines, holder_lines, peer_lines
from pgsonar.views.layout import fit, wrap
from pgsonar.views.why import children_text, why_lines, would_say

BY_LOGIN = "locks held, application names, transaction ages, what the database counts"  # what only a login tells
PROCESSES_SHOWN = 3  # of one destination


def scan_lines(look: Look, width: int) -> list[str]:
    """The whole screen."""

    def clock(at: int) -> str:
        return f"{datetime.fromtimestamp(look.moment.unix_of(at) / 1e9, UTC):%H:%M:%SZ}"

    time = clock(look.moment.at)
    lines = [] if look.found_something else [f"No PostgreSQL server found.  {time}", ""]
    for seen in look.servers:
        lines += [*_server(seen, clock, width), ""]
    for one in look.poolings:
        lines += [*_pooler(one, width), ""]
    for place, there in look.destinations[:NAMED]:
        lines += _outgoing(place, there, width)
    if len(look.destinations) > NAMED:
        lines += [f"and {len(look.destinations) - NAMED} more databases, with fewer connections from here", ""]
    for sentence in look.missing:
        lines += wrap("NOT SEEN     ", sentence, width)
    return [line.rstrip() for line in lines]


def _server(seen: Seen, clock: Callable[[int], str], width: int) -> list[str]:
    """One server: its slots as a bar, what leaks, its holders as a table, what holds no slot."""
    sight, server = seen.sight, seen.sight.server
    parts = [server.label, server.role, f"PostgreSQL {server.version or '?'}", server.seen_by, clock(sight.at)]
    title = "   ".join(part for part in parts if part)
    lines = ["  ".join(title.split("   ")) if len(title) > width else title, *_slots(sight, width), ""]
    lines += [*why_lines(seen, clock, width), ""]
    lines += [*holder_lines(sight, seen.found, width), *_total(sight, width)] if sight.ledger.is_told else []
    lines += peer_lines(sight, width) if not sight.ledger.is_told else []
    return [*lines, "", *_no_slot(sight, width)]


def _slots(sight: Sight, width: int) -> list[str]:
    limits, used = sight.server.limits, sight.ledger.used
    if not sight.ledger.is_told:
        sockets = Counter(c.socket.state.spelling for c in sight.connections)
        seen = ", ".join(f"{state} {n}" for state, n in sorted(sockets.items())) or "none"
        return wrap("", f"SLOTS cannot be told without processes or a login. Sockets: {seen}", width)
    if limits.max_connections is None or limits.ceiling is None:
        return [*wrap("", f"SLOTS {used} used: the limit is unknown", width), *bar_lines(sight, width)]
    if used >= limits.ceiling:
        applications = f"applications FULL ({min(used, limits.ceiling)} of {limits.ceiling})"
    else:
        applications = f"applications have {used} of {limits.ceiling}"
    reserved = f", {limits.reserved} reserved for superusers" if limits.reserved else ""
    free = limits.max_connections - used
    if reserved and used >= limits.ceiling:
        reserved += " still free" if free >= (limits.reserved or 0) else f", {max(free, 0)} of them free"
    guess = ", limit is a guess" if limits.guessed else ""
    head = f"SLOTS {used} of {limits.max_connections} used: {applications}{reserved}{guess}"
    return [*wrap("", head, width), *bar_lines(sight, width)]


def _total(sight: Sight, width: int) -> list[str]:
    ledger = sight.ledger
    if ledger.gap:
        said: str | None = f"pg_stat_activity would say {ledger.database_sees}: {ledger.cause}"
    elif ledger.database_sees is None:
        said = would_say(sight.server, ledger.used, ledger.holders["authenticating"] + ledger.holders["starting"])
    else:
        said = None
    return wrap(f"TOTAL {ledger.used:<12} ", said, width) if said else [f"TOTAL {ledger.used}"]


def _outgoing(place: Destination, connections: list[Connection], width: int) -> list[str]:
    """Connections from here to one database, and the processes that hold them."""
    states = Counter(c.socket.state.spelling for c in connections)
    told = ", ".join(f"{state} {number}" for state, number in states.most_common())
    lines = wrap("", f"{place.label}   from here: {told}", width)
    holders = Counter((c.client.label if c.client else "?", c.socket.state == TcpState.CLOSE_WAIT) for c in connections)
    for (label, is_leak), number in holders.most_common(PROCESSES_SHOWN):
        lines.append(f" by {fit(label, width - 44)} {number:>5}{' closed by the database, kept open' * is_leak}")
    return [*lines, ""]


def _pooler(pooling: Pooling, width: int) -> list[str]:
    """One pooler: both hops, and what its console tells of its pools."""
    pooler = pooling.pooler
    pids = ", ".join(map(str, pooler.pids))
    version = f" {pooling.reading.version}" if pooling.reading is not None else ""
    lines = [f"{pooler.label}   PgBouncer{version}   pid {pids}"]
    ends = pooling.ends
    of_applications, to_databases = len(pooling.clients) + ends.unix_clients, len(ends.tcp) + len(ends.unix)
    hops = f"{count(of_applications, 'socket')} of applications, {count(to_databases, 'socket')} to databases"
    lines += wrap("HOPS         ", hops, width)
    if pooling.reading is None:
        lines += wrap("NOT SEEN     ", "who waits, who holds which server: add receivers.pgbouncer", width)
        return lines
    for pool in pooling.reading.pools:
        waiting = f", {pool.clients_waiting} waiting for {age(pool.max_wait)}" if pool.clients_waiting else ""
        text = (
            f"{pool.user}@{pool.database} {pool.mode}: {pool.servers_active} of {pool.size or '?'} in use, "
            f"{pool.servers_idle} idle, {count(pool.clients_active, 'client')}{waiting}{', PAUSED' * pool.paused}"
        )
        lines += wrap("POOL         ", text, width)
    return lines


def _no_slot(sight: Sight, width: int) -> list[str]:
    held = sight.ledger.no_slot
    states = Counter(c.socket.state for c in sight.connections)
    parts = [f"{name} {held.get(name, 0)}" for name in ("walsender", "worker")]
    parts.append(children_text(sight))
    parts.append(f"TIME_WAIT {states[TcpState.TIME_WAIT]}")
    parts.append(f"accept queue {out_of(sight.backlog, sight.backlog_limit)}")
    lines = wrap("NO SLOT      ", ", ".join(parts), width)
    lines += wrap("SEEN WITH    ", _seen_with(sight), width)
    if sight.reading is None:
        lines += wrap("NOT SEEN     ", f"{BY_LOGIN}: add receivers.postgresql (pg_monitor, 1 slot)", width)
    for sentence in sight.server.notes:
        lines += wrap("NOTE         ", sentence, width)
    for sentence in sight.server.missing:
        lines += wrap("NOT SEEN     ", sentence, width)
    if sight.server.limits.max_connections is None:
        lines += wrap("NOT SEEN     ", "the limit: give receivers.sockets.targets[].max_connections", width)
    return lines


def _seen_with(sight: Sight) -> str:
    with_inodes = any(b.inodes for b in sight.backends)
    joined = sum(1 for b in sight.backends if b.connection is not None)
    sources = (["process titles"] if sight.server.pid else []) + (["sockets"] if sight.server.netns else [])
    sources += (["descriptors"] if with_inodes else []) + (["login"] if sight.reading is not None else [])
    limit = [sight.server.limits.source] if sight.server.limits.max_connections is not None else []
    return ", ".join(sources + limit) + f"; {count(joined, 'session')} joined to a socket"
