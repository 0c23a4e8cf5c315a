"""What a configuration says once and for all, and a reload cannot change.

The rule: whatever the agent holds open or has given out under one of these is never moved under its feet.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from pgsonar.config.schema import Config, OtlpExporter
from pgsonar.errors import ConfigError

FIXED: dict[str, Callable[[Config], object]] = {
    "extensions.file_storage": attrgetter("file_storage"),
    "extensions.flight_recorder": attrgetter("flight_recorder"),
    "service.telemetry.redaction": attrgetter("telemetry.redaction"),
}


def refuse_fixed(before: Config, after: Config) -> None:
    """Raises ConfigError where another configuration wants one of them otherwise."""
    changed = [key for key, part in FIXED.items() if part(before) != part(after)]
    was, will_be = _storages(before), _storages(after)
    changed += [key for key in was.keys() & will_be.keys() if was[key] != will_be[key]]
    if changed:
        raise ConfigError(f"{min(changed)} cannot change while the agent runs", "restart the agent")


def _storages(config: Config) -> dict[str, str | None]:
    """By its key, where what waits for an exporter is kept."""
    return {
        f"exporters.{name}.sending_queue.storage": section.sending_queue.storage
        for name, section in config.exporters.items()
        if isinstance(section, OtlpExporter)
    }
