"""What a recording was played to: a head, each step of an episode, and what stood at its end.

The rule: nothing here depends on when or where it is played.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pgsonar.signals.rows import EventRow
from pgsonar.signals.words import age, count
from pgsonar.views.layout import wrap

WIDTH = 100
MEMBERS_SHOWN = 5


def head_line(host: str, version: str, hidden: tuple[str, ...]) -> str:
    """Whose recording it is."""
    rewritten = f", {' and '.join(hidden)} rewritten" if hidden else ""
    return f"RECORDING of {host} by pgsonar {version}{rewritten}"


def event_lines(row: EventRow) -> list[str]:
    """One step: when, what, how severe; since when, who; the sentence."""
    told = row.attributes
    step = row.event_name.rpartition(".")[2].upper()
    severity, kind = told["pgsonar.leak.severity"], told["pgsonar.leak.kind"]
    lines = [f"{instant(row.time_unix)}  {step:<8}  {severity:<8}  {kind}"]
    lines += wrap("  culprit  ", str(told.get("pgsonar.leak.identity", "none, all together")), WIDTH)
    lines += wrap("  since    ", instant(int(str(told["pgsonar.leak.onset"]))), WIDTH)
    lines += wrap("  members  ", _members(row), WIDTH)
    return [*lines, *wrap("  ", row.body, WIDTH)]


def _members(row: EventRow) -> str:
    """`2: pid 4711 10.0.0.7:40112, pid 4712 10.0.0.7:40113`; what is unknown is left out."""
    number = int(str(row.attributes["pgsonar.leak.members"]))
    listed = row.attributes["pgsonar.leak.member_list"]
    texts = []
    for member in listed[:MEMBERS_SHOWN] if isinstance(listed, tuple) else ():
        pid, address, port, _ = member.split(" ")
        parts = [f"pid {pid}" if pid != "-" else "", f"{address}:{port}" if address != "-" else ""]
        texts.append(" ".join(filter(None, parts)))
    more = f" and {number - MEMBERS_SHOWN} more" if number > MEMBERS_SHOWN else ""
    known = ", ".join(filter(None, texts))
    return f"{number}{': ' if known else ''}{known}{more}"


def event_json(row: EventRow) -> str:
    """The same as one line of JSON, with all attributes."""
    told = row._asdict() | {"trace_id": f"{row.trace_id:032x}", "span_id": f"{row.span_id:016x}"}
    return json.dumps(told)


def end_line(began_unix: int, ended_unix: int, opened: int, still_open: int) -> str:
    """How long it was, and what stood when it ended."""
    lasted = age((ended_unix - began_unix) / 1e9)
    stand = f", {still_open} open at the end" if still_open else ""
    return f"END      {instant(ended_unix)} after {lasted}: {count(opened, 'episode')}{stand}"


def instant(unix: int) -> str:
    """`2026-11-21T03:45:11.986Z`."""
    seconds, rest = divmod(unix, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
