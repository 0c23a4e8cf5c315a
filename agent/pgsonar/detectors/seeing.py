"""What a detector needs to see, in the same words: why it cannot tell, and what would change that.

The rule: None means it can tell. A detector that cannot is silent for want of sight, which is no all-clear.
"""

from __future__ import annotations

from pgsonar.model import BackendKind, Sight

CUT = (
    "its process titles are cut, so not every session says what it does: their room is the arguments and the "
    "environment of the postmaster, so give its service a variable of 200 bytes more"
)
_BESIDE = "run pgsonar on its host"


def no_sockets(sight: Sight) -> str | None:
    """Why the server's sockets are not seen."""
    server = sight.server
    if not server.netns:
        return f"its sockets are elsewhere: {_BESIDE}"
    if server.port is None:
        return "its port is unknown: set receivers.sockets.targets[].port"
    if not sight.listeners and not sight.connections:
        return (
            "no socket of it is seen: it listens on unix sockets alone, or its network namespace cannot be read "
            "(run in it, or with CAP_SYS_ADMIN)"
        )
    return None


def no_processes(sight: Sight) -> str | None:
    """Why it is not seen which sessions there are."""
    if sight.server.pid or sight.reading is not None:
        return None
    return "its processes are not seen: share their process namespace, or add receivers.postgresql"


def no_own_processes(sight: Sight) -> str | None:
    """Why children are not seen that no login lists."""
    if sight.server.pid or sight.reading is None:
        return no_processes(sight)
    return f"a login does not list them: {_BESIDE}"


def no_activities(sight: Sight) -> str | None:
    """Why it is not seen what sessions do."""
    if missing := no_processes(sight):
        return missing
    if any(b.title.is_cut and b.title.activity is None for b in sight.backends):
        return CUT
    activities = (b.title.activity for b in sight.backends if b.kind is BackendKind.CLIENT)
    if next(activities, "none") is None and all(activity is None for activity in activities):
        return "its process titles say nothing of what sessions do: set update_process_title = on"
    return None


def no_logins_under_way(sight: Sight) -> str | None:
    """Why logins that have not finished are not seen."""
    if sight.server.pid or sight.reading is None:
        return no_activities(sight)
    if sight.server.lists_logins:
        return None
    return f"before PostgreSQL 18 a login does not list logins under way: {_BESIDE}"


def no_utilization(sight: Sight) -> str | None:
    """Why the share of slots in use is not known."""
    if not sight.ledger.is_told:
        return no_activities(sight)
    if sight.ledger.utilization is None:
        return "the limit is unknown: run as the postgres user, or set receivers.sockets.targets[].max_connections"
    return None
