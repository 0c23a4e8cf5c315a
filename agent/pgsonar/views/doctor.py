"""`pgsonar doctor` as lines of text: what works, what does not, what that costs, and what helps.

The rule: pure, at most 80 columns, readable without colour; whatever is missing says what it costs in verdicts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

WIDTH = 80
_INDENT = 10


class Check(NamedTuple):
    """One thing looked at."""

    area: str
    what: str
    state: str = "ok"  # ok; less: it works with less; broken: what was configured does not work
    costs: str = ""
    remedy: str = ""


_MARKS = {"ok": "ok", "less": "less", "broken": "BROKEN"}


def doctor_lines(checks: Iterable[Check]) -> list[str]:
    """The report, with a count at its end."""
    checks = list(checks)
    lines: list[str] = []
    for area, there in groupby(checks, key=lambda check: check.area):
        lines.append(area)
        for check in there:
            lines += _wrap(f"  {_MARKS[check.state]:<7} ", check.what)
            lines += _wrap(" " * _INDENT + "without it: ", check.costs) if check.costs else []
            lines += _wrap(" " * _INDENT + "what helps: ", check.remedy) if check.remedy else []
        lines.append("")
    broken, less = (sum(check.state == state for check in checks) for state in ("broken", "less"))
    if broken:
        lines.append(f"{broken} of what is configured does not work.")
    elif less:
        lines.append(f"All that is configured works; {less} could be better.")
    else:
        lines.append("All is well.")
    return lines


def _wrap(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * (len(head) if len(head) <= _INDENT else _INDENT + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
