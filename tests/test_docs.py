"""The README says what is: its table, its commands and its configurations are checked."""

import re
from pathlib import Path

import pytest
import yaml

import readme
from pgsonar.commands import COMMANDS
from pgsonar.config.load import load
from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import rules

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("name", readme.tables())
def test_a_table_is_what_it_is_made_from(name):
    _, table, _ = readme.between(README, name)

    assert table == readme.tables()[name], "run `make readme`"


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_shown_is_accepted(text, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text)

    named = dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", text), "a value of some length")
    assert load([str(file)], [], named).exporters.keys() == yaml.safe_load(text)["exporters"].keys()


def test_every_make_target_it_names_exists():
    named = set(re.findall(r"(?:`|^)make (\w+)", README, re.MULTILINE))

    assert {"demo", "test"} <= named
    assert [target for target in named if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)] == []


def test_every_command_it_names_exists_and_every_command_is_named():
    named = set(re.findall(r"pgsonar (run|scan|validate|components|print-config|demo|doctor|replay|record)\b", README))

    assert named == {command.name for command in COMMANDS}


def test_every_kind_that_is_detected_is_told():
    table = README.split("## What it finds")[1].split("##")[0]

    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [rule.kind for rule in rules(LeaksProcessor()).all]


def test_every_file_it_names_exists():
    named = re.findall(r"`((?:agent|native|tests)/[\w/.]+)`", README)

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
