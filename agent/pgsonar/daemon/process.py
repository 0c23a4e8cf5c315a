"""What a command that runs for long sets up in its own process: its log, its limit of files, its end by a signal.

The rule: commands call these, nothing else does. The signals are for a command's first lines: until they are asked for,
each of them ends the process. So nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgsonar.config.schema import TelemetryLogs


def stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and SIGINT ask for an orderly end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def reload_on_signal(reload: threading.Event) -> None:
    """SIGHUP asks for the configuration to be read anew."""
    signal.signal(signal.SIGHUP, lambda *_: reload.set())


def raise_limit_of_files() -> None:
    """As far as we may: a descriptor is kept for each backend and five for each network namespace."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class JsonLines(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= getattr(record, "pgsonar", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_log(settings: TelemetryLogs) -> None:
    """Sends the agent's own log to standard error."""
    stream = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    text.converter = time.gmtime
    stream.setFormatter(JsonLines() if settings.encoding == "json" else text)
    level = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
    logging.basicConfig(level=level[settings.level], handlers=[stream], force=True)
    # urllib3 tells every retry; the exporters say what matters.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
