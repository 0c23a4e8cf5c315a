"""Who holds the slots of a server: a bar with one letter a slot, and a row for each holder.

The rule: every slot is in the bar and in one row; rows beneath a row say more of the same slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pgsonar.episodes.verdicts import Verdict
from pgsonar.model import LOCAL_HOST, Activity, Backend, Sight, TcpState
from pgsonar.signals.words import age
from pgsonar.tracking.ledger import holder_of
from pgsonar.tracking.stillness import is_dated
from pgsonar.views.layout import fit, wrap

# (letter, name), in the order in which the bar shows them.
_LETTERS = (
    ("T", "in transaction"),
    ("O", "orphan"),
    ("N", "no login yet"),
    ("a", "active"),
    (".", "idle"),
    ("u", "idle, unix socket"),
    ("s", "session"),
    ("m", "monitoring"),
    ("?", "unaccounted"),
)
_HELD = {"orphan": "O", "authenticating": "N", "starting": "N", "unaccounted": "?"}
_WORDS = {
    "idle_in_transaction": "LEAK",
    "orphaned_backend": "ORPHANED",
    "orphaned_backend_no_socket": "ORPHANED",
    "auth_stuck": "AUTH STUCK",
    "half_open": "HALF OPEN",
    "network_path": "CUT OFF",
    "slow_reader": "SLOW READER",
    "long_query": "LONG QUERY",
}
_JOINED = "\N{NO-BREAK SPACE}"  # until lines are made
CLIENTS_SHOWN = 3  # processes of one holder
_COLUMNS = "SLOTS IN-XACT ACTIVE IDLE  OLDEST VERDICT   "


def bar_lines(sight: Sight, width: int) -> list[str]:
    """One character a slot, scaled down when there are more slots than columns, and what the letters say."""
    letters = Counter(_letter(b, sight) for b in sight.backends if holder_of(b) is not None)
    parts = (f"{letter} {name} {letters[letter]}" for letter, name in _LETTERS if letters[letter])
    legend = "  ".join(part.replace(" ", _JOINED) for part in parts)
    bar = _bar(letters, sight.server.limits.max_connections, min(width, 100))
    lines = wrap("", legend or "no slot is used", width)
    return [bar, *(line.replace(_JOINED, " ") for line in lines)]


def _bar(letters: Counter[str], limit: int | None, room: int) -> str:
    """`_` is free."""
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


def _letter(backend: Backend, sight: Sight) -> str:
    if sight.reading is not None and backend.inner_pid == sight.reading.own_pid:
        return "m"
    holder = holder_of(backend)
    if holder in _HELD:
        return _HELD[holder]
    idle = "u" if backend.title.host == LOCAL_HOST else "."
    known = {None: "s", Activity.IN_TRANSACTION: "T", Activity.ABORTED: "T", Activity.IDLE: idle}
    return known.get(backend.title.activity, "a")


def holder_lines(sight: Sight, found: Iterable[Verdict], width: int) -> list[str]:
    """A row for each user, database and client address, the largest first."""
    groups: dict[tuple[str, str], list[Backend]] = {}
    for backend in sight.backends:
        if holder_of(backend) is not None:
            groups.setdefault(_holder(backend), []).append(backend)
    if not groups:
        return ["no sessions"]
    leaking = {finding.pid: verdict.kind for verdict in found for finding in verdict.findings if finding.pid}
    room = width - len(_COLUMNS) - 2
    name_room = room * 11 // 20
    lines = [f"{'HOLDER':<{name_room}} {'FROM':<{room - name_room}} {_COLUMNS}".rstrip()]
    for (name, address), members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        kinds = Counter(leaking[b.pid] for b in members if b.pid in leaking)
        word = _WORDS.get(kinds.most_common(1)[0][0], "LEAK") if kinds else ""
        head = f"{fit(name, name_room)} {fit(address, room - name_room)}"
        lines.append(f"{head} {_figures(members, sight, word)}".rstrip())
        lines += _clients(members, leaking, sight, room + 1)
    return lines


def _figures(members: Sequence[Backend], sight: Sight, word: str) -> str:
    letters = Counter(_letter(b, sight) for b in members)
    ages = [seconds for b in members if (seconds := _seconds(b, sight)) is not None]
    oldest = age(max(ages)).replace(" ", "") if ages else "-"
    idle = letters["."] + letters["u"]
    return f"{len(members):>5} {letters['T']:>7} {letters['a']:>6} {idle:>4} {oldest:>7} {word}"


def _seconds(backend: Backend, sight: Sight) -> float | None:
    """How long it has done what it does; None while nothing dates it."""
    return (sight.at - backend.activity_since) / 1e9 if is_dated(backend) else None


def _clients(members: Sequence[Backend], leaking: dict[int, str], sight: Sight, room: int) -> list[str]:
    """The processes of one holder, or behind a pooler the applications."""
    clients: dict[str, list[Backend]] = {}
    for backend in members:
        label = _client(backend)
        if label is not None:
            clients.setdefault(label, []).append(backend)
    lines = []
    for label, theirs in sorted(clients.items(), key=lambda item: -len(item[1]))[:CLIENTS_SHOWN]:
        client = theirs[0].client
        is_culprit = any(b.pid in leaking for b in theirs) and not (client is not None and client.is_proxy)
        word = "<- culprit" if is_culprit else ""
        lines.append(f"{fit(f' by {label}', room)} {_figures(theirs, sight, word)}".rstrip())
    return lines


def peer_lines(sight: Sight, width: int) -> list[str]:
    """Who is connected, where nothing tells what their sessions do."""
    peers: dict[str, Counter[TcpState]] = {}
    for connection in sight.connections:
        peers.setdefault(connection.socket.remote.address, Counter())[connection.socket.state] += 1
    lines = [f"{'FROM':<40} ESTABLISHED CLOSE_WAIT"]
    for address, states in sorted(peers.items(), key=lambda item: -item[1].total()):
        lines.append(f"{fit(address, 40)} {states[TcpState.ESTABLISHED]:>11} {states[TcpState.CLOSE_WAIT]:>10}")
    return lines if peers else wrap("", "no connections", width)


def _holder(backend: Backend) -> tuple[str, str]:
    title, user, database = backend.title, backend.user, backend.database
    name = f"{user}@{database}" if user and database else user or title.names or title.text or "?"
    host = title.host or "?"
    if backend.via is not None:
        return name, f"pgbouncer {backend.via.pooler.rpartition(':')[0]}"
    return name, "unix socket" if host == LOCAL_HOST else host


def _client(backend: Backend) -> str | None:
    """Who holds it, where that is known better than by the address: behind a pooler the application, or nobody."""
    process, via = backend.client, backend.via
    if process is not None:
        return process.label
    if via is None or via.client is None:
        return None
    return f"{via.client.application or via.client.user}@{via.client.address or 'unix socket'}"
