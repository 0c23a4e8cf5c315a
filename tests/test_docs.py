"""The README and docs/ say what is: what can be run is run, what is named exists, what is made from code is new."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import documents
import runbook
import rungs
from documents import PAGES, README, ROOT
from pgsonar.commands import COMMANDS
from pgsonar.config.load import load
from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import rules
from pgsonar.sources.privileges import CAPABILITIES
from test_layers import HOUSE

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
KINDS = [rule.kind for rule in rules(LeaksProcessor()).all]
FENCED = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
FOUND_NOTHING = ("pgsonar scan", "pgsonar doctor")  # end with 1 on a host without a server


class Block(NamedTuple):
    page: str
    text: str
    mark: str  # what a comment directly above it says


def blocks(language):
    found = ((name, fence) for name, text in TEXT.items() for fence in FENCED.finditer(text))
    return [Block(name, f["text"], f["mark"] or "") for name, f in found if f["language"] == language]


def named(cases):
    """Cases with names that a person finds in the pages."""
    return [pytest.param(case, id=f"{case.page}: {case.text.strip().splitlines()[0][:50]}") for case in cases]


def prose(text):
    """A page without its fenced blocks."""
    return FENCED.sub("", text)


# --- what is made from something else ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for text in TEXT.values() for name in documents.marked(text)])
def test_what_is_made_from_code_is_as_the_code_has_it_now(name):
    (page,) = [text for text in TEXT.values() if name in documents.marked(text)]
    _, table, _ = documents.between(page, name)

    assert table == documents.tables()[name], "run `make docs`"


def test_the_number_of_kinds_is_what_it_is():
    assert re.findall(r"(\d+) kinds", TEXT["README.md"]) == [str(len(KINDS))]


def test_every_mark_has_something_to_stand_between():
    assert {name for text in TEXT.values() for name in documents.marked(text)} == documents.tables().keys()


def test_every_kind_has_a_section_that_an_event_can_point_at():
    sections = re.findall(r"^## (\w+)$", TEXT["detectors.md"], re.MULTILINE)

    assert [name for name in sections if name in KINDS] == KINDS


@pytest.mark.parametrize("rule", rules(LeaksProcessor()).all, ids=lambda rule: rule.kind)
def test_a_detector_that_has_several_severities_says_when_it_is_which(rule):
    told = runbook._severity(rule)

    assert set(re.findall(r"\b(info|warning|high|critical)\b", told)) == runbook.levels_in_code(rule)


# --- the ladder of privileges -----------------------------------------------------------------------------------------


def test_the_ladder_leads_to_every_kind():
    beside, host = (
        set().union(*(rungs.told(at, rung.means) for rung in rungs.LADDER)) for at in (rungs.BESIDE, rungs.HOST)
    )

    assert beside == host == set(KINDS)


def test_a_capability_that_enters_namespaces_is_of_no_use_where_these_cannot_be_opened():
    nothing, alone, both = (
        rungs.told(rungs.HOST, rungs.Means(**means)) for means in ({}, {"admin": True}, {"admin": True, "ptrace": True})
    )

    assert alone == nothing < both


def test_every_capability_that_the_agent_looks_for_has_a_section():
    assert CAPABILITIES.keys() <= set(re.findall(r"^## (CAP_\w+)$", TEXT["privileges.md"], re.MULTILINE))


# --- what can be run --------------------------------------------------------------------------------------------------


@pytest.fixture
def scratch(tmp_path):
    """A directory with the files that the pages speak of."""
    (tmp_path / "pgsonar.yaml").write_text("exporters: {otlp_http: {endpoint: 'http://localhost:4318'}}\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "20-fast.yaml").write_text("receivers: {sockets: {interval: 200ms}}\n")
    (tmp_path / "other-thresholds.yaml").write_text("processors: {leaks: {idle_in_transaction: {after: 1s}}}\n")
    shutil.copy(ROOT / "tests" / "scenarios" / "idle_in_transaction.rec", tmp_path / "incident.rec")
    return tmp_path


def reason(block):
    """Why a block is not run; None where it is."""
    found = re.fullmatch(r"not run: (.{15,})", block.mark)
    return found[1] if found else None


@pytest.mark.parametrize("block", named(block for block in blocks("sh") if reason(block) is None))
def test_every_command_shown_works(block, scratch):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in block.text.replace("\\\n", " ").strip().splitlines():
        done = subprocess.run(
            ["bash", "-c", line], cwd=scratch, env=environment, capture_output=True, text=True, check=False
        )
        allowed = (0, 1) if line.startswith(FOUND_NOTHING) and "--send-test" not in line else (0,)
        assert done.returncode in allowed, f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout, line
        assert "Traceback" not in done.stderr, done.stderr


def test_some_are_run_and_what_is_not_says_why():
    shown = blocks("sh")

    assert len([block for block in shown if reason(block) is None]) >= 5
    assert [block.mark for block in shown if block.mark and reason(block) is None] == []


@pytest.mark.parametrize("block", named(block for block in blocks("yaml") if not block.mark))
def test_every_configuration_shown_is_accepted(block, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(block.text)

    variables = dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", block.text), "a value of some length")
    assert load([str(file)], [], variables).exporters.keys() == yaml.safe_load(block.text)["exporters"].keys()


def test_what_is_no_configuration_of_ours_says_whose_it_is():
    others = [block for block in blocks("yaml") if block.mark]

    assert [block.mark for block in others if not block.mark.startswith("not a configuration of pgsonar: ")] == []
    assert all(yaml.safe_load(block.text) for block in others)


def test_every_command_exists_and_is_named():
    spans = re.findall(r"`([^`\n]+)`", "\n".join(map(prose, TEXT.values())))
    lines = [line for block in blocks("sh") for line in block.text.splitlines()]
    words = (re.match(r"pgsonar ([a-z][\w-]*)", said) for said in (*spans, *lines))

    assert {word[1] for word in words if word} == {command.name for command in COMMANDS}


# --- what can be looked up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXT)
def test_every_make_target_it_names_exists(name):
    targets = re.findall(r"(?:`|^)make ([a-z][\w-]*)", TEXT[name], re.MULTILINE)

    assert [target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)] == []


def test_the_readme_has_the_two_commands():
    assert set(re.findall(r"^make (\w+)", TEXT["README.md"], re.MULTILINE)) == {"demo", "test"}


def test_every_make_target_is_told():
    targets = re.findall(r"^([a-z-]+):.* ## ", MAKEFILE, re.MULTILINE)
    told = set(re.findall(r"`?make ([a-z][\w-]*)", "\n".join(TEXT.values())))

    assert [target for target in targets if target not in told | {"help", "wheel", "clean"}] == []


def files(text):
    """Every path of the repository that stands in backticks; those of contributing.md may begin in the house."""
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir()}
    roots = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build", "dist"}
    for path in re.findall(r"`([\w.-]+/[\w./-]*)`", text):
        first = path.partition("/")[0]
        if "KIND" not in path and first in roots | rooms:
            yield path if first in roots else f"agent/pgsonar/{path}"


@pytest.mark.parametrize("name", TEXT)
def test_every_file_it_names_exists(name):
    assert [path for path in files(TEXT[name]) if not (ROOT / path).exists()] == []


def test_files_are_named():
    assert len(list(files(TEXT["contributing.md"]))) > 40


def anchors(page):
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    astray = []
    for link in re.findall(r"\]\(([^)]+)\)", prose(TEXT[page.name])):
        path, _, anchor = link.partition("#")
        there = page if not path else page.parent / path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            astray.append(link)

    assert astray == []


# --- what it is like to read ------------------------------------------------------------------------------------------


def test_the_readme_is_read_in_three_minutes():
    assert len(TEXT["README.md"].splitlines()) <= 200


def test_the_readme_leads_to_every_page():
    links = set(re.findall(r"\]\(docs/([\w.]+)\)", TEXT["README.md"]))

    assert links == set(TEXT) - {README.name}


@pytest.mark.parametrize("page", [page for page in PAGES if page != README], ids=lambda page: page.name)
def test_a_page_begins_with_what_is_in_it_and_leads_to_its_neighbours(page):
    heading, opening, *_ = TEXT[page.name].split("\n\n")

    assert heading.startswith("# ")
    assert opening[0].isupper()
    assert re.search(r"\]\([\w./]*\.md", prose(TEXT[page.name]))


@pytest.mark.parametrize("name", TEXT)
def test_lines_fit(name):
    lines = prose(TEXT[name]).splitlines()

    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
