"""Checks a configuration and shows where each signal comes from and goes to. Needs no server and no privilege."""

from __future__ import annotations

import argparse
import os
import sys

from pgsonar.commands.options import add_config_options
from pgsonar.config.addresses import display
from pgsonar.config.load import load
from pgsonar.config.schema import Config, FileExporter, OtlpExporter, Section

_SIGNALS = ("metrics", "logs", "traces")
_DEFAULT_ENDPOINTS = {"otlp_http": "http://localhost:4318", "otlp_grpc": "localhost:4317"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the pipelines of a configuration without errors; errors are raised."""
    config = load(arguments.config, arguments.set, os.environ)
    sys.stdout.write("\n".join(report_lines(config)) + "\n")
    return 0


def report_lines(config: Config) -> list[str]:
    """What a valid configuration does."""
    lines = ["The configuration is valid."]
    for signal in _SIGNALS:
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
    lines += [f"warning: {warning}" for warning in config.warnings]
    return lines


def _destination(exporter_id: str, exporter: Section, signal: str) -> str:
    if isinstance(exporter, FileExporter):
        return exporter.path
    if not isinstance(exporter, OtlpExporter):
        return ""
    exporter_type = exporter_id.partition("/")[0]
    if exporter_type == "otlp_http" and (own := getattr(exporter, f"{signal}_endpoint")):
        return display(own)
    endpoint = display(exporter.endpoint or _DEFAULT_ENDPOINTS[exporter_type])
    return f"{endpoint.rstrip('/')}/v1/{signal}" if exporter_type == "otlp_http" else endpoint
