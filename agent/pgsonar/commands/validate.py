"""Checks a configuration and shows where each signal comes from and goes to.

Runs on any machine: no file but the configuration is opened, no name resolved, nothing asked. A file that is named and
is not on this machine is a warning here, and an error of `pgsonar run`. Exit code 2: the configuration is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap

from pgsonar.commands.options import add_config_options
from pgsonar.config.addresses import DEFAULT_ENDPOINTS, display
from pgsonar.config.load import read
from pgsonar.config.schema import SIGNALS, Config, FileExporter, OtlpExporter, Section

_WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the pipelines of a configuration without errors; errors are raised."""
    config = read(arguments.config, arguments.set, os.environ, is_for_here=False).config
    sys.stdout.write("\n".join(report_lines(config)) + "\n")
    return 0


def report_lines(config: Config) -> list[str]:
    """What a valid configuration does."""
    lines = ["The configuration is valid."]
    for signal in SIGNALS:
        pipeline = getattr(config.pipelines, signal)
        label = f"  {signal + ':':<9}"
        if pipeline is None:
            lines.append(f"{label}goes nowhere")
            continue
        stages = [" + ".join(stage) for stage in (pipeline.receivers, pipeline.processors) if stage]
        lines.append(f"{label}{' -> '.join(stages)}")
        for name in pipeline.exporters:
            where = _destination(name, config.exporters[name], signal)
            lines.append(f"           -> {name}{where and f' ({where})'}")
    lines.append(f"  health:  {f'http://{config.health_check.endpoint}' if config.health_check else 'off'}")
    if config.file_storage is not None:
        lines.append(f"  state:   {config.file_storage.directory}")
    for warning in config.warnings:
        lines += textwrap.wrap(f"warning: {warning}", _WIDTH, subsequent_indent="  ", break_long_words=False)
    return lines


def _destination(exporter_id: str, exporter: Section, signal: str) -> str:
    if isinstance(exporter, FileExporter):
        return exporter.path
    if not isinstance(exporter, OtlpExporter):
        return ""
    exporter_type = exporter_id.partition("/")[0]
    if exporter_type == "otlp_http" and (own := getattr(exporter, f"{signal}_endpoint")):
        return display(own)
    endpoint = display(exporter.endpoint or DEFAULT_ENDPOINTS[exporter_type])
    return f"{endpoint.rstrip('/')}/v1/{signal}" if exporter_type == "otlp_http" else endpoint
