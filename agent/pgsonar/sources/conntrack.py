"""Which connections of a network namespace have their addresses translated, and from what (nf_conntrack).

The rule: read only when a client's address leads to no socket, and bounded: a busy router tracks a million connections.
Line format: net/netfilter/nf_conntrack_standalone.c, ct_seq_show: the original direction, then the reply's.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

from pgsonar.model import Endpoint

MOST = 16 << 20  # bytes read of a table
_DIRECTION = r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)"
_LINE = re.compile(rf"^ipv[46] +\d+ tcp +6 .*?{_DIRECTION} .*?{_DIRECTION} ", re.MULTILINE)


class Original(NamedTuple):
    """A connection as the client made it, before anything was translated."""

    client: Endpoint
    server: Endpoint


def read_translations(net_directory: str) -> dict[tuple[Endpoint, Endpoint], Original]:
    """By (server's end, client's end) as the server has them. Raises OSError where there is no table, or not for us."""
    with open(f"{net_directory}/nf_conntrack", "rb", buffering=1 << 20) as table:
        return parse(table.read(MOST).decode("ascii", "replace"))


def parse(text: str) -> dict[tuple[Endpoint, Endpoint], Original]:
    """The translated connections of a table's text."""
    found = {}
    for words in _LINE.findall(text):
        source, destination, sport, dport, replier, translated, replier_port, translated_port = words
        if (replier, replier_port, translated, translated_port) != (destination, dport, source, sport):
            seen = _endpoint(replier, replier_port), _endpoint(translated, translated_port)
            found[seen] = Original(_endpoint(source, sport), _endpoint(destination, dport))
    return found


def _endpoint(address: str, port: str) -> Endpoint:
    """An address as everywhere else: IPv6 stands there with all its zeros."""
    return Endpoint(str(ip_address(address)) if ":" in address else address, int(port))
