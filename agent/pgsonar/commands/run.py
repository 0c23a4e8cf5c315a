"""Runs the agent until SIGTERM or SIGINT, and flushes before it ends. SIGHUP reads the configuration anew."""

from __future__ import annotations

import argparse
import os
from functools import partial

from pgsonar.commands.options import add_config_options
from pgsonar.config.load import load
from pgsonar.process import raise_limit_of_files, reload_on_signal, set_up_log, stop_on_signals
from pgsonar.service import Service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the service."""
    read = partial(load, arguments.config, arguments.set, os.environ)
    config = read()
    set_up_log(config.telemetry.logs)
    raise_limit_of_files()
    service = Service(config, load=read)
    stop_on_signals(service.stop)
    reload_on_signal(service.reload)
    service.run()
    return 0
