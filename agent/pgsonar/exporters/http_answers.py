"""What an answer over HTTP means (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response).

The rule: any 2xx is success; 429, 502, 503 and 504 may be tried again, and so may what a proxy refused, as the backend
has seen nothing of it; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import time
from typing import NamedTuple
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError

from pgsonar.exporters.answers import RESPONSES, SAID_MOST, bounded, rejected
from pgsonar.exporters.delivery import Refused, Retryable, TooLarge
from pgsonar.exporters.encoding import Encoded
from pgsonar.exporters.troubles import GRPC_PORT, HTTP_PORT

_TOO_LARGE, _PROXY_LOGIN = 413, 407
_RETRYABLE = frozenset({_PROXY_LOGIN, 429, 502, 503, 504})
_HINTS = {
    400: "the backend does not accept this form: look at its OTLP documentation, temporality above all",
    401: "check the headers of the exporter: the key is missing or wrong",
    403: "check the headers of the exporter: the key may not write",
    404: "check the endpoint: /v1/metrics, /v1/logs and /v1/traces are appended to it",
    405: "check the endpoint: what answers there is no OTLP receiver",
    _PROXY_LOGIN: "write user and password into the proxy's URL, in proxy_url or HTTP_PROXY",
    415: "the endpoint does not speak OTLP over HTTP/protobuf",
    426: f"use otlp_grpc, or the HTTP port ({HTTP_PORT} by default; {GRPC_PORT} is that of gRPC)",
}


class Answer(NamedTuple):
    """What came back: the start of the body is enough."""

    status: int
    headers: Mapping[str, str]  # their names in any case
    body: bytes


def judge(encoded: Encoded, answer: Answer) -> tuple[int, str]:
    """How many items were rejected and why, as delivery.Transport has it; raises what it names."""
    status = answer.status
    if 200 <= status < 300:
        return _rejected(encoded, answer)
    said = f"HTTP {status} {_said(answer)}".rstrip()
    if status in _RETRYABLE:
        wait, remark = retry_after(answer.headers.get("Retry-After"))
        raise Retryable(said + remark, wait, _HINTS.get(status, ""))
    if status == _TOO_LARGE:
        raise TooLarge(said)
    if 300 <= status < 400:
        raise Refused(said, _elsewhere(answer.headers.get("Location")))
    if status == 400 and "https" in said.lower():  # what servers of TLS say to a request without
        raise Refused(said, "write https:// in the endpoint")
    raise Refused(said, _HINTS.get(status, ""))


def retry_after(value: str | None) -> tuple[float | None, str]:
    """Seconds or a date (RFC 9110, section 10.2.3), bounded; None where it is neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return bounded(float(text))
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return bounded(date.timestamp() - time())
    except (ValueError, OverflowError):
        return None, ""


def _rejected(encoded: Encoded, answer: Answer) -> tuple[int, str]:
    if not _is_protobuf(answer, otherwise=True):
        return 0, ""
    try:
        return rejected(encoded, RESPONSES[encoded.signal].FromString(answer.body))
    except DecodeError:  # some backends answer with plain text, and do not say so
        return 0, ""


def _is_protobuf(answer: Answer, *, otherwise: bool) -> bool:
    """What the answer says of itself; `otherwise` where it says nothing."""
    kind = answer.headers.get("Content-Type", "")
    return "protobuf" in kind.lower() if kind else otherwise


def _said(answer: Answer) -> str:
    """The start of an error's text, where it is text."""
    text = _message(answer.body) if _is_protobuf(answer, otherwise=False) else None
    if text is None:
        text = answer.body.decode("utf-8", "replace")
    text = " ".join(text[:SAID_MOST].split())
    return text if text.isprintable() and not text.startswith("<") else ""  # a page for browsers says little


def _message(body: bytes) -> str | None:
    """That of a google.rpc.Status, in which the specification wants errors told."""
    from google.rpc.status_pb2 import Status  # noqa: PLC0415 - for errors only

    try:
        return str(Status.FromString(body).message)
    except DecodeError:  # it was text after all
        return None


def _elsewhere(location: str | None) -> str:
    """Where a redirect points to: following it could lose the body, and give our key to somebody else."""
    try:
        target = urlsplit(location or "")
    except ValueError:
        return "check the endpoint"
    if not target.hostname:
        return "check the endpoint: it redirects to another path"
    port = f":{target.port}" if target.port else ""
    return f"if you trust it, write the endpoint it redirects to: {target.scheme or 'https'}://{target.hostname}{port}"
