"""Why the slots of a server are used: the leaks that stand, what was looked for in vain, and what to do next.

The rule: the leak with most slots comes first, and "not" names only what could have been seen.
"""

from __future__ import annotations

from collections.abc import Callable

from pgsonar.detectors.evidence import common_client
from pgsonar.episodes.verdicts import Seen, Verdict
from pgsonar.model import Activity, Backend, BackendKind, Connection, Server, Sight, TcpTimer
from pgsonar.signals.advice import next_step
from pgsonar.signals.sentences import HOLDERS_TOLD, holder_text
from pgsonar.signals.words import age, count, out_of
from pgsonar.tracking.stillness import is_dated
from pgsonar.views.layout import wrap

SHOWN = 5  # causes
_BY_LOGIN = ("role_or_database_limit", "unaccounted")
_FULL = "pool_exhausted"
_HOLD_NO_SLOT = ("accept_queue", "prestartup_stuck")
MINUTE = 60


def why_lines(seen: Seen, clock: Callable[[int], str], width: int) -> list[str]:
    """The causes, then what they are not. `clock` writes an instant as the time of day."""
    sight, causes = seen.sight, [verdict for verdict in seen.found if verdict.kind in _SAID]
    # That the slots run out is said above; who holds them is the answer where no leak is one.
    causes = [verdict for verdict in causes if verdict.kind != _FULL] or causes
    lines = []
    for number, verdict in enumerate(causes[:SHOWN], 1):
        many = len(verdict.findings)
        many = sight.ledger.used if verdict.kind == _FULL else many
        slots = count(many, "client" if verdict.kind in _HOLD_NO_SLOT else "slot")
        since = f", {_since(sight, verdict, clock)}" if verdict.onset is not None else ""
        text = f"{_SAID[verdict.kind](verdict)}{since} ({verdict.findings[0].confidence})"
        lines += wrap(f"{'WHY' if number == 1 else '':<5} {number}  {slots:>8}  ", text, width)
    if len(causes) > SHOWN:
        lines.append(f"         and {len(causes) - SHOWN} more")
    told = {verdict.kind for verdict in causes} | seen.untold.keys()
    cannot = dict(seen.untold)
    if "idle_in_transaction" in seen.kinds and (undated := _undated_transactions(sight)):
        told.add("idle_in_transaction")
        cannot["idle_in_transaction"] = undated
    absent = [text(sight) for kind, text in _ABSENT.items() if kind in seen.kinds and kind not in told]
    if absent:
        lines += wrap("      not: " if causes else "WHY   seen is none of: ", ", ".join(absent), width)
    for kind, reason in cannot.items():
        if kind in _BY_LOGIN and sight.reading is None:
            continue  # that there is no login is said below, once
        lines += wrap("CANNOT TELL  ", f"{kind}: {reason}", width)
    return lines + (_do(sight, causes[0], width) if causes and causes[0].kind != _FULL else [])


def _since(sight: Sight, verdict: Verdict, clock: Callable[[int], str]) -> str:
    """How long ago, or once that is more than a minute, since when."""
    onset = verdict.onset or sight.at
    seconds = (sight.at - onset) / 1e9
    return age(seconds) if seconds < MINUTE else f"since {clock(onset)}"


def _do(sight: Sight, verdict: Verdict, width: int) -> list[str]:
    step = next_step(sight.server, sight.ledger.used, verdict.kind, verdict.findings[0])
    return [
        *wrap("DO    ", step.command, width),
        *wrap("      ", step.effect + (_door(sight) if "psql" in step.command else ""), width),
    ]


def _door(sight: Sight) -> str:
    """Whether psql gets in: as a superuser, while any slot is free."""
    limit, used = sight.server.limits.max_connections, sight.ledger.used
    return f"; works: {count(limit - used, 'slot')} free" if limit is not None and used < limit else ""


def _who(verdict: Verdict) -> str:
    """The identity and, where it is known, the process, which is the culprit unless it is a proxy."""
    client = common_client(verdict.findings)
    if client is None:
        return verdict.identity
    return f"{verdict.identity}, {'behind the proxy' if client.is_proxy else 'by'} {client.label}"


def _leaves_open(verdict: Verdict) -> str:
    who = _who(verdict)
    return f"{who}{'' if who == verdict.identity else ','} leaves transactions open"


