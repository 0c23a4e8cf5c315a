"""Plays recordings through the agent's own pipeline, and prints the leaks that were opened, updated and resolved.

The same recording with the same configuration prints the same, to the byte. With --config other thresholds can be
tried. A file that is cut off or damaged is played up to the damage. Files of one recording may be named together.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from pgsonar.commands.options import add_config_options, add_format_option
from pgsonar.config.load import load
from pgsonar.config.schema import LeaksProcessor
from pgsonar.recording.replaying import Heard, Played, play
from pgsonar.signals.rows import EventRow
from pgsonar.sources.recording import Header
from pgsonar.views.replay import end_line, event_json, event_lines, head_line

EVERY = 0.2  # seconds between two signs of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recording of `pgsonar record` or of the agent's")
    add_config_options(parser)
    add_format_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plays everything there is; damage is told, and no error."""
    config = load(arguments.config, arguments.set, os.environ)
    progress = Progress(is_shown=sys.stderr.isatty())
    for heard in play(arguments.files, config.leaks or LeaksProcessor(), config.telemetry, progress):
        progress.clear()
        for line in _json(heard) if arguments.format == "json" else _text(heard):
            sys.stdout.write(f"{line}\n")
        if isinstance(heard, Played) and heard.damage is not None:
            sys.stdout.flush()
            sys.stderr.write(f"pgsonar: {heard.damage}; it was played up to there\n")
    return 0


def _text(heard: Heard) -> list[str]:
    if isinstance(heard, Header):
        return [head_line(heard.host, heard.version, heard.hidden)]
    if isinstance(heard, EventRow):
        return event_lines(heard)
    if heard.began is None or heard.ended is None:
        return ["END      nothing was recorded"]
    return [end_line(heard.began.unix, heard.ended.unix, heard.opened, heard.still_open)]


def _json(heard: Heard) -> list[str]:
    return [event_json(heard)] if isinstance(heard, EventRow) else []


class Progress:
    """A line on standard error that is written over, where somebody looks at it."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._told = time.monotonic()
        self._stands = False

    def __call__(self, done: int, total: int) -> None:
        if self._is_shown and time.monotonic() - self._told >= EVERY:
            self._told, self._stands = time.monotonic(), True
            sys.stderr.write(f"\rplaying, {100 * done // max(total, 1)} %")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._stands:
            sys.stderr.write("\r\033[K")
            self._stands = False
