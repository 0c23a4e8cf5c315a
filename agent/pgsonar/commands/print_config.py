"""Prints the configuration in force, with the place where each value came from.

Defaults, OTEL_* variables, files, presets and --set, as `pgsonar run` with the same options would see them. What is
printed can be given to --config again. Secrets are left out, references to variables are shown in their place.
Opens no file but the configuration; runs on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from pgsonar import __version__
from pgsonar.commands.options import add_config_options
from pgsonar.config.effective import effective, trace, values
from pgsonar.config.load import read
from pgsonar.config.reading import Document
from pgsonar.config.schema import LeaksProcessor
from pgsonar.config.units import Duration
from pgsonar.config.writing import yaml_lines
from pgsonar.detectors import detectors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)
    parser.add_argument("--show-secrets", action="store_true", help="print passwords, keys and headers as they are")
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="what to print (default: yaml)")


def run(arguments: argparse.Namespace) -> int:
    """Prints a configuration without errors; errors are raised."""
    loaded = read(arguments.config, arguments.set, os.environ, is_for_here=False)
    document = with_times(effective(loaded.config, loaded.components))
    tree = {
        section: trace(written, loaded.origins, shows_secrets=arguments.show_secrets, key=section)
        for section, written in document.items()
    }
    if arguments.format == "json":
        told = [{"key": one.key, "value": one.value, "origin": one.origin} for one in values(tree)]
        json.dump(told, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 0
    lines = [f"# pgsonar {__version__}: the configuration in force, and where each value came from"]
    lines += ["# secrets are left out; --show-secrets shows them"] if not arguments.show_secrets else []
    lines += [f"# file: {json.dumps(file)[1:-1]}" for file in loaded.files]
    sys.stdout.write("\n".join([*lines, *yaml_lines(tree)]) + "\n")
    return 0


def with_times(document: Document) -> Document:
    """The same with the `after` of each kind that has none written: the kind's own."""
    made = detectors(LeaksProcessor())
    after = {one.kind: str(Duration(one.after)) for one in made.servers}
    after |= {one.kind: str(Duration(one.after)) for one in made.poolers}
    after |= {one.kind: str(Duration(one.after)) for one in made.clients}
    processors = {
        component: {
            name: {"enabled": kind["enabled"], "after": after[name], **kind} if name in after else kind
            for name, kind in section.items()
        }
        for component, section in document["processors"].items()
    }
    return {**document, "processors": processors}
