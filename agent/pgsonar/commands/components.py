"""Lists what a configuration can name: receivers, processors, exporters, extensions and presets, with their keys.

Made from the schema that reads configurations; what this version does not do is not listed. The value in brackets is
what holds when nothing is written. Needs no configuration, no server and no privilege.
"""

from __future__ import annotations

import argparse
import json
import sys

from pgsonar.commands.options import add_format_option
from pgsonar.config.catalog import catalog
from pgsonar.views.components import component_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_format_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the list."""
    told = catalog()
    if arguments.format == "json":
        json.dump(told, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(component_lines(told)) + "\n")
    return 0
