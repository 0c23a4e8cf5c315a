"""What a configuration says once and for all, and a reload cannot change.

The rule: whatever the agent holds open or has given out under one of these is never moved under its feet.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from pgsonar.config.schema import Config
from pgsonar.errors import ConfigError

FIXED: dict[str, Callable[[Config], object]] = {
    "extensions.file_storage": attrgetter("file_storage"),
    "extensions.flight_recorder": attrgetter("flight_recorder"),
    "service.telemetry.redaction": attrgetter("telemetry.redaction"),
}


def refuse_fixed(before: Config, after: Config) -> None:
    """Raises ConfigError where another configuration wants one of them otherwise."""
    for key, part in FIXED.items():
        if part(before) != part(after):
            raise ConfigError(f"{key} cannot change while the agent runs", "restart the agent")
