"""The nouns of pgsonar, as plain values.

The rule: this package imports nothing of ours. Times named `at`, `since`, `onset` or `started` are nanoseconds of
CLOCK_BOOTTIME (the clock of /proc/PID/stat, which goes on during suspend and never jumps); times named `..._unix`
are nanoseconds since the epoch. A `Moment` carries both.
"""

from pgsonar.model.backends import LOCAL_HOST, LOGIN_ACTIVITIES, Activity, Backend, BackendKind, BackendSighting, Title
from pgsonar.model.connections import ClientProcess, ClientSide, Connection, Destination
from pgsonar.model.lacks import Lack, Part
from pgsonar.model.leaks import Episode, EpisodeEvent, EpisodeState, Finding, Holder, Member, Severity, Slots
from pgsonar.model.moments import MILLISECOND, SECOND, Moment
from pgsonar.model.poolers import Pool, Pooler, PoolerClient, PoolerEnds, PoolerReading, PoolerServer, Pooling, Via
from pgsonar.model.resources import Resource, is_own_attribute
from pgsonar.model.servers import REFUSALS_OF_SLOTS, Limits, LogCounts, Server
from pgsonar.model.sessions import DatabaseReading, Session, SessionCounts
from pgsonar.model.sights import ClientSight, Growth, Ledger, PoolerSight, Process, Sight, Thrash
from pgsonar.model.sockets import ChangeKind, Details, Endpoint, ScanStats, Socket, TcpState, TcpTimer, Transferred

__all__ = [
    "LOCAL_HOST",
    "LOGIN_ACTIVITIES",
    "MILLISECOND",
    "REFUSALS_OF_SLOTS",
    "SECOND",
    "Activity",
    "Backend",
    "BackendKind",
    "BackendSighting",
    "ChangeKind",
    "ClientProcess",
    "ClientSide",
    "ClientSight",
    "Connection",
    "DatabaseReading",
    "Destination",
    "Details",
    "Endpoint",
    "Episode",
    "EpisodeEvent",
    "EpisodeState",
    "Finding",
    "Growth",
    "Holder",
    "Lack",
    "Ledger",
    "Limits",
    "LogCounts",
    "Member",
    "Moment",
    "Part",
    "Pool",
    "Pooler",
    "PoolerClient",
    "PoolerEnds",
    "PoolerReading",
    "PoolerServer",
    "PoolerSight",
    "Pooling",
    "Process",
    "Resource",
    "ScanStats",
    "Server",
    "Session",
    "SessionCounts",
    "Severity",
    "Sight",
    "Slots",
    "Socket",
    "TcpState",
    "TcpTimer",
    "Thrash",
    "Title",
    "Transferred",
    "Via",
    "is_own_attribute",
]
