"""One batch through an exporter's own encoder and transport, once, and what the other side answered.

The rule: no queue and no second attempt. Whatever goes wrong is an answer, and never an exception.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pgsonar.config.schema import Section
from pgsonar.errors import PgsonarError
from pgsonar.exporters import form_of, way_of
from pgsonar.exporters.delivery import Refused, Retryable, TooLarge, Transport
from pgsonar.exporters.encoding import Encoded, Encoder
from pgsonar.signals.rows import Batch, Signal

_LATER = "the agent would keep it and try again; is the endpoint right, and reachable from here?"
_LEFT_OUT = "not sent: the form of this exporter leaves it out"


class Answer(NamedTuple):
    """What became of one batch. `seconds` is None where nothing was sent."""

    signal: Signal
    is_accepted: bool
    said: str
    hint: str = ""
    seconds: float | None = None


def attempt(component: str, config: Section, batches: Iterable[Batch]) -> Iterator[Answer]:
    """Sends each batch through the exporter of a component id."""
    batches = list(batches)
    try:
        transport = way_of(component, config).transport
        encoder = Encoder(form_of(config))
    except (PgsonarError, OSError, ValueError) as error:  # a certificate that is none, above all
        for batch in batches:
            said, hint = f"cannot be opened: {error}", getattr(error, "hint", "")
            yield Answer(batch.signal, is_accepted=False, said=said, hint=hint)
        return
    try:
        for batch in batches:
            requests = encoder.encode(batch)
            if not requests:
                yield Answer(batch.signal, is_accepted=True, said=_LEFT_OUT)
            for encoded in requests:
                yield _deliver(transport, encoded)
    finally:
        transport.close()


def _deliver(transport: Transport, encoded: Encoded) -> Answer:
    began = time.monotonic()
    is_accepted, hint = False, ""
    try:
        rejected, reason = transport.deliver(encoded)
    except Retryable as error:
        said, hint = str(error), error.hint or _LATER
    except Refused as error:
        said, hint = f"refused: {error}", error.hint
    except TooLarge as error:
        said = f"refused as too large: {error}"
    else:
        is_accepted = not rejected
        said = "accepted" if is_accepted else f"answered with success, and rejected {rejected} of {encoded.items}"
        said += f": {reason}" if reason else ""  # a backend may warn of what it takes
    return Answer(encoded.signal, is_accepted, said, hint, time.monotonic() - began)
