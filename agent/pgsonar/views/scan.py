"""`pgsonar scan` as lines of text: who holds the slots of each server, at 80 columns or at 100.

The rule: pure, and nothing invented. What one look without a login cannot tell is named as not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pgsonar.ledger import holder_of
from pgsonar.model import LOCAL_HOST, Activity, Backend, Connection, Destination, Pooling, Sight, TcpState
from pgsonar.signals.words import age, count

# (letter, name), in the order in which the bar shows them.
_LETTERS = (
    ("T", "in transaction"),
    ("O", "client gone"),
    ("N", "no login yet"),
    ("a", "active"),
    (".", "idle"),
    ("s", "session"),
    ("?", "unaccounted"),
)

CLIENTS_SHOWN = 3  # processes of one holder
_BY_LOGIN = "locks held, application names, transaction ages"
_COLUMNS = "SLOTS IN-XACT ACTIVE IDLE LOGIN GONE  OLDEST"


def scan_lines(
    sights: Iterable[Sight],
    time: str,
    missing: Iterable[str],
    width: int,
    *,
    pooling: Iterable[Pooling] = (),
    destinations: Iterable[tuple[Destination, list[Connection]]] = (),
) -> list[str]:
    """The whole screen."""
    lines: list[str] = []
    for sight in sights:
        lines += [*server_lines(sight, time, width), ""]
    outgoing = [line for place, there in destinations for line in _outgoing(place, there, width)]
    if not lines and not outgoing:
        lines = [f"No PostgreSQL server found.  {time}", ""]
    for one in pooling:
        lines += [*_pooler(one, width), ""]
    lines += outgoing
    for sentence in missing:
        lines += _wrap("NOT SEEN     ", sentence, width)
    return [line.rstrip() for line in lines]


def server_lines(sight: Sight, time: str, width: int) -> list[str]:
    """One server: its slots as a bar, its holders as a table, what holds no slot."""
    server = sight.server
    title = f"{server.label}   {server.role or ''}   PostgreSQL {server.version or '?'}   {server.seen_by}   {time}"
    lines = [" ".join(title.split("  ")) if len(title) > width else title, *_slots(sight, width), ""]
    lines += _holders(sight, width) if sight.ledger.is_told else _peers(sight, width)
    lines += ["", *_no_slot(sight, width)]
    return lines


def _slots(sight: Sight, width: int) -> list[str]:
    limits, used = sight.server.limits, sight.ledger.used
    if not sight.ledger.is_told:
        sockets = Counter(c.socket.state.spelling for c in sight.connections)
        seen = ", ".join(f"{state} {n}" for state, n in sorted(sockets.items())) or "none"
        return _wrap("", f"SLOTS cannot be told without processes or a login. Sockets: {seen}", width)
    if limits.max_connections is None or limits.ceiling is None:
        head = f"SLOTS {used} used: the limit is unknown"
    else:
        full = used >= limits.ceiling
        have = f"({min(used, limits.ceiling)} of {limits.ceiling})"
        applications = f"applications are FULL {have}" if full else f"applications have {have[1:-1]}"
        guess = ", limit is a guess" if limits.guessed else ""
        head = f"SLOTS {used} of {limits.max_connections} used: {applications}, {limits.reserved or 0} reserved{guess}"
    letters = Counter(_letter(b) for b in sight.backends if holder_of(b) is not None)
    bar = _bar(letters, limits.max_connections, min(width, 100))
    legend = "  ".join(f"{letter} {name} {letters[letter]}" for letter, name in _LETTERS if letters[letter])
    return [*_wrap("", head, width), bar, *_wrap("", legend or "no slot is used", width)]


def _bar(letters: Counter[str], limit: int | None, room: int) -> str:
    """One character a slot, scaled down when there are more slots than columns; `_` is free."""
    used = sum(letters.values())
    total = max(limit or used, used, 1)
    scale = min(1.0, room / total)
    bar = ""
    done = 0
    for letter, _ in _LETTERS:
        done += letters[letter]
        # A holder that exists is shown, however small its share.
        end = max(round(done * scale), len(bar) + bool(letters[letter]))
        bar += letter * (end - len(bar))
    return (bar + "_" * (round(total * scale) - len(bar)))[: max(room, len(bar))]


def _letter(backend: Backend) -> str:
    holder = holder_of(backend)
    if holder == "orphan":
        return "O"
    if holder in ("authenticating", "starting"):
        return "N"
    if holder == "unaccounted":
        return "?"
    activity = backend.title.activity
    if activity is None:
        return "s"
    if activity in (Activity.IN_TRANSACTION, Activity.ABORTED):
        return "T"
    return "." if activity == Activity.IDLE else "a"


def _holders(sight: Sight, width: int) -> list[str]:
    """A row for each user, database and client address, the largest first."""
    groups: dict[tuple[str, str], list[Backend]] = {}
    for backend in sight.backends:
        if holder_of(backend) is not None:
            groups.setdefault(_holder(backend), []).append(backend)
    if not groups:
        return ["no sessions"]
    room = width - len(_COLUMNS) - 2
    name_room = room * 11 // 20
    lines = [f"{'HOLDER':<{name_room}} {'FROM':<{room - name_room}} {_COLUMNS}"]
    for (name, address), members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        letters = Counter(_letter(b) for b in members)
        oldest = age((sight.at - min(b.started for b in members)) / 1e9)
        lines.append(
            f"{_fit(name, name_room)} {_fit(address, room - name_room)} {len(members):>5} {letters['T']:>7} "
            f"{letters['a']:>6} {letters['.']:>4} {letters['N']:>5} {letters['O']:>4} {oldest:>7}"
        )
        clients = Counter(label for b in members if (label := _client(b)))
        lines += [f" by {_fit(label, room - 3)} {n:>5}" for label, n in clients.most_common(CLIENTS_SHOWN)]
    return lines


def _peers(sight: Sight, width: int) -> list[str]:
    """Who is connected, where nothing tells what their sessions do."""
    peers: dict[str, Counter[TcpState]] = {}
    for connection in sight.connections:
        peers.setdefault(connection.socket.remote.address, Counter())[connection.socket.state] += 1
    lines = [f"{'FROM':<40} ESTABLISHED CLOSE_WAIT"]
    for address, states in sorted(peers.items(), key=lambda item: -item[1].total()):
        lines.append(f"{_fit(address, 40)} {states[TcpState.ESTABLISHED]:>11} {states[TcpState.CLOSE_WAIT]:>10}")
    return lines if peers else _wrap("", "no connections", width)


def _holder(backend: Backend) -> tuple[str, str]:
    title = backend.title
    name = f"{title.user}@{title.database}" if title.user and title.database else title.user or title.text or "?"
    host = title.host or "?"
    if backend.via is not None:
        return name, f"via {backend.via.pooler.rpartition(':')[0]}"
    return name, "unix socket" if host == LOCAL_HOST else host


def _client(backend: Backend) -> str | None:
    """Who holds it, where that is known better than by the address: behind a pooler the application, or nobody."""
    via = backend.via
    if via is None:
        client = backend.connection.client if backend.connection is not None else None
        return client.label if client is not None else None
    if via.client is None:
        return None
    address = via.client.address or "unix socket"
    return via.process.label if via.process else f"{via.client.application or via.client.user}@{address}"


def _outgoing(place: Destination, connections: list[Connection], width: int) -> list[str]:
    """Connections from here to one database, and the processes that hold them."""
    states = Counter(c.socket.state.spelling for c in connections)
    told = ", ".join(f"{state} {number}" for state, number in states.most_common())
    lines = _wrap("", f"{place.label}   from here: {told}", width)
    holders = Counter((c.client.label if c.client else "?", c.socket.state == TcpState.CLOSE_WAIT) for c in connections)
    for (label, is_leak), number in holders.most_common(CLIENTS_SHOWN):
        lines.append(f" by {_fit(label, width - 44)} {number:>5}{' closed by the database, kept open' * is_leak}")
    return [*lines, ""]


def _pooler(pooling: Pooling, width: int) -> list[str]:
    """One pooler: both hops, and what its console tells of its pools."""
    pooler = pooling.pooler
    pids = ", ".join(map(str, pooler.pids))
    version = f" {pooling.reading.version}" if pooling.reading is not None else ""
    lines = [f"{pooler.label}   PgBouncer{version}   pid {pids}"]
    hops = f"{count(len(pooling.clients), 'socket')} of applications, {count(len(pooling.ends), 'socket')} to databases"
    lines += _wrap("HOPS         ", hops, width)
    if pooling.reading is None:
        lines += _wrap("NOT SEEN     ", "who waits, who holds which server: add receivers.pgbouncer", width)
        return lines
    for pool in pooling.reading.pools:
        waiting = f", {pool.clients_waiting} waiting for {age(pool.max_wait)}" if pool.clients_waiting else ""
        text = (
            f"{pool.user}@{pool.database} {pool.mode}: {pool.servers_active} of {pool.size or '?'} in use, "
            f"{pool.servers_idle} idle, {count(pool.clients_active, 'client')}{waiting}{', PAUSED' * pool.paused}"
        )
        lines += _wrap("POOL         ", text, width)
    return lines


def _no_slot(sight: Sight, width: int) -> list[str]:
    held = sight.ledger.no_slot
    states = Counter(c.socket.state for c in sight.connections)
    parts = [f"{name} {held.get(name, 0)}" for name in ("walsender", "worker", "prestartup")]
    parts.append(f"TIME_WAIT {states[TcpState.TIME_WAIT]}")
    waiting = sum(listener.socket.rx_queue for listener in sight.listeners)
    parts.append(f"accept queue {waiting}")
    lines = _wrap("NO SLOT      ", ", ".join(parts), width)
    lines += _wrap("SEEN WITH    ", _seen_with(sight), width)
    if sight.ledger.gap:
        said = f"pg_stat_activity would say {sight.ledger.database_sees}: {sight.ledger.cause}"
        lines = [*_wrap("TOTAL        ", f"{sight.ledger.used}; {said}", width), *lines]
    if sight.reading is None:
        lines += _wrap("NOT SEEN     ", f"{_BY_LOGIN}: add receivers.postgresql (pg_monitor, 1 slot)", width)
    for sentence in sight.server.missing:
        lines += _wrap("NOT SEEN     ", sentence, width)
    if sight.server.limits.max_connections is None:
        lines += _wrap("NOT SEEN     ", "the limit: give receivers.sockets.targets[].max_connections", width)
    return lines


def _seen_with(sight: Sight) -> str:
    with_inodes = any(b.inodes for b in sight.backends)
    joined = sum(1 for b in sight.backends if b.connection is not None)
    sources = (["process titles"] if sight.server.pid else []) + (["sockets"] if sight.server.netns else [])
    sources += (["descriptors"] if with_inodes else []) + (["login"] if sight.reading is not None else [])
    limit = [sight.server.limits.source] if sight.server.limits.max_connections is not None else []
    return ", ".join(sources + limit) + f"; {count(joined, 'session')} joined to a socket"


def _fit(text: str, room: int) -> str:
    return f"{text if len(text) <= room else text[: room - 1] + '~':<{room}}"


def _wrap(head: str, text: str, width: int) -> list[str]:
    lines, line = [], head
    for word in text.split(" "):
        if len(line) + len(word) + 1 > width and line.strip():
            lines.append(line.rstrip())
            line = " " * len(head)
        line += word + " "
    return [*lines, line.rstrip()]
