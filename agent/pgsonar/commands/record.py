"""Records what the agent reads into a file, until SIGTERM or SIGINT or for a while. Sends nothing to anybody.

`pgsonar replay` plays it, here or elsewhere, also with other thresholds. What names clients is rewritten as
service.telemetry.redaction says. FILE is rotated: FILE.1 is the one before, and so on.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading

import msgspec

from pgsonar.commands.options import add_config_options
from pgsonar.config.load import load
from pgsonar.config.schema import Config, LeaksProcessor, Pipelines, type_of_extension
from pgsonar.config.units import ByteSize, Duration
from pgsonar.daemon.process import raise_limit_of_files, set_up_log, stop_on_signals
from pgsonar.daemon.service import Service
from pgsonar.errors import ConfigError
from pgsonar.recording.rotation import RotatingFiles

_LEAST = 1 << 16  # bytes of a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("file", metavar="FILE", help="where to; an older recording of this name becomes FILE.1")
    add_config_options(parser)
    parser.add_argument("--duration", type=_duration, help="how long, for example 5m (default: until it is stopped)")
    parser.add_argument(
        "--max-bytes",
        type=_size,
        default=ByteSize(64 << 20),
        metavar="SIZE",
        help="of all files together; the oldest is removed (default: 64MiB)",
    )
    parser.add_argument("--files", type=int, default=4, metavar="N", help="how many files (default: 4)")


def run(arguments: argparse.Namespace) -> int:
    """Records; 1 when the disk refused."""
    stop = threading.Event()
    stop_on_signals(stop)
    config = recording_only(load(arguments.config, arguments.set, os.environ))
    if arguments.files < 1 or arguments.max_bytes // arguments.files < _LEAST:
        raise ConfigError(
            f"{arguments.max_bytes} in {arguments.files} files: each needs {ByteSize(_LEAST)} or more",
            "raise --max-bytes",
        )
    files = RotatingFiles(arguments.file, arguments.max_bytes, arguments.files, stop.set)
    set_up_log(config.telemetry.logs)
    raise_limit_of_files()
    service = Service(config, stop, files)
    if arguments.duration is not None:
        timer = threading.Timer(arguments.duration, stop.set)
        timer.daemon = True
        timer.start()
    service.run()
    files.close()
    if files.error is not None:
        raise files.error
    sys.stderr.write(f"recorded {ByteSize(files.written)} bytes into {arguments.file}\n")
    return 0


def recording_only(config: Config) -> Config:
    """The configuration without what sends, asks, answers or writes elsewhere. All detectors look: they may later."""
    extensions = dict.fromkeys(set(type_of_extension) & set(config.__struct_fields__))
    leaks = config.leaks or LeaksProcessor()
    # Two who shorten a keepalive at once would each take the other's for the one to restore.
    leaks = msgspec.structs.replace(leaks, half_open=msgspec.structs.replace(leaks.half_open, probe=False))
    return msgspec.structs.replace(config, leaks=leaks, exporters={}, pipelines=Pipelines(), **extensions)


def _duration(text: str) -> Duration:
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> ByteSize:
    try:
        return ByteSize.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
