"""What a recording is made of: each answer of a source that the pipeline reads, and each tick that read it.

The rule: a fact is written when an answer differs from the one before, and says only what differs. A key frame says all
that is known at an instant, so that a recording can be played from there. Fields are added at the end of an entry or a
noun, with a default, so that older recordings are read; any other change of shape raises recording.FORMAT.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from pgsonar.model import (
    Backend,
    BackendSighting,
    ClientProcess,
    ClientSide,
    Connection,
    DatabaseReading,
    Details,
    Moment,
    Pooler,
    PoolerEnds,
    PoolerReading,
    ScanStats,
    Server,
    Socket,
    Transferred,
)
from pgsonar.sources.clients import Hop, LocalEnd

# As sources.sockets.SocketChange.
Change = tuple[int, int, int, int, int, Socket, Transferred | None]


class Stage(StrEnum):
    """Which tick of the pipeline."""

    DISCOVER = "discover"
    FAST = "fast"
    TITLE = "title"
    SLOW = "slow"
    EXPORT = "export"
    STOP = "stop"


class LogFigures(NamedTuple):
    """model.LogCounts without the lines themselves, which name clients."""

    by_class: dict[str, int]
    skipped_bytes: int
    by_name: dict[tuple[str, str], int]


class Fact(msgspec.Struct, frozen=True, array_like=True):
    """One entry, as an array that begins with its tag."""


class Tick(Fact, frozen=True, tag=0):
    """The pipeline was called; what it was told stands before this."""

    stage: Stage
    moment: Moment


class Servers(Fact, frozen=True, tag=1):
    servers: list[Server]


class Poolers(Fact, frozen=True, tag=2):
    poolers: list[Pooler]


class Ends(Fact, frozen=True, tag=3):
    pooler: str  # its id
    ends: PoolerEnds


class Sides(Fact, frozen=True, tag=4):
    sides: list[ClientSide]


class Changes(Fact, frozen=True, tag=5):
    changes: list[Change]


class Present(Fact, frozen=True, tag=6):
    """A look at all connections of a namespace: what no change has told of them."""

    netns: int
    changes: list[Change]
    gone: list[int]  # by their number


class Told(Fact, frozen=True, tag=7):
    """TCP_INFO of connections, by their number. What is not told anew has only aged until `at`."""

    netns: int
    at: int
    details: dict[int, Details]
    gone: list[int]


class Scan(Fact, frozen=True, tag=8):
    netns: int
    stats: ScanStats


class Overflows(Fact, frozen=True, tag=9):
    directory: str
    count: int | None


class Look(Fact, frozen=True, tag=10):
    """The children of a postmaster: who is new or has another title, whose context switches moved, who has gone."""

    server: str  # its id
    seen: list[BackendSighting]
    moved: list[tuple[int, int | None]]  # pid and context switches
    gone: list[int]


class Inodes(Fact, frozen=True, tag=11):
    pid: int
    inodes: tuple[int, ...] | None


class Clients(Fact, frozen=True, tag=12):
    """Processes of clients that were looked for, and whether the socket went astray."""

    found: list[tuple[Hop, ClientProcess | None, bool]]


class LocalClients(Fact, frozen=True, tag=13):
    found: list[tuple[LocalEnd, ClientProcess | None]]


class Database(Fact, frozen=True, tag=14):
    """What a login told; `index` is the poller's place, `holds` how long it is believed (ns)."""

    index: int
    holds: int
    reading: DatabaseReading


class Console(Fact, frozen=True, tag=15):
    index: int
    holds: int
    reading: PoolerReading


class Names(Fact, frozen=True, tag=16):
    names: dict[str, str]


class Logs(Fact, frozen=True, tag=17):
    told: dict[str, LogFigures]  # by server id


class PaceKept(Fact, frozen=True, tag=18):
    """How often the agent looks; see budget.Budget."""

    interval: float
    patience: int
    reason: str


AnyFact = (
    Tick
    | Servers
    | Poolers
    | Ends
    | Sides
    | Changes
    | Present
    | Told
    | Scan
    | Overflows
    | Look
    | Inodes
    | Clients
    | LocalClients
    | Database
    | Console
    | Names
    | Logs
    | PaceKept
)


class KeyFrame(Fact, frozen=True, tag=19):
    """Everything at one instant: the newest answers, and what was followed in time until then."""

    moment: Moment
    facts: list[AnyFact]
    connections: list[Connection]
    backends: list[Backend]


Entry = AnyFact | KeyFrame

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[Entry]).decode


def joined(entries: list[bytes]) -> bytes:
    """Encoded entries as one encoded list (msgpack's array 32)."""
    return b"\xdd" + len(entries).to_bytes(4, "big") + b"".join(entries)
