"""A socket followed in time, and who holds the client's end of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pgsonar.model.sockets import Details, Endpoint, Socket, Transferred

# Commands, as the kernel cuts them at 15 bytes, that pass on connections of others.
PROXIES = frozenset(
    {
        *("haproxy", "envoy", "nginx", "traefik", "stunnel", "stunnel4", "socat", "ssh", "sshd", "sshd-session"),
        *("linkerd2-proxy", "pasta", "pasta.avx2", "passt", "passt.avx2"),
        *("ztunnel", "docker-proxy", "rootlessport", "slirp4netns", "cloud-sql-proxy", "cloud_sql_proxy"),
        *("pgbouncer", "pgpool", "pgcat", "odyssey", "pgdog", "pgagroal"),
    }
)


class ClientProcess(NamedTuple):
    """The process at the client's end of a connection, on this host or node. None is: none, or unknown."""

    pid: int
    started: int
    command: str
    user: str | None = None
    unit: str | None = None  # of systemd
    container_id: str | None = None
    pod_uid: str | None = None
    dialled: Endpoint | None = None  # what it has connected to, where that was translated on the way

    @property
    def is_proxy(self) -> bool:
        """Whether it stands between the application and the database, so that nothing it holds is its own."""
        return self.command in PROXIES

    @property
    def label(self) -> str:
        """What people call it: `payroll.service (python3, pid 4711)`."""
        place = self.unit or (f"container {self.container_id[:12]}" if self.container_id else None)
        return f"{place} ({self.command}, pid {self.pid})" if place else f"{self.command} (pid {self.pid})"


@dataclass(slots=True)
class Connection:
    """A socket followed in time.

    tracking.connections alone changes one.
    """

    id: int
    netns: int
    socket: Socket
    opened_at: int  # first seen
    state_since: int
    moved_at: int  # a queue, the state or the inode last changed
    closed_at: int | None = None
    transferred: Transferred | None = None  # once closed, when the kernel told
    details: Details | None = None  # TCP_INFO, when it was asked for
    ended_at: int | None = None  # one of its ends has closed or reset it
    silent_since: int | None = None  # its peer has answered neither probes nor five retransmissions
    unsent_since: int | None = None  # bytes wait for its peer, none was acknowledged since
    unread_since: int | None = None  # bytes wait for its process, none was read since
    compared_at: int = 0  # when the bytes that went either way were last looked at
    client: ClientProcess | None = None  # once looked for and found
    looked_for_client_at: int | None = None
    is_left: bool = False  # the backend it was bound to has ended; its row goes with the next scan
    server: str | None = None  # whose listener has accepted it: the id of a server or a pooler
    is_astray: bool = False  # its client's address is one of this host's, but no socket there has it


@dataclass(frozen=True, slots=True)
class ClientSide:
    """Where the client's ends of connections to databases are watched: one network namespace of this host."""

    netns: int
    ports: frozenset[int]  # of databases, at the far end
    pid: int = 0  # of a process in it; 0: our own
    port: int | None = None  # nothing of ours listens there

    @property
    def label(self) -> str:
        """What people call it."""
        return f"the client side in the network namespace of pid {self.pid}" if self.pid else "the client side"


class Destination(NamedTuple):
    """A database that connections of this host lead to: the target's name for it, else its address."""

    address: str
    port: int

    @property
    def label(self) -> str:
        return str(Endpoint(self.address, self.port))
