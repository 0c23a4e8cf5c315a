"""Writes docs/detectors.md, a section a kind, from what the code and the scenario pages say already.

The rule: no sentence about a kind is written here. What it is and how severe it is stand in its detector, when it opens
in the rules, whom it wakes in episodes.causes, what to do in signals.advice, what is seen in its scenario page.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from build import START, backend, connection, database_reading, server, sight, tcp, title
from episode import EPISODE
from pgsonar.config.schema import LeaksProcessor, ShareKind
from pgsonar.config.units import Duration
from pgsonar.detectors import paths, rules
from pgsonar.detectors.shares import Shares
from pgsonar.episodes import causes
from pgsonar.model import SECOND, Episode, Finding, Limits, Member, Severity, Sight, Slots
from pgsonar.signals.advice import GUARDS, next_step
from pgsonar.signals.words import count
from pgsonar.tracking import churn, connections, growth, poolers
from rungs import BESIDE, Means, as_seen
from scenarios import events

SCENARIOS = Path(__file__).parent / "scenarios"
DEFAULTS = LeaksProcessor()
RULES = rules(DEFAULTS)
WIDTH = 120


def kinds_table() -> str:
    """All kinds at a glance."""
    lines = ["| kind | what it is | told after | severity | wakes somebody |", "| --- " * 5 + "|"]
    for rule in RULES.all:
        cells = (f"[`{rule.kind}`](#{rule.kind})", _what(rule)[0], _after(rule), _severity(rule), _wakes(rule))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sections() -> str:
    """One section a kind."""
    return "\n\n".join(_section(rule) for rule in RULES.all)


def _section(rule) -> str:
    story, timeline, near = _scenario(rule.kind)
    head, rest = _what(rule)
    guard = GUARDS[rule.kind]
    parts = [
        f"## {rule.kind}",
        _wrapped(head),
        *map(_wrapped, rest),
        _facts(rule),
        _wrapped(f"**As it was played** ([{rule.kind}.md](../tests/scenarios/{rule.kind}.md)). {story}"),
        timeline,
        _wrapped(f"The event that opened: *{_event(rule.kind)}*"),
        _wrapped(f"**What must stay silent.** {near}"),
        _wrapped(f"**What to do.** {_steps(rule.kind)[''].rstrip()}"),
        *_other_steps(rule.kind),
        _wrapped(f"**Would have ended it by itself:** {guard.would_end}."),
        _wrapped(f"**Would not:** {guard.would_not}."),
    ]
    return "\n\n".join(parts)


def _facts(rule) -> str:
    extra = [name for name in getattr(DEFAULTS, rule.kind).__struct_fields__ if name not in _COMMON]
    keys = ", ".join(f"`{name}`" for name in (*_COMMON, *extra))
    rows = [
        ("told after", f"{_after(rule)}{_least(rule)}"),
        ("severity", _severity(rule)),
        ("wakes somebody", _wakes(rule)),
        ("set by", f"`processors.leaks.{rule.kind}`: {keys}"),
        ("cannot be told where", "; ".join(_blind(rule)) or "-"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


_COMMON = ("enabled", "after", "severity", "shadow")


# --- what it is, from the detector's own words ------------------------------------------------------------------------


def _module(rule):
    return sys.modules[type(rule.detector).__module__]


def _what(rule) -> tuple[str, list[str]]:
    """The first sentence of the detector's module, and the paragraphs after it."""
    first, *rest = re.split(r"\n\s*\n", inspect.getdoc(_module(rule)))
    return " ".join(first.split()), [" ".join(paragraph.split()) for paragraph in rest]


# --- when it opens, and how severe it is ------------------------------------------------------------------------------