def _orphaned(verdict: Verdict) -> str:
    waiting = sum(bool(f.evidence.get("pgsonar.leak.waits_for_lock")) for f in verdict.findings)
    lock = f"; {waiting} of them {'waits' if waiting == 1 else 'wait'} for a lock" if waiting else ""
    return f"{_who(verdict)}: client gone, query runs on{lock}"


_SAID: dict[str, Callable[[Verdict], str]] = {
    "idle_in_transaction": _leaves_open,
    "orphaned_backend": _orphaned,
    "orphaned_backend_no_socket": _orphaned,
    "auth_stuck": lambda verdict: f"{verdict.identity} connects and never finishes its login",
    "prestartup_stuck": lambda verdict: f"{verdict.identity} connects and never says who it is",
    "pool_exhausted": lambda verdict: (
        "most are held by " + "; ".join(holder_text(holder) for holder in verdict.findings[0].holders[:HOLDERS_TOLD])
    ),
    "accept_queue": lambda _: "the postmaster does not accept connections",
    "half_open": lambda verdict: f"{_who(verdict)} does not answer any more",
    "network_path": lambda verdict: f"the path to {verdict.identity} is broken, these are no leaks",
    "slow_reader": lambda verdict: f"{_who(verdict)} takes no more of its result",
    "backend_busy_unread_input": lambda verdict: f"{_who(verdict)} has sent more while its statement runs",
    "role_or_database_limit": lambda verdict: f"{verdict.identity} is at its own CONNECTION LIMIT",
    "long_query": lambda verdict: f"{_who(verdict)} runs a long statement",
}


def _undated_transactions(sight: Sight) -> str | None:
    """A transaction that nothing dates may be open for a moment, or for days."""
    number = sum(_is_open(b) and not is_dated(b) for b in sight.backends)
    if not number:
        return None
    text = f"since when {count(number, 'transaction')} {'is' if number == 1 else 'are'} open"
    return f"{text}: add receivers.postgresql, or CAP_SYS_ADMIN where sockets are read from another namespace"


def _is_open(backend: Backend) -> bool:
    return backend.title.activity in (Activity.IN_TRANSACTION, Activity.ABORTED)


def _open_transactions(sight: Sight) -> str:
    number = sum(map(_is_open, sight.backends))
    return f"transactions left open ({f'{number}, none for long' if number else 0})"


def _is_silent(connection: Connection) -> bool:
    return connection.silent_since is not None


def _is_full(connection: Connection) -> bool:
    return connection.socket.timer == TcpTimer.ZERO_WINDOW_PROBE


def _undated(number: int, what: str = "") -> str:
    return f"{number}{what}{', since when is not known' if number else ''}"


_ABSENT: dict[str, Callable[[Sight], str]] = {
    "idle_in_transaction": _open_transactions,
    "orphaned_backend": lambda sight: f"queries without a client ({sight.ledger.holders['orphan']})",
    "auth_stuck": lambda sight: (
        f"stuck logins ({sight.ledger.holders['authenticating'] + sight.ledger.holders['starting']})"
    ),
    "prestartup_stuck": lambda sight: f"silent clients ({_silent(sight)})",
    "accept_queue": lambda sight: f"accept queue ({out_of(sight.backlog, sight.backlog_limit)})",
    "half_open": lambda sight: f"network ({_undated(sum(map(_is_silent, sight.connections)), ' half-open')})",
    "slow_reader": lambda sight: f"slow readers ({_undated(sum(map(_is_full, sight.connections)))})",
    "long_query": lambda _: "slow queries (0 over 5 min)",
}


def children_text(sight: Sight) -> str:
    """Children that hold no slot yet, beside how many children there can be."""
    return f"pre-startup {out_of(_silent(sight), sight.server.limits.children)}"


def _silent(sight: Sight) -> int:
    return sight.ledger.no_slot.get(BackendKind.PRESTARTUP.value, 0)


def would_say(server: Server, used: int, not_listed: int) -> str | None:
    """What pg_stat_activity would count, where that is less than what is used."""
    if not not_listed or server.version is None or server.lists_logins:
        return None
    return f"pg_stat_activity would say {used - not_listed}: the {not_listed} without login are not in it"
