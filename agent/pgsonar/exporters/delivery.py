"""What can become of a request, in words that all transports share.

The rule: a transport says what the other side answered; whether to try again is decided in one place (sender.py).
"""

from __future__ import annotations

from typing import Protocol

from pgsonar.exporters.encoding import Encoded

ENDED = "the exporter is being closed"


class Retryable(Exception):  # noqa: N818 - it names what may be done, as Refused does
    """It did not arrive and may be sent again, after `wait` seconds if the other side asked for that."""

    def __init__(self, reason: str, wait: float | None = None, hint: str = "") -> None:
        super().__init__(reason)
        self.wait = wait
        self.hint = hint


class Refused(Exception):  # noqa: N818
    """It arrived and is not wanted: sending it again would not help."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class TooLarge(Exception):  # noqa: N818
    """The other side takes no request of this size: smaller ones may arrive."""


class Transport(Protocol):
    """Delivers one request: returns how many items were rejected and why, or raises one of the above.

    A reason with no item rejected is a remark of the backend.
    """

    def deliver(self, encoded: Encoded) -> tuple[int, str]: ...
    def close(self) -> None: ...
