"""Sockets as the kernel tells of them, and how good the telling is."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from pgsonar.model.moments import MILLISECOND


class TcpState(IntEnum):
    """Socket states by the kernel's number (include/net/tcp_states.h); `spelling` is OpenTelemetry's."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11

    @property
    def spelling(self) -> str:
        return self.name.lower()


class TcpTimer(IntEnum):
    """The `tr` column: which timer is armed. KEEPALIVE is the normal state of a PostgreSQL server socket."""

    NONE = 0
    RETRANSMIT = 1
    KEEPALIVE = 2
    TIME_WAIT = 3
    ZERO_WINDOW_PROBE = 4


class Endpoint(NamedTuple):
    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Socket(NamedTuple):
    """One row of the kernel's TCP tables. IPv4-mapped addresses are written as IPv4."""

    local: Endpoint
    remote: Endpoint
    state: TcpState
    timer: int
    tx_queue: int  # bytes not acknowledged
    rx_queue: int  # bytes not read; LISTEN: connections not accepted
    retransmits: int
    probes: int
    uid: int
    inode: int  # 0: no process owns it


class Transferred(NamedTuple):
    """Bytes a connection carried in all, as the kernel told them at its end."""

    sent: int  # acknowledged by the peer
    received: int


class Details(NamedTuple):
    """What only TCP_INFO tells of a connection (struct pgs_details of native/pgsonar.h, after its first field)."""

    at: int
    cgroup: int
    bytes_sent: int
    bytes_received: int
    busy_time: int  # us
    rwnd_limited: int  # us
    sndbuf_limited: int  # us
    last_sent: int  # ms ago
    last_received: int  # ms ago
    last_ack: int  # ms ago
    retransmitted: int
    not_sent: int
    rtt: int  # us

    @property
    def moved_at(self) -> int:
        """When the last byte went either way."""
        return self.at - min(self.last_sent, self.last_received) * MILLISECOND

    @property
    def received_at(self) -> int:
        """When the last byte came."""
        return self.at - self.last_received * MILLISECOND

    @property
    def acknowledged_at(self) -> int:
        """When the peer last acknowledged something; of a connection that it has closed, its end at the latest."""
        return self.at - self.last_ack * MILLISECOND

    @property
    def stood_at(self) -> int:
        """The earliest instant at which something is known to have happened on it."""
        return self.at - max(self.last_sent, self.last_received, self.last_ack) * MILLISECOND


class ChangeKind(IntEnum):
    """Why the sampler reports a socket (enum pgs_change_kind of native/pgsonar.h)."""

    OPENED = 1
    CLOSED = 2
    STATE = 3
    INODE = 4
    QUEUE = 5
    PROBE = 6


class ScanStats(NamedTuple):
    """How good the scanning of one namespace is (struct pgs_scan_stats of native/pgsonar.h, in its order)."""

    scans: int
    walks: int
    lookups: int
    incomplete: int
    late: int
    missed: int
    malformed: int
    duplicates: int
    lost_changes: int
    resyncs: int
    opened: int
    closed: int
    events: int
    lost_events: int
    short_lived: int
    kernel_opened: int
    last_at: int
    last_cost: int
    last_cpu: int
    cpu: int
    max_gap: int
    last_lateness: int
    rows: int
    rows_skipped: int
    last_error: int
    last_errno: int
    source: int
    refusal: int
    events_on: int
    events_refusal: int
    has_gate: int

    @property
    def unseen(self) -> int:
        """Connections that came and went unseen, at most: the kernel counts those of other ports too."""
        return max(0, self.kernel_opened - self.opened)
