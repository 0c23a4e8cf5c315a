"""Runs the agent until SIGTERM or SIGINT, and flushes before it ends. SIGHUP reads the configuration anew."""

from __future__ import annotations

import argparse
import os
import threading
from functools import partial

from pgsonar.commands.options import add_config_options
from pgsonar.daemon.process import raise_limit_of_files, reload_on_signal, set_up_log, stop_on_signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the service."""
    stop, reload = threading.Event(), threading.Event()
    stop_on_signals(stop)
    reload_on_signal(reload)
    from pgsonar.config.load import load  # noqa: PLC0415 - they take their time, and a signal may come meanwhile
    from pgsonar.daemon.service import Service  # noqa: PLC0415 - the same

    read = partial(load, arguments.config, arguments.set, os.environ)
    config = read()
    set_up_log(config.telemetry.logs)
    raise_limit_of_files()
    Service(config, stop, load=read, reload=reload).run()
    return 0
