"""Endpoints as they are written: `host:port`, a URL with http or https, the directory of a socket.

The rule: what is accepted leads to the host and the port that were written, however they were spelled; what is refused
says what to write instead, and what it says is accepted. An address may stand in brackets, of IPv4 as well, and one of
IPv6 must (RFC 3986, 3.2.2), with its zone behind a % (RFC 4007, in a URL %25: RFC 6874). What is shown of a URL is
scheme, host, port and path; user names, passwords and queries may be secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import SplitResult

DEFAULT_ENDPOINTS = {"otlp_http": "http://localhost:4318", "otlp_grpc": "localhost:4317"}  # OTLP's own
# What is appended to an endpoint for each signal, and stands at the end of one that was pasted with it.
APPENDED = re.compile(r"/v1/(metrics|logs|traces)/*$")
GRPC_PORT = 4317
HTTPS_PORT = 443
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # an interface, by its name or its number
_PORT = re.compile(r"0*([0-9]{1,5})")


class Unusable(ValueError):  # noqa: N818 - an endpoint is what is called so
    """An endpoint that is none, with what to write instead."""

    def __init__(self, what: str, write: str) -> None:
        super().__init__(what)
        self.write = write

    @property
    def hint(self) -> str:
        return f"write {self.write}"


class Place(NamedTuple):
    """A host without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{in_brackets(self.host)}:{self.port}"


def problem_of(parse: Callable[[str], object], text: str) -> Unusable | None:
    """Why a text is refused; None where it is accepted."""
    try:
        parse(text)
    except Unusable as unusable:
        return unusable
    return None


def host_port(text: str, usual: int = GRPC_PORT, *, listens: bool = False) -> Place:
    """`host:port`. An empty host means every address, which only a listener can have; `usual` is a port to suggest."""
    if "://" in text:
        inner = parts.netloc.rpartition("@")[2] if (parts := split_url(text)) else ""
        right = first_accepted(partial(host_port, usual=usual), f"localhost:{usual}", inner)
        raise Unusable("expected host:port, without a scheme", right)
    if listens and text.startswith("*:"):
        raise Unusable("expected host:port; every address is an empty host", f":{_port(text[2:]) or usual}")
    host, port = apart(text, usual, str)
    if port is None:
        right = f"localhost:{host}" if _port(host) else f"{in_brackets(host) or 'localhost'}:{usual}"
        raise Unusable("expected host:port", right)
    if not host and not listens:
        raise Unusable("expected host:port, and there is no host", f"localhost:{port}")
    return Place(host, port)


def login_place(text: str, usual: int) -> Place:
    """`host:port`, or `/directory:port` of a unix socket, whose directory stands for the host."""
    if text.startswith("unix:/"):
        inner = text.removeprefix("unix://").removeprefix("unix:")
        right = first_accepted(partial(login_place, usual=usual), f"localhost:{usual}", inner)
        raise Unusable("expected the directory of a unix socket, without unix:", right)
    if not text.startswith("/"):
        return host_port(text, usual)
    directory, _, digits = text.partition(":")
    if file := re.fullmatch(r"(.+)/\.s\.PGSQL\.([0-9]+)", text):  # as the server calls the file of its socket
        raise Unusable("expected the directory of the socket", f"{file[1]}:{_port(file[2]) or usual}")
    port = _port(digits)
    if port is None:
        right = directory if "?" not in directory and "@" not in directory else "/var/run/postgresql"
        raise Unusable("expected the directory of a unix socket and a port from 1 to 65535", f"{right}:{usual}")
    return Place(directory, port)


def url(text: str, example: str = DEFAULT_ENDPOINTS["otlp_http"]) -> SplitResult:
    """An http or https URL, its parts in the spelling that every library reads the same."""

    def suggested(written: str) -> str:
        return first_accepted(partial(url, example=example), example, written)

    wrong, usual = "expected a URL with http:// or https://", int(example.rpartition(":")[2])
    parts = split_url(text)
    if parts is None:
        more = "" if ":" in text or "/" in text else f":{usual}"
        is_told = not any(one in text for one in ("@", ":/", "?", "#"))
        raise Unusable(wrong, suggested(f"http://{text}{more}") if is_told else example)
    scheme, netloc, path = parts.scheme.lower(), parts.netloc, parts.path
    login, at, inner = netloc.rpartition("@")
    told = "" if "@" in path else path  # of a password, perhaps
    if scheme not in ("http", "https"):
        if scheme.startswith("unix"):
            raise Unusable(f"{wrong}; a unix socket is for otlp_grpc", example)
        raise Unusable(wrong, suggested(f"http://{inner or told.strip('/')}"))
    if _is_ambiguous(parts):
        what = "the host cannot be told: a password is written with %2F for a /, %3F for a ?, %23 for a #"
        raise Unusable(what, f"{scheme}://user:password@{example.partition('://')[2]}")
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        shown = f"{scheme}://{inner}{told}"
        raise Unusable("a URL holds no blanks", suggested(re.sub(r"[\s\x00-\x1f\x7f]", "", shown)))
    host, port = apart(inner, usual, lambda right: f"{scheme}://{right}{told}", in_url=True)
    if not host:
        raise Unusable(f"{wrong}, and there is no host", suggested(f"{scheme}://localhost{inner}{told}"))
    spelled = in_brackets(host.replace("%", "%25")) + ("" if port is None else f":{port}")
    return SplitResult(scheme, f"{login}{at}{spelled}", path, parts.query, parts.fragment)


