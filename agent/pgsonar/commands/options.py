"""Options that several commands share."""

from __future__ import annotations

import argparse


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--config` and `--set`; they arrive as the lists `arguments.config` and `arguments.set`."""
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="PATH",
        help="a configuration in YAML, or a directory of *.yaml and *.yml, read in the order of their names; "
        "may be repeated, later files win (default: none, the OTEL_* variables decide)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting above the files, for example receivers.sockets.interval=200ms; may be repeated",
    )


def add_format_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--format`; it arrives as `arguments.format`."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")
