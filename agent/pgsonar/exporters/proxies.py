"""Which proxy a request goes through, as Go's net/http decides it for the Collector.

The rule: `proxy_url` of the exporter wins and holds for every host; else the environment says, in either case of its
letters, and this host itself is never reached through a proxy. A proxy's password appears in no error.
https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pgsonar.config.addresses import Unusable, display
from pgsonar.config.addresses import url as parts_of
from pgsonar.errors import ConfigError

# gRPC's own order: https://grpc.github.io/grpc/core/md_doc_core_default_http_proxy_mapper.html
_VARIABLES = {
    "http": ("HTTP_PROXY",),
    "https": ("HTTPS_PROXY",),
    "grpc": ("GRPC_PROXY", "HTTPS_PROXY", "HTTP_PROXY"),
}


class Proxy(NamedTuple):
    """The URL of a proxy, with the user and password that may stand in it."""

    url: str

    @property
    def shown(self) -> str:
        return display(self.url)

    @property
    def authorization(self) -> str | None:
        """The header's value that names us to the proxy."""
        return basic(self.url)


def basic(url: str) -> str | None:
    """Basic authentication with the user and the password that stand in a URL."""
    parts = urlsplit(url)
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def proxy_for(protocol: str, host: str, port: int, proxy_url: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to host and port over http, https or grpc. Raises ConfigError when it is none we can use."""
    if proxy_url:
        return _checked(proxy_url, "proxy_url", protocol)
    if _is_exempt(host.lower(), port, _variable(environ, "NO_PROXY")[1]):
        return None
    for variable in _VARIABLES[protocol]:
        name, text = _variable(environ, variable)
        if text:
            return _checked(text, name, protocol)
    return None


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable in upper or lower case, and what it holds."""
    spelled = name if environ.get(name) else name.lower()
    return spelled, environ.get(spelled, "").strip()


def _checked(text: str, name: str, protocol: str) -> Proxy:
    url = text if "://" in text else f"http://{text}"
    allowed = ("http",) if protocol == "grpc" else ("http", "https")
    hint = f"expected {' or '.join(f'{scheme}://' for scheme in allowed)}host:port"
    try:
        parts = parts_of(url, "http://proxy:3128")
    except Unusable as unusable:
        hint += f", such as {unusable.write}"
    else:
        if parts.scheme in allowed:
            return Proxy(parts.geturl())
    raise ConfigError(f"{name}: {display(url)!r} is no proxy that can be used", hint)


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether the host is reached directly: this host itself, and what NO_PROXY lists."""
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(entry.strip().lower(), host, port) for entry in no_proxy.split(",") if entry.strip())


def _matches(entry: str, host: str, port: int) -> bool:
    """One entry: `*`, an address, a CIDR range, a domain (with all below it), `.domain` (only what is below it)."""
    if entry == "*":
        return True
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdecimal() and (":" not in name or name.startswith("[")):
        if int(digits) != port:
            return False
        entry = name
    if (listed := _address(entry)) is not None:
        return listed == address
    entry = entry.removeprefix("*")
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None
