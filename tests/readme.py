"""Writes the tables of the README that are made from something else: `make readme`. The tests compare the two."""

from pathlib import Path

from pgsonar.commands import COMMANDS
from pgsonar.signals.catalog import metric_table

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def tables():
    """By the name that stands in the README's marks."""
    screen = (ROOT / "tests" / "views" / "scan_80.txt").read_text(encoding="utf-8").strip()
    commands = "\n".join(f"{f'pgsonar {command.name}':<22}# {command.summary}" for command in COMMANDS)
    return {
        "commands": f"```sh\n{commands}\n```",
        "metrics": metric_table(),
        "screen": f"```text\n{screen}\n```",
        "figures": (ROOT / "benchmarks" / "results" / "table.md").read_text(encoding="utf-8").strip(),
    }


def between(text, name):
    """What stands between the marks of a table, and the text before and after it."""
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    table, _, after = rest.partition(end)
    return before + begin, table, end + after


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    for name, table in tables().items():
        before, _, after = between(text, name)
        text = before + table + after
    README.write_text(text, encoding="utf-8")
