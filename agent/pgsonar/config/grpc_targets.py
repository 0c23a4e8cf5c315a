"""What gRPC dials: `host:port` with http:// or https:// or without, `dns:///host:port`, or the path of a unix socket.

The rule: as grpc spells its names (https://github.com/grpc/grpc/blob/master/doc/naming.md), of which those are accepted
that lead to one place. A scheme of URLs says whether there is TLS; without one the settings of TLS say it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pgsonar.config.addresses import (
    GRPC_PORT,
    HTTPS_PORT,
    Place,
    Unusable,
    apart,
    first_accepted,
    host_port,
    in_brackets,
    is_port,
    split_url,
)

_EXAMPLE = f"localhost:{GRPC_PORT}"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SOCKET_PATH_MOST = 107  # bytes (man 7 unix)
_SOCKET_PATH = re.compile(r"[A-Za-z0-9_./~@+,=-]+")


class GrpcTarget(NamedTuple):
    """What gRPC dials: a host and a port, or a unix socket, which has neither."""

    name: str  # in grpc's spelling
    scheme: str  # http or https; empty: nothing is said of TLS
    place: Place | None

    @property
    def is_here(self) -> bool:
        """Whether what is sent does not leave this host."""
        return self.place is None or self.place.host.lower() in _LOOPBACK


def grpc_target(text: str) -> GrpcTarget:
    """`host:port` with http:// or https:// or without, `dns:///host:port`, or the path of a unix socket.

    What is written with https:// needs no port: 443. So does a name behind dns:, as gRPC itself has it.
    """
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if colon and not is_port(rest):  # a host may be called `dns`
        if scheme == "unix":
            return GrpcTarget(f"unix:{_socket_path(rest)}", "", None)
        if scheme == "dns":
            return _looked_up(rest)
        if scheme in ("http", "https") and rest.startswith("//"):
            return _with_scheme(scheme, text)
        if scheme in ("ipv4", "ipv6") or "://" in text:
            there = rest.lstrip("/").rpartition("@")[2].partition("/")[0]
            prefix = {"grpc": "http://", "grpcs": "https://"}.get(scheme, "")
            what = "expected host:port, unix:///path or dns:///host:port"
            raise Unusable(what, first_accepted(grpc_target, _EXAMPLE, prefix + there))
    if "/" in text:
        there = text.partition("/")[0].rpartition("@")[2]
        raise Unusable("expected host:port, without a path", first_accepted(grpc_target, _EXAMPLE, there))
    return _dialled("", host_port(text))


def _dialled(scheme: str, place: Place) -> GrpcTarget:
    # Without dns:/// a host that is called as one of gRPC's schemes would be taken for it; what has brackets is no URI.
    return GrpcTarget(str(place) if ":" in place.host else f"dns:///{place}", scheme, place)


def _looked_up(rest: str) -> GrpcTarget:
    if rest.startswith("//") and not rest.startswith("///"):
        name = rest.removeprefix("//").partition("/")[2]
        what = "which server of names is asked is the host's to say"
        raise Unusable(what, first_accepted(grpc_target, _EXAMPLE, f"dns:///{name}", f"dns:///{rest[2:]}"))
    host, port = apart(rest.removeprefix("///"), GRPC_PORT, lambda right: f"dns:///{right}")
    if not host:
        raise Unusable("there is no host", f"dns:///localhost:{port or GRPC_PORT}")
    return _dialled("", Place(host, port or HTTPS_PORT))


def _with_scheme(scheme: str, text: str) -> GrpcTarget:
    parts = split_url(text)
    netloc = parts.netloc if parts else ""
    inner = netloc.rpartition("@")[2]
    if parts is None or parts.path not in ("", "/") or parts.query or parts.fragment or inner != netloc:
        what = "expected host and port alone: a login goes into headers, and gRPC has no path"
        is_told = "@" not in (text.partition("/")[2].lstrip("/").partition("/")[2])
        written = [f"{scheme}://{inner}", f"{scheme}://{inner}:{GRPC_PORT}"] if is_told else []
        raise Unusable(what, first_accepted(grpc_target, _EXAMPLE, *written))
    host, port = apart(inner, GRPC_PORT, lambda right: f"{scheme}://{right}", in_url=True)
    if not host:
        raise Unusable("there is no host", f"{scheme}://localhost:{port or GRPC_PORT}")
    if port is None and scheme == "http":  # 80 by the rules of URLs, 443 by gRPC's: neither was meant
        raise Unusable("http:// does not say which port", f"http://{in_brackets(host)}:{GRPC_PORT}")
    return _dialled(scheme, Place(host, port or HTTPS_PORT))


def _socket_path(rest: str) -> str:
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    right = "/" + path.lstrip("/")
    if not _SOCKET_PATH.fullmatch(right) or right == "/":
        what = "expected the path of a socket, of letters, digits and _ . / ~ @ + , = -"
        raise Unusable(what, "unix:///run/otel.sock")
    if len(right) > _SOCKET_PATH_MOST:
        what = f"the path of a socket has {_SOCKET_PATH_MOST} characters at most"
        raise Unusable(what, "unix:///run/otel.sock")
    if path != right:
        raise Unusable("expected an absolute path", f"unix://{right}")
    return path
