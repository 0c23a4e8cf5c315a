"""What each privilege lets pgsonar see, and the kinds that the detectors can tell with that: the ladder of privileges.

The rule: a rung says which facts it brings, as was seen on a real server (tests/live/test_privileges.py repeats it);
which kinds these make tellable is asked of the detectors, and written down nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from build import PORT, START, backend, connection, database_reading, server, sight, tcp, title
from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import rules
from pgsonar.episodes.verdicts import untold
from pgsonar.model import SECOND, Details, Limits, Server, Session, Sight, TcpState

RULES = rules(LeaksProcessor())
KINDS = tuple(rule.kind for rule in RULES.all)
AT = START + 100 * SECOND
SESSIONS = (("SELECT", "active"), ("idle in transaction", "idle in transaction"), ("idle", "idle"))  # title, state


class Place(NamedTuple):
    """Where the agent runs, seen from the server."""

    name: str
    processes: bool = True  # of the server can be seen
    sockets: bool = True
    own_namespace: bool = True  # the server's network namespace is the agent's own


BESIDE = Place("beside the server")
HOST = Place("on its host, the server in a network of its own", own_namespace=False)
SIDECAR = Place("sharing its network alone", processes=False)
ELSEWHERE = Place("elsewhere", processes=False, sockets=False, own_namespace=False)


@dataclass(frozen=True)
class Means:
    """What an agent was given."""

    as_postgres: bool = False  # uid and gid
    ptrace: bool = False
    dac: bool = False
    admin: bool = False
    net_admin: bool = False
    login: bool = False
    refusal: bool = False  # a log is read, and has told of a role that was refused
    console: bool = False
    client_side: bool = False


class Rung(NamedTuple):
    """One step, and those that it stands on."""

    name: str
    means: Means
    below: Means = Means()


_BOTH = Means(ptrace=True, admin=True)
LADDER = (
    Rung("nothing at all", Means()),
    Rung("the uid and gid of PostgreSQL", Means(as_postgres=True)),
    Rung("`CAP_DAC_READ_SEARCH`", Means(dac=True)),
    Rung("`CAP_SYS_PTRACE`", Means(ptrace=True)),
    Rung("`CAP_SYS_ADMIN` with `CAP_SYS_PTRACE`, or with PostgreSQL's uid", _BOTH, Means(ptrace=True)),
    Rung("`CAP_NET_ADMIN`", Means(net_admin=True)),
    Rung("a login with `pg_monitor`", Means(login=True)),
    Rung("PostgreSQL's log, once it tells of a refused role or database", Means(refusal=True)),
    Rung("PgBouncer's console", Means(console=True)),
    Rung("`side: client` or `both`", Means(client_side=True)),
)


def as_seen(place: Place, means: Means) -> Sight:
    """A server with a session that works, one in a transaction and one that idles, as it is seen from there."""
    sees_limit = place.processes and (means.as_postgres or means.dac)
    enters = place.own_namespace or (means.admin and (means.ptrace or means.as_postgres))
    limits = Limits(30, 3, "pg_control") if sees_limit else Limits()
    of = _server(place, limits)
    sockets = [connection(tcp(40000 + n)) for n in range(3)] if place.sockets else []
    for one in sockets:
        one.details = Details(AT, *[0] * (len(Details._fields) - 1)) if enters else None
    listener = [connection(tcp(0, TcpState.LISTEN))] if place.sockets else []
    backends = []
    if place.processes or means.login:
        bound = sockets or [None] * 3
        for n, (activity, state) in enumerate(SESSIONS):
            one = backend(title(activity, port=40000 + n), pid=n + 1, bound=bound[n])
            one.session = _session(one.pid, state) if means.login else None
            backends.append(one)
    if means.login and not sees_limit:  # a login tells the limit as well (tracking.readings.improved)
        of = replace(of, limits=Limits(30, 3, "login"))
    seen = sight(backends, [*sockets, *listener], at=AT, of=of)
    if not (place.processes or means.login):
        seen = replace(seen, ledger=replace(seen.ledger, is_told=False))
    if means.login:
        seen = replace(seen, reading=database_reading())
    return replace(seen, refused_by={("role", "app"): 1} if means.refusal else {})


def _session(pid: int, state: str) -> Session:
    return Session(
        pid=pid,
        started=START,
        user="app",
        database="shop",
        application="app",
        kind="client backend",
        state=state,
        state_since=START,
    )


def _server(place: Place, limits: Limits) -> Server:
    return server(
        pid=100 if place.processes else 0,
        netns=1 if place.sockets else 0,
        port=PORT,
        version="15",
        limits=limits,
    )


def told(place: Place, means: Means) -> set[str]:
    """The kinds that can be told there, by what the detectors say."""
    kinds = {rule.kind for rule in RULES.servers} - untold(as_seen(place, means), RULES).keys()
    kinds |= {rule.kind for rule in RULES.poolers} if means.console else set()
    return kinds | ({rule.kind for rule in RULES.clients} if means.client_side else set())


def added(place: Place, rung: Rung) -> list[str]:
    """The kinds that a rung adds to those below it, in the order of the screens."""
    before = told(place, rung.below) if rung.means != rung.below else set()
    return in_order(told(place, rung.means) - before)


def in_order(kinds: Iterable[str]) -> list[str]:
    there = set(kinds)
    return [kind for kind in KINDS if kind in there]


def ladder() -> str:
    """The table of docs/privileges.md: what each rung adds, for a server beside the agent and for one on its host."""
    lines = [f"| with | {BESIDE.name} | {HOST.name} |", "| --- | --- | --- |"]
    lines += [f"| {rung.name} | {_cell(BESIDE, rung)} | {_cell(HOST, rung)} |" for rung in LADDER]
    return "\n".join(lines)


def _cell(place: Place, rung: Rung) -> str:
    kinds = added(place, rung)
    if rung.means == rung.below:
        missing = in_order(set(KINDS) - set(kinds))
        return f"{len(kinds)} of {len(KINDS)}: all but {_list(missing)}"
    return _list(kinds) or "no kind"


def places() -> str:
    """What is told where less can be seen than from the server's host."""
    lines = ["| where pgsonar runs | kinds told | a login adds |", "| --- | --- | --- |"]
    for place in (SIDECAR, ELSEWHERE):
        first, both = told(place, Means()), told(place, Means(login=True))
        lines.append(f"| {place.name} | {_list(in_order(first)) or 'none'} | {_list(in_order(both - first))} |")
    return "\n".join(lines)


def _list(kinds: Iterable[str]) -> str:
    return ", ".join(f"[`{kind}`](detectors.md#{kind})" for kind in kinds)
