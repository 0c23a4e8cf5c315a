"""The slow and obvious reading of /proc/net/tcp and tcp6, against which the native parser is compared.

It says in one regular expression what a row is. Whether a row touches the ports is asked first, as in the scanner: what
stands elsewhere in a row of no interest is not examined.
"""

import re
import struct
from typing import NamedTuple

LONGEST_LINE = 256  # with its newline
HEADER = b"  sl  local_address"
SYN_RECV, CLOSING, NEW_SYN_RECV = 3, 11, 12


class Row(NamedTuple):
    """The fields of pgs_row in its order."""

    local: bytes
    remote: bytes
    local_port: int
    remote_port: int
    state: int
    timer: int
    family: int
    tx_queue: int
    rx_queue: int
    bound_interface: int
    retransmits: int
    probes: int
    uid: int
    inode: int
    cookie: int


class Parsed(NamedTuple):
    rows: list[Row]
    lines: int
    skipped: int
    malformed: int
    consumed: int


def _sides(width):
    return re.compile(
        rb".{4}[^:]{0,7}?: (?P<local>.{%d}):(?P<lport>.{4}) (?P<remote>.{%d}):(?P<rport>.{4}) (?P<rest>.*)"
        % (width, width),
        re.DOTALL,
    )


SIDES = {4: _sides(8), 6: _sides(32)}
HEX = re.compile(rb"[0-9A-F]+")
NUMBERS = re.compile(
    rb"(?P<st>[0-9A-F]{2}) (?P<tx>[0-9A-F]{8}):(?P<rx>[0-9A-F]{8}) (?P<tr>[0-9A-F]{2}):(?P<when>[0-9A-F]{8,16}) "
    rb"(?P<retr>[0-9A-F]{8}) +(?P<uid>[0-9]+) +(?P<probes>[0-9]+) +(?P<inode>[0-9]+)( .*)?",
    re.DOTALL,
)


def parse_address(text):
    """Words of 32 bits in the machine's byte order; IPv4 becomes IPv4-mapped IPv6."""
    words = b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
    return words if len(words) == 16 else bytes(10) + b"\xff\xff" + words


def parse_line(line, family, ports, *, remote_too):
    """A Row, or what else the line is: "header", "skipped" or "malformed"."""
    if len(line) >= LONGEST_LINE:
        return "malformed"
    sides = SIDES[family].fullmatch(line)
    if not sides:
        return "header" if line.startswith(HEADER) else "malformed"
    wanted = {b"%04X" % port for port in ports}
    if wanted and sides["lport"] not in wanted and not (remote_too and sides["rport"] in wanted):
        return "skipped"
    numbers = NUMBERS.fullmatch(sides["rest"])
    if not numbers or not all(HEX.fullmatch(sides[name]) for name in ("local", "lport", "remote", "rport")):
        return "malformed"
    state, inode = int(numbers["st"], 16), int(numbers["inode"])
    state = SYN_RECV if state == NEW_SYN_RECV else state
    uid, probes = int(numbers["uid"]), int(numbers["probes"])
    if not 1 <= state <= CLOSING or inode >= 1 << 64 or max(uid, probes) >= 1 << 32:
        return "malformed"
    return Row(
        parse_address(sides["local"]),
        parse_address(sides["remote"]),
        int(sides["lport"], 16),
        int(sides["rport"], 16),
        state,
        int(numbers["tr"], 16),
        family,
        int(numbers["tx"], 16),
        int(numbers["rx"], 16),
        0,
        int(numbers["retr"], 16),
        probes,
        uid,
        inode,
        0,
    )


def parse(text, family, ports=(), *, remote_too=False):
    """What pgs_parse() should make of a text."""
    lines = text.split(b"\n")[:-1]
    read = [parse_line(line, family, ports, remote_too=remote_too) for line in lines]
    rows = [row for row in read if isinstance(row, Row)]
    consumed = sum(len(line) + 1 for line in lines)
    return Parsed(rows, len(lines), read.count("skipped"), read.count("malformed"), consumed)
