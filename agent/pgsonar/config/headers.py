"""Headers of an exporter, in whatever spelling they were copied from.

The rule: one value is one value, however it is written: in YAML's quotes or in its own, percent-encoded as in
OTEL_EXPORTER_OTLP_HEADERS or plain. A literal `%20` is written `%2520`. No error shows a value.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from pgsonar.config.problems import Problems

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e]*")
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: Header-Name, ASCII-Value
_GRPC_NAME = re.compile(r"[0-9A-Za-z_.-]+")
_GRPC_VALUE = re.compile(r"[\x20-\x7e]*")
_ENCODED = re.compile(r"(?:[^%\s]|%[0-9A-Fa-f]{2})+")  # each % is the beginning of an escape, and spaces are escaped
_OURS = ("content-type", "content-encoding", "content-length", "transfer-encoding", "te")


def plain(written: Any) -> Any:
    """The headers of a file with their values as they are sent; what is no mapping is left to the schema.

    The Collector's list of `{name: ..., value: ...}` is one as well.
    """
    if isinstance(written, list) and all(isinstance(one, dict) and set(one) == {"name", "value"} for one in written):
        written = {one["name"]: one["value"] for one in written if isinstance(one["name"], str)}
    if not isinstance(written, dict):
        return written
    return {name: value(text) if isinstance(text, str) else text for name, text in written.items()}


def value(text: str) -> str:
    """The value that is written as a text."""
    if _is_quoted(text):
        text = text[1:-1]
    return unquote(text) if _is_encoded(text) else text


def text_of(sent: str) -> str:
    """A text that is read as the value: most are themselves."""
    text = sent.replace("%", "%25") if _is_encoded(sent) else sent
    return f'"{text}"' if _is_quoted(text) else text


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"'


def _is_encoded(text: str) -> bool:
    return "%" in text and _ENCODED.fullmatch(text) is not None


def check_headers(headers: dict[str, str], key: str, problems: Problems, *, grpc: bool) -> None:
    """Names and values that cannot be sent, or not twice."""
    seen: set[str] = set()
    for name, text in headers.items():
        if not (_GRPC_NAME if grpc else _NAME).fullmatch(name):
            problems.error(key, f"{name!r} cannot be the name of a header")
            continue
        place, lower = f"{key}.{name}", name.lower()
        if lower in seen:
            problems.error(place, "is there twice", "upper and lower case make no difference in a header's name")
        seen.add(lower)
        if not (_GRPC_VALUE if grpc else _VALUE).fullmatch(text):
            hint = "it ends in a line break: write the secret without one" if text.endswith("\n") else ""
            problems.error(place, "holds characters that a header cannot carry", hint)
        if grpc and (lower.endswith("-bin") or lower.startswith("grpc-")):
            problems.error(place, "is a name that gRPC keeps for itself", "names that begin with grpc- or end in -bin")
        if lower in _OURS:
            problems.warn(place, "without effect: the exporter sets it")
