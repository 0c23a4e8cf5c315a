"""Who holds the slots of a server, in order of how many: named whether or not any of them is a leak.

The rule: counted by the identity that leaks are grouped by, so that a name here is a name there. What was opened within
the last minute includes what has closed since, as far as the looks were close enough to see it.
"""

from __future__ import annotations

from collections import defaultdict

from pgsonar.detectors.evidence import who
from pgsonar.model import Activity, Backend, Holder, Sight
from pgsonar.tracking.growth import MINUTE
from pgsonar.tracking.ledger import holder_of

NAMED = 5
_ASKED = 3  # sessions of each, of which the process is looked for


def holders(sight: Sight) -> tuple[Holder, ...]:
    """The identities that hold most slots."""
    sessions: dict[str, list[Backend]] = defaultdict(list)
    for backend in sight.backends:
        if holder_of(backend) is not None:
            sessions[who(backend)].append(backend)
    most = sorted(sessions.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(
        Holder(
            identity=identity,
            slots=len(held),
            idle=sum(backend.title.activity == Activity.IDLE for backend in held),
            # Growth is looked at every few seconds: what is there now may be more than it has seen.
            opened=max(sight.opened.get(identity, 0), sum(sight.at - b.started < MINUTE for b in held)),
            pids=tuple(backend.pid for backend in sorted(held, key=lambda b: b.started)[:_ASKED]),
        )
        for identity, held in most[:NAMED]
    )