def _after(rule) -> str:
    """When it is told, with what must stand for so long."""
    seconds = rule.after / SECOND
    stands = f"{Duration(seconds)}" if seconds else "at once"
    conditions = {
        "idle_leak": (
            f"{count(growth.WINDOWS, 'window')} of {DEFAULTS.idle_leak.window} that each showed growth, of connections "
            f"idle for {DEFAULTS.idle_leak.idle_after} or more"
        ),
        "half_open": f"{stands} after a probe or {connections.UNANSWERED} retransmissions went unanswered",
        "network_path": (
            f"{stands}, once {paths.MANY} and half of a network's sessions fell silent within "
            f"{Duration(paths.WITHIN / SECOND)}"
        ),
        "connection_thrash": f"{stands} of {churn.RATE} connections a second, each shorter than a second",
        "pooler_waiting": f"{stands}, while the longest waits {Duration(poolers.LONG_WAIT)} or more",
    }
    return conditions.get(rule.kind, stands)


def _least(rule) -> str:
    """The least that a configuration can set."""
    least = rule.nanoseconds(0) / SECOND
    return f" (never less than {Duration(least)})" if least else ""


def levels_in_code(rule) -> set[str]:
    """The severities that stand in a detector's module, or in the shares that it goes by."""
    module = sys.modules[Shares.__module__] if _by_share(rule) else _module(rule)
    names = (node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Attribute))
    return {node.attr.lower() for node in names if isinstance(node.value, ast.Name) and node.value.id == "Severity"}


def _by_share(rule) -> bool:
    return isinstance(getattr(DEFAULTS, rule.kind), ShareKind)


def _severity(rule) -> str:
    """The one it has, or from when on it is which, as the detector's class says."""
    levels = levels_in_code(rule)
    if _by_share(rule):
        shares = getattr(DEFAULTS, rule.kind)
        at = ", ".join(f"{name} at {getattr(shares, name):.0%}" for name in ("warning", "high", "critical"))
        return f"{at} or when the log tells of a refusal"
    if len(levels) == 1:
        return levels.pop()
    _, _, told = inspect.getdoc(type(rule.detector)).partition("\n\n")
    told = " ".join(told.split()).removesuffix(".")
    return told[:1].lower() + told[1:]


# --- whom it wakes, by asking what settles pages ----------------------------------------------------------------------


def _wakes(rule) -> str:
    ranked = sorted(Severity[level.upper()] for level in levels_in_code(rule))
    waking = [severity for severity in ranked if _pages(rule.kind, severity)]
    if waking == ranked:
        return "yes"
    if waking:
        return f"at {waking[0].word}" if waking[0] is ranked[-1] else f"from {waking[0].word} on"
    tight = {"members": causes.MANY_ORPHANS, "waits": True, "tight_for": causes.TIGHT_FOR}
    if not any(_pages(rule.kind, severity, **tight) for severity in ranked):
        return "no"
    reasons = []
    if _pages(rule.kind, ranked[-1], waits=True):
        reasons.append("when one waits for a lock")
    if _pages(rule.kind, ranked[0], members=causes.MANY_ORPHANS):
        reasons.append(f"from {causes.MANY_ORPHANS} of them on")
    if _pages(rule.kind, ranked[0], tight_for=causes.TIGHT_FOR):
        reasons.append(f"after {Duration(causes.TIGHT_FOR / SECOND)} with {causes.TIGHT:.0%} of the slots in use")
    return ", or ".join(reasons)


def _pages(kind: str, severity: Severity, *, members: int = 1, waits: bool = False, tight_for: int = 0) -> bool:
    """Whether such an episode, alone on its server, wakes somebody."""
    member, finding = Member(7, "10.0.0.7", 40000, START), EPISODE.findings[0]
    evidence = {"pgsonar.leak.waits_for_lock": waits}
    episode: Episode = replace(
        EPISODE,
        kind=kind,
        severity=severity,
        onset=START,
        members=[member] * members,
        findings=[replace(finding, kind=kind, evidence=evidence)],
        slots=Slots(used=30 if tight_for else 1, ceiling=30),
    )
    settles = causes.Causes()
    settles.settle([episode], START)
    told = settles.settle([episode], START + tight_for)
    return told[episode.id].pages


# --- what must be seen, by asking the detector in the dark ------------------------------------------------------------


