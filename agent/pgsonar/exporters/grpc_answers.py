"""What a status over gRPC means (https://opentelemetry.io/docs/specs/otlp/#failures).

The rule: as the specification lists the codes. RESOURCE_EXHAUSTED may be tried again only where the backend says when;
what is too large is known by the text, as no code tells it.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from pgsonar.exporters.answers import SAID_MOST, bounded
from pgsonar.exporters.delivery import Refused, Retryable, TooLarge
from pgsonar.exporters.troubles import GRPC_PORT, HTTP_PORT, Trouble, trouble_of

_RETRYABLE = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
# Of gRPC's core and Go, of tonic (Rust), and of a proxy that speaks HTTP/2.
_TOO_LARGE = ("larger than max", "message length too large", "header with status: 413")
_HINTS = {
    "UNAUTHENTICATED": "check the headers of the exporter: the key is missing or wrong",
    "PERMISSION_DENIED": "check the headers of the exporter: the key may not write",
    "UNIMPLEMENTED": f"check the endpoint: it is no OTLP receiver for this signal (its port is {GRPC_PORT} by default)",
    "INVALID_ARGUMENT": "the backend does not accept this form: look at its OTLP documentation, temporality above all",
    "RESOURCE_EXHAUSTED": "the backend has no room for it and does not say when to come again: look at its quota",
}


class Call(NamedTuple):
    """How a call ended."""

    code: str  # as in grpc.StatusCode
    details: str
    status: bytes | None  # of the trailer grpc-status-details-bin


def judge(call: Call, *, port: int, wants_certificate: bool) -> Retryable | Refused | TooLarge:
    """What is to be raised; `wants_certificate` says that we speak TLS and have none to show."""
    said = call.code.lower()
    if text := " ".join(call.details.split())[:SAID_MOST]:
        said += f": {text}"
    if any(words in call.details for words in _TOO_LARGE):
        return TooLarge(said)
    wait, remark = _retry_delay(call.status)
    if call.code in _RETRYABLE:
        trouble = trouble_of(call.details, port=port, wrong_port=HTTP_PORT, wants_certificate=wants_certificate)
        trouble = trouble or Trouble(said)
        return Retryable(trouble.reason + remark, wait, trouble.hint)
    if call.code == "RESOURCE_EXHAUSTED" and wait is not None:
        return Retryable(said + remark, wait)
    return Refused(said, _HINTS.get(call.code, ""))


def _retry_delay(status: bytes | None) -> tuple[float | None, str]:
    """The wait of a google.rpc.RetryInfo, bounded; None where there is none."""
    if status is None:
        return None, ""
    try:
        for detail in Status.FromString(status).details:
            info = RetryInfo()
            if detail.Unpack(info):
                return bounded(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        pass
    return None, ""
