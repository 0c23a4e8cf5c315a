"""Scenarios as recordings: played through the pipeline, and what they must open."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from pgsonar.config.convert import to_section
from pgsonar.config.problems import Problems
from pgsonar.config.schema import LeaksProcessor, Telemetry
from pgsonar.recording.replaying import play
from pgsonar.signals.rows import EventRow
from plays import CONFIGURATION

HERE = Path(__file__).parent
KINDS = sorted(path.stem for path in HERE.glob("*.md"))
TABLE = re.compile(r"(<!-- expected: begin -->\n)(.*?)(<!-- expected: end -->)", re.DOTALL)


def leaks(**changes) -> LeaksProcessor:
    """The configuration of the plays."""
    problems = Problems()
    section = to_section(LeaksProcessor, CONFIGURATION, "processors.leaks", problems)
    problems.stop_if_any()
    return msgspec.structs.replace(section, **changes)


def events(name: str, configured: LeaksProcessor | None = None) -> list[EventRow]:
    """What comes of a recording."""
    heard = play([str(HERE / name)], configured or leaks(), Telemetry(), lambda done, total: None)
    return [one for one in heard if isinstance(one, EventRow)]


def table(told: list[EventRow]) -> str:
    """The episodes of a recording, as they ended: one row each."""
    rows = ["| kind | of | members | severity | wakes somebody | caused by |", "| --- | --- | --- | --- | --- | --- |"]
    kind_of = {row.attributes["pgsonar.leak.id"]: row.attributes["pgsonar.leak.kind"] for row in told}
    last = {row.attributes["pgsonar.leak.id"]: row for row in told if not row.event_name.endswith("resolved")}
    for row in sorted(last.values(), key=lambda row: str(row.attributes["pgsonar.leak.kind"])):
        of = row.attributes
        root = kind_of[of["pgsonar.leak.root_id"]] if of["pgsonar.leak.root_id"] != of["pgsonar.leak.id"] else "-"
        wakes = "yes" if of["pgsonar.page"] else "no"
        identity = of.get("pgsonar.leak.identity", "-")
        members, severity = of["pgsonar.leak.members"], of["pgsonar.leak.severity"]
        rows.append(f"| `{of['pgsonar.leak.kind']}` | {identity} | {members} | {severity} | {wakes} | {root} |")
    return "\n".join(rows) + "\n"


def expected(kind: str) -> str:
    """The table of a scenario."""
    found = TABLE.search((HERE / f"{kind}.md").read_text())
    assert found is not None, f"{kind}.md has no table"
    return found[2]
