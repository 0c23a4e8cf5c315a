"""Durations, percentages and sizes as people write them in the Collector's configuration.

Durations are Go's (`1h30m`, `100ms`; https://pkg.go.dev/time#ParseDuration), sizes are `256MiB`, percentages `80%`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


class Instant(int):
    """A point in time as RFC 3339 writes it, in ns since the epoch. YAML may have read it already."""

    @classmethod
    def parse(cls, text: object) -> Instant:
        """Of text with an offset from UTC: a time that means another one elsewhere is an error."""
        try:
            when = text if isinstance(text, datetime) else datetime.fromisoformat(str(text).strip())
        except ValueError:
            when = None
        if when is None or when.tzinfo is None:
            raise ValueError(f"expected a time such as 2026-01-31T08:00:00Z, got {str(text)!r}")
        return cls(round(when.timestamp()) * 10**9)

    def __str__(self) -> str:
        return f"{datetime.fromtimestamp(self / 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"


class Duration(float):
    """Seconds. `0` needs no unit."""

    @classmethod
    def parse(cls, text: object) -> Duration:
        if isinstance(text, (int, float)) and not isinstance(text, bool) and text == 0:
            return cls(0)
        if not isinstance(text, str):
            raise ValueError(f"expected a duration such as 100ms, 5s or 1h30m, got {text!r}")  # noqa: TRY004 - msgspec names the key of a ValueError
        rest, total = text.strip(), 0.0
        if rest == "0":
            return cls(0)
        while match := _DURATION.match(rest):
            total += float(match[1]) * _SECONDS[match[2]]
            rest = rest[match.end() :]
        if rest or not text.strip() or not math.isfinite(total):
            raise ValueError(f"expected a duration such as 100ms, 5s or 1h30m, got {text!r}")
        return cls(round(total, 9))  # whole nanoseconds: what is printed reads back as the same

    def __str__(self) -> str:
        for unit, seconds in (("h", 3600), ("m", 60)):
            if self >= seconds and self % seconds == 0:
                return f"{int(self // seconds)}{unit}"
        unit, scale = ("s", 1) if self >= 1 or not self else ("ms", 1000)
        number = f"{self * scale:.9f}".rstrip("0").rstrip(".")
        return f"{number}{unit}"


class Percent(float):
    """A share, 0.8 for `80%`. May pass 1."""

    @classmethod
    def parse(cls, text: object) -> Percent:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"expected a percentage such as 80%, got {text!r}")
        return cls(float(match[1]) / 100)

    def __str__(self) -> str:
        number = f"{self * 100:.12f}".rstrip("0").rstrip(".")  # further digits are the float's own noise
        return f"{number}%"


class ByteSize(int):
    """Bytes, from `256MiB`."""

    @classmethod
    def parse(cls, text: object) -> ByteSize:
        if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
            return cls(text)
        match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None or match[2].upper() not in _BYTES:
            raise ValueError(f"expected a size such as 256MiB, got {text!r}")
        return cls(float(match[1]) * _BYTES[match[2].upper()])

    def __str__(self) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit.upper()] == 0:
                return f"{self // _BYTES[unit.upper()]}{unit}"
        return str(int(self))
