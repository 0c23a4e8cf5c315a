"""The command line: `main`, and the list of commands.

The rule: a command is one module with `add_arguments(parser)` and `run(arguments) -> int`, whose docstring is its help
text. It is imported when it is the one that runs, so that `pgsonar --version` stays light.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from pgsonar import __version__
from pgsonar.errors import ConfigError, PgsonarError

_INTERRUPTED = 130  # 128 + SIGINT, as shells count
_BROKEN_PIPE = 141  # 128 + SIGPIPE


class Command(NamedTuple):
    """One line of the list."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("run", "pgsonar.commands.run", "run the agent"),
    Command("scan", "pgsonar.commands.scan", "look once at every server on this host"),
    Command("doctor", "pgsonar.commands.doctor", "tell what works here, what does not, and what that costs"),
    Command("record", "pgsonar.commands.record", "record what the agent reads into a file"),
    Command("replay", "pgsonar.commands.replay", "play recordings, also with other thresholds"),
    Command("validate", "pgsonar.commands.validate", "check a configuration, and show where signals go"),
    Command("print-config", "pgsonar.commands.print_config", "print the configuration, and where each value came from"),
    Command("components", "pgsonar.commands.components", "list what a configuration can name, with its keys"),
    Command("demo", "pgsonar.commands.demo", "leak connections of a PostgreSQL of its own, and find them"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code; errors of ours are told on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except PgsonarError as error:
        sys.stderr.write(f"pgsonar: {error}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as `head` does. The interpreter must not fail once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


def _dispatch(words: list[str]) -> int:
    if not words:
        sys.stderr.write(_top_parser().format_help())
        return ConfigError.exit_code
    name, rest = words[0], words[1:]
    for command in COMMANDS:
        if command.name == name:
            module: Any = importlib.import_module(command.module)
            parser = argparse.ArgumentParser(prog=f"pgsonar {name}", description=module.__doc__, allow_abbrev=False)
            module.add_arguments(parser)
            return int(module.run(parser.parse_args(rest)))
    if name.startswith("-"):
        _top_parser().parse_args(words)
    raise _unknown(name)


def _top_parser() -> argparse.ArgumentParser:
    """What answers `--help` and `--version`, and refuses other options."""
    commands = "\n".join(f"  {command.name:<12} {command.summary}" for command in COMMANDS)
    parser = argparse.ArgumentParser(
        prog="pgsonar",
        usage="pgsonar [-h] [--version] COMMAND ...",
        description="Finds PostgreSQL connections that leak or hang, names who leaked them,\nand reports it over OTLP.",
        epilog=f"commands:\n{commands}\n\n`pgsonar COMMAND --help` tells more about one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pgsonar {__version__}")
    return parser


def _unknown(name: str) -> ConfigError:
    import difflib  # noqa: PLC0415 - only for those who mistype

    names = [command.name for command in COMMANDS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return ConfigError(f"unknown command {name}", f"{hint}commands: {', '.join(names)}")
