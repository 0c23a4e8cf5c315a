"""Collects what was measured, prints it beside its goal, and keeps it under benchmarks/results/.

The rule: a goal that is missed is told as missed and fails nothing in the long form, because the table is the result;
the short form (`--short`), which CI runs, fails where a figure is worse than twice its goal.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest
from pairs import Ratio

RESULTS = Path(__file__).parent / "results"
MUCH_WORSE = 2.0


class Goals:
    """Figures and what was asked of them."""

    def __init__(self, *, short: bool) -> None:
        self.short = short
        self.rows: list[dict[str, object]] = []

    def pairs(self, many: int) -> int:
        """How many pairs to take."""
        return 7 if self.short else many

    def ratio(self, name: str, ratio: Ratio, goal: float | None, benchmark: object = None, note: str = "") -> None:
        """Notes a ratio that should be at most `goal`."""
        note = note or f"{_amount(ratio.left)} / {_amount(ratio.right)}, noise {ratio.noise:.0%}"
        self.figure(name, ratio.median, goal, low=ratio.low, high=ratio.high, pairs=ratio.pairs, note=note)
        if benchmark is not None:
            benchmark.extra_info.update(ratio._asdict())  # type: ignore[attr-defined]

    def figure(
        self,
        name: str,
        value: float,
        goal: float | None,
        *,
        low: float | None = None,
        high: float | None = None,
        pairs: int | None = None,
        unit: str = "x",
        note: str = "",
    ) -> None:
        """Notes a figure; met when its interval, or itself, touches the goal."""
        best = value if low is None else low
        met = None if goal is None else best <= goal
        self.rows.append(
            {
                "name": name,
                "value": value,
                "low": low,
                "high": high,
                "unit": unit,
                "goal": goal,
                "met": met,
                "pairs": pairs,
                "note": note,
            }
        )
        if self.short and goal is not None:
            assert best <= MUCH_WORSE * goal, f"{name}: {value:.4g} {unit}, the goal is {goal:.4g}"


def _amount(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 0.01 else f"{seconds * 1e3:.1f} ms"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="fewer rows and rounds; a figure twice its goal fails")


GOALS = pytest.StashKey[Goals]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[GOALS] = Goals(short=config.getoption("--short"))


@pytest.fixture(scope="session")
def goals(pytestconfig: pytest.Config) -> Goals:
    return pytestconfig.stash[GOALS]


def number(value: object, unit: object) -> str:
    if not isinstance(value, float | int):
        return ""
    if unit == "%":
        return f"{value:.2f} %"
    digits = f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return digits if unit == "x" else f"{digits} {unit}"


def lines_of(row: dict[str, object]) -> list[str]:
    verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]  # type: ignore[index]
    value, goal = number(row["value"], row["unit"]), number(row["goal"], row["unit"])
    first = f"{row['name']!s:<46.46} {value:>12} {goal:>11} {verdict}"
    if row["low"] is None:
        return [first, f"    {row['note']}"] if row["note"] else [first]
    interval = f"[{number(row['low'], row['unit'])}, {number(row['high'], row['unit'])}] of {row['pairs']} pairs"
    return [first, f"    {interval}; {row['note']}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    goals = config.stash[GOALS]
    if not goals.rows:
        return
    write = terminalreporter.write_line
    terminalreporter.section("figures and goals")
    write(f"{'':<46} {'measured':>12} {'at most':>11}")
    for row in goals.rows:
        for line in lines_of(row):
            write(line)
    if not goals.short:
        keep(goals.rows)


def keep(rows: list[dict[str, object]]) -> None:
    """Writes the figures as JSON and as docs/performance.md has them; those of other runs stay until measured anew."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "figures.json"
    old = json.loads(file.read_text(encoding="utf-8"))["figures"] if file.exists() else []
    new = {row["name"]: row for row in rows}
    kept = [new.pop(row["name"], row) for row in old] + list(new.values())
    machine = {"kernel": platform.release().split("-")[0], "cpus": os.cpu_count(), "python": platform.python_version()}
    file.write_text(json.dumps({"machine": machine, "figures": kept}, indent=1) + "\n", encoding="utf-8")
    table = ["| figure | measured | 95 % interval | at most | |", "|---|---|---|---|---|"]
    for row in kept:
        unit = row["unit"]
        interval = "" if row["low"] is None else f"{number(row['low'], unit)} to {number(row['high'], unit)}"
        verdict = {True: "met", False: "**missed**", None: ""}[row["met"]]  # type: ignore[index]
        table.append(
            f"| {row['name']} | {number(row['value'], unit)} | {interval} | {number(row['goal'], unit)} | {verdict} |"
        )
    (RESULTS / "table.md").write_text("\n".join(table) + "\n", encoding="utf-8")
