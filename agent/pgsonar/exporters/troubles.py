"""What goes wrong on the way to a backend, in a few words and with a hint, the same for both protocols.

The rule: the libraries' own texts are read here and shown nowhere; what a backend says is shown with our secrets
struck out of it, as some repeat the key that they refuse.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import NamedTuple

HTTP_PORT, GRPC_PORT = 4318, 4317
_SHORTEST_SECRET = 6  # characters; striking out less would leave no text
_OWN = "look at tls.cert_file and tls.key_file, and at whom the backend trusts"
_PROXY_LOGIN = "write user and password into its URL: http://user:password@host:port, in proxy_url or HTTPS_PROXY"


class Trouble(NamedTuple):
    """What is wrong, and what to do."""

    reason: str
    hint: str = ""


# What a library says, in lower case, and what that means; the first that is found.
_KNOWN: tuple[tuple[str, Trouble], ...] = (
    ("alert certificate required", Trouble("it wants a client certificate", "set tls.cert_file and tls.key_file")),
    ("alert certificate expired", Trouble("it says that our certificate has expired", _OWN)),
    ("alert unknown ca", Trouble("it does not trust the issuer of our certificate", _OWN)),
    ("alert bad certificate", Trouble("it does not accept our certificate", _OWN)),
    ("alert certificate unknown", Trouble("it does not accept our certificate", _OWN)),
    ("alert handshake failure", Trouble("it and we agree on no kind of TLS", _OWN)),
    ("certificate has expired", Trouble("its certificate has expired", "renew it there; or is our clock wrong?")),
    ("certificate is not yet valid", Trouble("its certificate is not valid yet", "look at the clocks of both hosts")),
    *(
        (text, Trouble("its certificate is for another name", "set tls.server_name_override to a name that is in it"))
        for text in ("hostname mismatch", "ip address mismatch", "hostname verification check failed")
    ),
    ("certificate_verify_failed", Trouble("its certificate is not trusted", "set tls.ca_file to its issuer")),
    *(
        (text, Trouble("it does not speak TLS", "write http:// in the endpoint (gRPC: tls.insecure), or another port"))
        for text in ("wrong_version_number", "record_layer_failure", "packet_length_too_long", "[ssl: http_request]")
    ),
    ("tunnel connection failed: 407", Trouble("the proxy wants a login (407)", _PROXY_LOGIN)),
    ("proxy returned response code 407", Trouble("the proxy wants a login (407)", _PROXY_LOGIN)),
    ("tunnel connection failed", Trouble("the proxy does not let us through", "allow the endpoint's host and port")),
    ("proxy returned response", Trouble("the proxy does not let us through", "allow the endpoint's host and port")),
    *(
        (text, Trouble("it does not speak gRPC", f"use otlp_http, or its gRPC port ({GRPC_PORT}?)"))
        for text in ("http1.x server", "expected settings frame", "no alpn protocol", "cannot check peer: missing sel")
    ),
    (
        "badstatusline",
        Trouble("it does not speak HTTP/1.1", f"use otlp_grpc, or its HTTP port ({HTTP_PORT}?)"),
    ),
    *(
        (text, Trouble("the name of the host is not known", "look at the endpoint and at DNS"))
        for text in ("name or service not known", "domain name not found", "no address associated")
    ),
    *(
        (text, Trouble("the name of the host cannot be looked up now", "look at DNS"))
        for text in ("temporary failure in name resolution", "errors resolving", "dns resolution failed")
    ),
    (
        "no such file or directory",
        Trouble("there is no such socket", "is the receiver running, and does it listen there?"),
    ),
    ("permission denied", Trouble("permission denied", "of a unix socket: run as a member of its group")),
    ("connection refused", Trouble("connection refused")),
    ("no route to host", Trouble("no route to host")),
    ("network is unreachable", Trouble("network is unreachable")),
    *((text, Trouble("timed out")) for text in ("timed out", "deadline exceeded", "timeout")),
)
_CLOSED = ("connection reset", "socket closed", "remote end closed", "eof occurred", "broken pipe", "stream removed")


def trouble_of(text: str, *, port: int, wrong_port: int, wants_certificate: bool = False) -> Trouble | None:
    """What a library's text means; None when it is not known.

    `wrong_port` is the other protocol's; `wants_certificate` says that we speak TLS and have none to show.
    """
    text = text.lower()
    for known, trouble in _KNOWN:
        if known in text:
            return trouble
    if not any(closed in text for closed in _CLOSED):
        return None
    hint = ""
    if port == wrong_port:
        hint = {
            GRPC_PORT: f"{GRPC_PORT} is the port of gRPC: use otlp_grpc, or port {HTTP_PORT}",
            HTTP_PORT: f"{HTTP_PORT} is the port of HTTP: use otlp_http, or port {GRPC_PORT}",
        }[wrong_port]
    elif wants_certificate:
        hint = "if it wants a client certificate: tls.cert_file and tls.key_file"
    return Trouble("the connection was closed", hint)


class Secrets:
    """What must not be shown: the values of headers, and user and password of URLs."""

    def __init__(self, texts: Iterable[str | None]) -> None:
        parts = {part for text in texts if text for part in _parts(text) if len(part) >= _SHORTEST_SECRET}
        self._parts = sorted(parts, key=len, reverse=True)  # the whole before what it consists of

    def hide(self, text: str) -> str:
        """The text without its secrets."""
        for part in self._parts:
            text = text.replace(part, "[redacted]")
        return text


def _parts(text: str) -> Iterable[str]:
    """A header's value, its words behind the first (a scheme: `Bearer`), and what is encoded in a `Basic` one."""
    yield text
    words = text.split()
    yield from words[1:]
    if len(words) == 2 and words[0].lower() == "basic":
        try:
            login = base64.b64decode(words[1], validate=True).decode("utf-8", "replace")
        except (ValueError, binascii.Error):
            return
        yield login
        yield from login.split(":", 1)