def display(text: str) -> str:
    """An endpoint for people, without anything that may be secret."""
    parts = split_url(text)
    if parts is None:
        return text.rpartition("@")[2].partition("?")[0]
    netloc, path = parts.netloc.rpartition("@")[2], parts.path
    if _is_ambiguous(parts):
        return f"{parts.scheme}://{text.rpartition('@')[2].partition('?')[0]}"
    return f"{parts.scheme}://{netloc}{path}"


def has_no_path(text: str) -> bool:
    """Whether a URL names a host and nothing on it."""
    parts = split_url(text)
    return parts is not None and bool(parts.netloc) and parts.path in ("", "/") and not parts.query


def port_problem(port: int) -> str | None:
    """What is wrong with the number of a port."""
    return None if 1 <= port <= 65535 else f"expected a port from 1 to 65535, got {port}"


def apart(text: str, usual: int, write: Callable[[str], str], *, in_url: bool = False) -> tuple[str, int | None]:
    """The host without brackets, and the port, of what may be a host, `host:port` or `[address]:port`.

    `write` makes an endpoint of the right host and port.
    """
    match = re.fullmatch(r"\[([^\[\]]*)\](?::([^:]*))?|([^:\[\]]*)(?::([^:]*))?", text, re.DOTALL)
    if match is None:
        raise Unusable(*_misspelled(text, usual, write))
    inside, inside_digits, host, host_digits = match.groups()
    digits = inside_digits if inside is not None else host_digits
    if inside is not None:
        host = _unescaped(inside) if in_url else inside
        if _address(host) is None:
            right = f"{host}:{_port(digits or '') or usual}" if _NAME.fullmatch(host) else f"[::1]:{usual}"
            raise Unusable("expected an address in brackets", write(right))
    elif host and not _NAME.fullmatch(host):
        raise Unusable(*_misnamed(host, _port(digits or "") or usual, write))
    if not digits:
        return host, None
    port = _port(digits)
    if port is None:
        right = in_brackets(host.replace("%", "%25") if in_url else host) or "localhost"
        raise Unusable("expected a port from 1 to 65535 behind the host", write(f"{right}:{usual}"))
    return host, port


def _misspelled(text: str, usual: int, write: Callable[[str], str]) -> tuple[str, str]:
    """What is wrong where colons or brackets stand as they cannot: most often IPv6 without its brackets."""
    bare = _unescaped(text.replace("[", "").replace("]", ""))
    address, _, digits = bare.rpartition(":")
    for host, port in ((address, _port(digits)), (bare, usual)):
        if port is not None and isinstance(_address(host), IPv6Address):
            return "an address of IPv6 stands in brackets", write(f"[{host}]:{port}")
    return "expected host:port, IPv6 as [address]:port", write(f"localhost:{usual}")


def _misnamed(host: str, port: int, write: Callable[[str], str]) -> tuple[str, str]:
    """What is wrong with a name: often one that is not of ASCII letters, which is spelled otherwise in DNS."""
    try:
        spelled = host.encode("idna").decode("ascii")
    except UnicodeError:
        spelled = ""
    if host.isascii() or not _NAME.fullmatch(spelled):
        return "expected host:port, with a name of letters, digits, dots and hyphens", write(f"localhost:{port}")
    return "expected a name as DNS spells it", write(f"{spelled}:{port}")


def first_accepted(parse: Callable[[str], object], example: str, *written: str) -> str:
    """The first that is accepted, or what is to be written in its place; else an example."""
    problems = [(one, problem_of(parse, one)) for one in written if one]
    right = [one if problem is None else problem.write for one, problem in problems]
    return next((one for one in right if "localhost" not in one), right[0] if right else example)


def split_url(text: str) -> SplitResult | None:
    """A URL in its parts, whatever they hold; None where there is no scheme."""
    match = _URL.fullmatch(text)
    if match is None:
        return None
    scheme, netloc, path, query, fragment = match.groups(default="")
    return SplitResult(scheme, netloc, path, query[1:], fragment[1:])


def _is_ambiguous(parts: SplitResult) -> bool:
    """Whether what looks like a host and its port is a user and the beginning of a password with a / or a ? in it."""
    host, _, digits = parts.netloc.rpartition("@")[2].rpartition(":")
    has_login = "@" in parts.path + parts.query + parts.fragment
    return has_login and (not parts.netloc or (bool(host) and not is_port(digits) and not digits.endswith("]")))


def is_port(digits: str) -> bool:
    """Whether a text is written as a port is."""
    return _PORT.fullmatch(digits) is not None


def _port(digits: str) -> int | None:
    match = _PORT.fullmatch(digits)
    return int(match[1]) if match and port_problem(int(match[1])) is None else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    _, percent, zone = text.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _unescaped(text: str) -> str:
    """An address whose zone is spelled as in a URL."""
    return re.sub(r"%25(?=.)", "%", text, count=1)


def in_brackets(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host
