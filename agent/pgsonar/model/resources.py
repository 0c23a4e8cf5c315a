"""Who a signal is about."""

from __future__ import annotations

from typing import NamedTuple


class Resource(NamedTuple):
    """Who a signal is about, as OpenTelemetry resource attributes."""

    attributes: tuple[tuple[str, str | int], ...]
