"""Looks once at every PostgreSQL server on this host and shows who holds its slots. Needs no login and no slot."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys

from pgsonar.commands.options import add_config_options, add_format_option
from pgsonar.config.load import load
from pgsonar.daemon.once import look, opened
from pgsonar.views.scan import scan_lines
from pgsonar.views.scan_json import scan_object

WIDTHS = (80, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)
    add_format_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Looks once, prints, ends: 0 when a server was found, 1 when none was."""
    with opened(load(arguments.config, arguments.set, os.environ)) as (pipeline, sources):
        seen = look(pipeline, sources)
    if arguments.format == "json":
        json.dump(scan_object(seen), sys.stdout)
        sys.stdout.write("\n")
    else:
        width = WIDTHS[1] if shutil.get_terminal_size().columns >= WIDTHS[1] else WIDTHS[0]
        sys.stdout.write("\n".join(scan_lines(seen, width)) + "\n")
    return 0 if seen.found_something else 1
