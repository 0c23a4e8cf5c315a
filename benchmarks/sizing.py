"""The tables of docs/scale.md, from the figures of benchmarks/results/scale.json.

The rule: a figure was measured by benchmarks/scale.py, or is computed here from such figures by a rule that the
document states. Nothing is typed into a table by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "scale.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "scale.md"
INTERVAL = 10  # seconds between two exports of metrics, the default
HOSTS = (100, 1000, 10000)
TYPICAL = 50  # sessions of the host that sizing is computed for
BUSY = 0.5  # of a core: what a gateway is sized for, so that one member can take the load of another
QUEUE = 1 << 30  # bytes of sending_queue.queue_size in deploy/collector


def tables() -> dict[str, str]:
    """By the name that stands in the document's marks."""
    told = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {"volume": _volume(told), "gateway": _gateway(told), "sizing": _sizing(told)}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _volume(told: dict[str, Any]) -> str:
    head = ["sessions", "form", "points an export", "points an hour", "raw, MB an hour", "wire, MB an hour"]
    rows = [
        [
            str(row["sessions"]),
            row["form"],
            f"{row['points']:.0f}",
            f"{row['points'] * 3600 / INTERVAL:,.0f}",
            f"{row['raw'] * 3600 / INTERVAL / 1e6:.1f}",
            f"{row['wire'] * 3600 / INTERVAL / 1e6:.2f}",
        ]
        for row in told["volume"]
    ]
    episode = told["episode"]
    rows.append(["one episode", "-", f"{episode['items']} records", "-", _kb(episode["raw"]), _kb(episode["wire"])])
    return _table(head, rows)


def _kb(size: float) -> str:
    return f"{size / 1e3:.1f} kB"


def _gateway(told: dict[str, Any]) -> str:
    head = ["gateway", "agents", "requests/s", "points/s", "CPU, cores", "CPU ms a request", "resident MB", "latest, s"]
    rows = [
        [
            row["tier"],
            f"{row['agents']:,}",
            f"{row['requests'] / row['seconds']:.0f}",
            f"{row['points'] / row['seconds']:,.0f}",
            f"{row['cpu'] / row['seconds']:.2f}",
            f"{row['cpu'] / row['requests'] * 1e3:.2f}",
            f"{row['resident'] / 1e6:.0f}",
            f"{row['latest']:.2f}",
        ]
        for row in told["gateway"]
    ]
    return _table(head, rows)


def _sizing(told: dict[str, Any]) -> str:
    """For hosts with 50 sessions, cumulative; CPU by the cost of a request at the largest number of agents."""
    typical = next(r for r in told["volume"] if (r["sessions"], r["form"]) == (TYPICAL, "cumulative"))
    costs = {row["tier"]: row["cpu"] / row["requests"] for row in sorted(told["gateway"], key=lambda r: r["agents"])}
    head = ["hosts", "requests/s", "points/s", "in, Mbit/s", *(f"{tier}, cores" for tier in costs), "outlasts"]
    rows = []
    for hosts in HOSTS:
        rate = hosts / INTERVAL
        cores = [f"{rate * cost / BUSY:.1f}" for cost in costs.values()]
        minutes = QUEUE / (rate * typical["raw"]) / 60
        wire = rate * typical["wire"] * 8 / 1e6
        points = f"{rate * typical['points']:,.0f}"
        rows.append([f"{hosts:,}", f"{rate:.0f}", points, f"{wire:.1f}", *cores, f"{minutes:.0f} min"])
    return _table(head, rows)


def write() -> None:
    """Puts the tables into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in tables().items():
        marks = re.compile(rf"(<!-- {name}: begin -->\n).*?(\n<!-- {name}: end -->)", re.DOTALL)
        text, found = marks.subn(rf"\g<1>{table}\g<2>", text)
        if found != 1:
            raise SystemExit(f"{DOCUMENT}: no place for the table {name}")
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