def _blind(rule) -> list[str]:
    """Why it cannot tell, as it says itself, of servers of which something is not seen."""
    if rule in RULES.poolers:
        return ["no console of a PgBouncer is asked: add `receivers.pgbouncer`"]
    if rule in RULES.clients:
        return ["connections to databases are not watched: set `receivers.sockets.side` to `client` or `both`"]
    reasons = (rule.detector.cannot_tell(seen) for seen in _darkness())
    return list(dict.fromkeys(reason for reason in reasons if reason is not None))


def _darkness() -> list[Sight]:
    """Sights that lack one thing each."""
    whole = as_seen(BESIDE, Means(as_postgres=True, login=True))
    known = whole.server
    no_reading = replace(whole, reading=None)
    return [
        replace(whole, server=replace(known, netns=0)),
        replace(whole, server=replace(known, port=None)),
        replace(whole, connections=[], listeners=[]),
        replace(no_reading, server=replace(known, pid=0), ledger=replace(whole.ledger, is_told=False)),
        replace(whole, server=replace(known, pid=0)),
        replace(whole, backends=[backend(title(None))]),
        replace(whole, backends=[backend(title(None)._replace(is_cut=True))]),
        sight(whole.backends, at=whole.at, of=replace(known, limits=Limits())),
        no_reading,
        replace(whole, reading=database_reading(sees_all=False)),
        replace(no_reading, backends=[backend(title("SELECT"), bound=connection(tcp(40000)))]),
    ]


# --- what to do -------------------------------------------------------------------------------------------------------


CASES = {
    "": {},
    "Where no slot is free": {"used": 30},
    "Of a superuser, DDL, a copy or a backup": {"is_protected": True},
    "Of a server in a container": {"inner_pid": 17},
    "Of a server elsewhere": {"pid": 0},
}


def _steps(kind: str) -> dict[str, str]:
    """What is offered, by case: about session 4711 of a client, of a server with 30 slots."""
    steps = {}
    is_pooler = any(rule.kind == kind for rule in RULES.poolers)
    for case, changes in CASES.items():
        where = server(
            pid=changes.get("pid", 100),
            port=6432 if is_pooler else 5432,
            what="pgbouncer" if is_pooler else "postgresql",
        )
        oldest = Finding(
            kind=kind,
            server=where.id,
            identity="app@10.0.0.7",
            pid=4711,
            inner_pid=changes.get("inner_pid", 4711),
            address="10.0.0.7",
            port=40000,
            onset=START,
            severity=Severity.HIGH,
            is_protected=changes.get("is_protected", False),
        )
        step = next_step(where, changes.get("used", 1), kind, oldest)
        steps[case] = f"`{step.command}` {step.effect}."
    return steps


def cases() -> str:
    """What is offered instead of the usual command about a session; the same for every kind that is about sessions."""
    _, *others = _steps("idle_in_transaction").items()
    return "\n".join(_wrapped(f"* {case}: {step}", "  ") for case, step in others)


def _other_steps(kind: str) -> list[str]:
    """Those of a kind that are neither its usual one nor what every kind has."""
    steps, known = _steps(kind), _steps("idle_in_transaction")
    others = [(case, step) for case, step in steps.items() if step not in {steps[""], known[case]}]
    return ["\n".join(_wrapped(f"* {case}: {step}", "  ") for case, step in others)] if others else []


# --- its scenario -----------------------------------------------------------------------------------------------------


def _scenario(kind: str) -> tuple[str, str, str]:
    """The story, the timeline and the near miss."""
    text = (SCENARIOS / f"{kind}.md").read_text(encoding="utf-8")
    heading, _, rest = text.partition("\n")
    told = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in rest.split("\n## ")}
    name = heading.partition(": ")[2]
    story = " ".join(told[""].split())
    near = " ".join(told["The near miss"].removesuffix("Its recording opens nothing.").split())
    return f"{_capital(name)}. {story}", told["Timeline"], near


def _event(kind: str) -> str:
    """What was said when it opened in the recording."""
    opened = (row for row in events(f"{kind}.rec") if row.event_name == "pgsonar.leak.opened")
    return next(row.body for row in opened if row.attributes["pgsonar.leak.kind"] == kind).replace("*", r"\*")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
