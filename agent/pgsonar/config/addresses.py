"""Endpoints as they are written: `host:port`, or a URL with http or https.

The rule: what is shown of a URL is scheme, host, port and path; user names, passwords and queries may be secrets.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

DEFAULT_ENDPOINTS = {"otlp_http": "http://localhost:4318", "otlp_grpc": "localhost:4317"}  # OTLP's own
# What is appended to an endpoint for each signal, and stands at the end of one that was pasted with it.
APPENDED = re.compile(r"/v1/(metrics|logs|traces)/*$")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@]*):(\d+)", re.ASCII)


def host_port_problem(text: str, *, listens: bool = False) -> str | None:
    """What is wrong with `host:port`; an empty host means every address, which only a listener can have."""
    match = _HOST_PORT.fullmatch(text)
    if match is None or not (match[1] or listens):
        return "expected host:port, such as localhost:4317 or [::1]:4317"
    return port_problem(int(match[2]))


def port_problem(port: int) -> str | None:
    """What is wrong with the number of a port."""
    return None if 1 <= port <= 65535 else f"expected a port from 1 to 65535, got {port}"


def url_problem(text: str) -> str | None:
    """What is wrong with an http or https URL."""
    wrong = "expected a URL with http:// or https://, such as http://localhost:4318"
    split = _split(text)
    if split is None or split.scheme not in ("http", "https") or not split.hostname or re.search(r"\s", text):
        return wrong
    try:
        return port_problem(split.port) if split.port is not None else None
    except ValueError:  # not a number, or past 65535
        return "expected a port from 1 to 65535 behind the host"


def grpc_problem(text: str) -> str | None:
    """What is wrong with a gRPC endpoint: `host:port`, before which http:// or https:// may stand."""
    return host_port_problem(without_scheme(text))


def without_scheme(text: str) -> str:
    """`host:port` of a URL that is nothing more than that; any other text as it is."""
    return re.sub(r"^https?://([^/]*)/?$", r"\1", text)


def has_no_path(text: str) -> bool:
    """Whether a URL names a host and nothing on it."""
    split = _split(text) if "://" in text else None
    return split is not None and split.path in ("", "/") and not split.query


def display(text: str) -> str:
    """An endpoint for people, without anything that may be secret."""
    if "://" not in text:
        return text.rpartition("@")[2]
    split = _split(text)
    if split is None:
        return "(not a URL)"
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}"


def _split(text: str) -> SplitResult | None:
    try:
        return urlsplit(text)
    except ValueError:  # brackets that do not match, or no IPv6 address within them
        return None
