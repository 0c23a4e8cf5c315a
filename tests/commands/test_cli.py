"""The command line from outside: exit codes, help and errors."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgsonar import __version__, commands
from pgsonar.commands import COMMANDS, main
from pgsonar.errors import PgsonarError

AGENT = str(Path(commands.__file__).parent.parent.parent)
ENVIRON = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
ENVIRON |= {"COLUMNS": "80", "PYTHONPATH": AGENT}


def pgsonar(*words):
    command = [sys.executable, "-m", "pgsonar", *words]
    return subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=60, check=False)


def test_version_is_printed():
    ended = pgsonar("--version")

    assert (ended.returncode, ended.stdout) == (0, f"pgsonar {__version__}\n")


def test_version_needs_no_heavy_part():
    program = (
        "import sys; from pgsonar.commands import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'yaml', 'msgspec', 'urllib3', 'grpc', 'rich', 'psycopg', 'opentelemetry'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )

    ended = subprocess.run([sys.executable, "-c", program], env=ENVIRON, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_no_command_prints_help_and_fails():
    ended = pgsonar()

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "commands:" in ended.stderr


@pytest.mark.parametrize("words", [(), *((command.name,) for command in COMMANDS)], ids=" ".join)
def test_help_fits_80_columns(words):
    ended = pgsonar(*words, "--help")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert max(len(line) for line in ended.stdout.splitlines()) <= 80


def test_the_help_names_every_command():
    text = pgsonar("--help").stdout

    for command in COMMANDS:
        assert f"  {command.name} " in text
        assert command.summary in text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_options_and_a_run(command):
    module = importlib.import_module(command.module)

    assert module.__doc__
    assert callable(module.add_arguments)
    assert callable(module.run)


def test_an_unknown_command_names_the_near_one():
    ended = pgsonar("vaildate")

    assert ended.returncode == 2
    assert ended.stderr.startswith("pgsonar: unknown command vaildate\n  hint: did you mean validate?")


@pytest.mark.parametrize(
    "words", [("--versoin",), ("validate", "--confg", "x"), ("validate", "extra"), ("validate", "-c")]
)
def test_wrong_options_end_with_2(words):
    ended = pgsonar(*words)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "error:" in ended.stderr


def test_a_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pgsonar", "validate"]

    ended = subprocess.run(command, env=ENVIRON, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (141, "")


class Raises:
    """A command that ends with an exception."""

    def __init__(self, error):
        self.error = error

    def add_arguments(self, _):
        pass

    def run(self, _):
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PgsonarError("no luck", "try again"), 1, "pgsonar: no luck\n  hint: try again\n"),
        (PgsonarError("no luck"), 1, "pgsonar: no luck\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_of_ours_are_told_without_a_traceback(monkeypatch, capsys, error, code, said):
    monkeypatch.setattr(commands, "COMMANDS", (commands.Command("fail", "fail_command", ""),))
    monkeypatch.setitem(sys.modules, "fail_command", Raises(error))

    assert main(["fail"]) == code
    assert capsys.readouterr().err == said
