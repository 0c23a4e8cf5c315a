"""Writes what the README and docs/ have from the code: `make docs`. The tests compare the two.

The rule: what stands between two marks is made here, and nothing between marks is written by hand. The tables of
docs/scale.md are made from their measurements by benchmarks/sizing.py.
"""

import ast
import re
from functools import cache
from pathlib import Path

import sizing

import runbook
import rungs
from pgsonar.commands import COMMANDS
from pgsonar.config.catalog import catalog
from pgsonar.config.presets import PRESETS
from pgsonar.signals.catalog import metric_table
from pgsonar.views.components import component_lines
from test_layers import HOUSE, ORDER

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
PARAGRAPH = "\n\n"
MARK = re.compile(r"<!-- (\w+): begin -->")


@cache
def tables():
    """By the name that stands in the marks."""
    screen = (ROOT / "tests" / "views" / "scan_80.txt").read_text(encoding="utf-8").strip()
    commands = "\n".join(f"{f'pgsonar {command.name}':<22}# {command.summary}" for command in COMMANDS)
    return {
        "commands": f"<!-- not run: run and record go on until they are stopped -->\n```sh\n{commands}\n```",
        "metrics": metric_table(),
        "presets": presets(),
        "screen": f"```text\n{screen}\n```",
        "folders": folders(),
        "components": "```text\n" + "\n".join(component_lines(catalog())) + "\n```",
        "kinds": runbook.kinds_table(),
        "sections": runbook.sections(),
        "cases": runbook.cases(),
        "ladder": rungs.ladder(),
        "places": rungs.places(),
        "figures": (ROOT / "benchmarks" / "results" / "table.md").read_text(encoding="utf-8").strip(),
        **sizing.tables(),
    }


def folders():
    """The order of the folders, the highest first: each with what lives there, in its own words."""
    lines = ["| step | folder | what lives there |", "| --- | --- | --- |"]
    steps = [[name for name in row if (HOUSE / name).is_dir()] for row in ORDER]
    for step, names in enumerate(filter(None, steps), 1):
        for name in names:
            told = ast.get_docstring(ast.parse((HOUSE / name / "__init__.py").read_text(encoding="utf-8")))
            lines.append(f"| {step} | `{name}/` | {' '.join(told.partition(PARAGRAPH)[0].split())} |")
    return "\n".join(lines)


def presets():
    """What each preset sets, and what is to be written beside it."""
    lines = ["| preset | by | metrics | profile | signals | largest request | it also sets |", "| --- " * 7 + "|"]
    for name, preset in PRESETS.items():
        protocols = " or ".join({"otlp_http": "HTTP", "otlp_grpc": "gRPC"}[kind] for kind in preset.endpoints)
        asked = [f"{s} when asked" for s in preset.signals if s not in preset.unasked]
        signals = ", ".join([*preset.unasked, *asked])
        temporality = {"lowmemory": "cumulative, histograms delta"}.get(preset.temporality, preset.temporality)
        cells = (f"`{name}`", protocols, temporality, preset.profile, signals, _sizes(preset.sizes), _also(preset))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(_example(name, preset) for name, preset in PRESETS.items())])


def _sizes(sizes):
    told = {
        f"{size.raw / 1e6:g} MB" + (f", {size.packed / 1e3:g} kB compressed" if size.packed else "") for size in sizes
    }
    if len(told) == 1:
        return told.pop()
    each = ((signal, size.raw / 1e6, size.packed) for signal, size in sizes._asdict().items())
    return "; ".join(
        f"{signal} {raw:g} MB" + (f", {packed / 1e3:g} kB compressed" if packed else "") for signal, raw, packed in each
    )


def _also(preset):
    also = [f"`{header}: {value}`" for header, value in preset.headers.items()]
    also += [f"{', '.join(f'`{name}`' for name in preset.on_points)} on each point"] if preset.on_points else []
    also += [f"values up to {preset.value_length} characters"] if preset.value_length else []
    also += [f"no spans that ended over {preset.oldest_span / 60:g} min ago"] if preset.oldest_span else []
    return "; ".join(also) or "-"


def _example(name, preset):
    lines = [f"\n**{preset.title}**\n", "```yaml", "exporters:", "  otlp_http:", f"    preset: {name}"]
    if preset.endpoints["otlp_http"] is None:
        lines.append(f"    endpoint: {preset.example}")
    else:
        lines.append(f"    # endpoint: {preset.example}  # instead of {preset.endpoints['otlp_http']}")
    if preset.key is not None:
        lines.append(f'    headers: {{{preset.key[0]}: "{preset.key[1]}"}}')
    return "\n".join([*lines, "```"])


def between(text, name):
    """What stands between the marks of a table, and the text before and after it."""
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    table, _, after = rest.partition(end)
    return before + begin, table, end + after


def marked(text):
    """The names of the tables in a text."""
    return MARK.findall(text)


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in marked(text):
            before, _, after = between(text, name)
            text = before + tables()[name] + after
        page.write_text(text, encoding="utf-8")
