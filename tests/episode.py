"""One open episode with all that one can carry, for tests of what keeps or tells it."""

from build import START, server
from pgsonar.model import (
    SECOND,
    ClientProcess,
    Endpoint,
    Episode,
    EpisodeState,
    Finding,
    Member,
    Moment,
    Severity,
    Slots,
)

NOW = Moment(START, 1_700_000_000 * SECOND)

EPISODE = Episode(
    kind="half_open",
    server=server(),
    identity="app@10.0.0.7",
    trace_id=(1 << 127) + 3,
    span_id=(1 << 63) + 1,
    state=EpisodeState.ESCALATED,
    severity=Severity.HIGH,
    onset=START - 60 * SECOND,
    onset_unix=NOW.unix - 60 * SECOND,
    seen_at=START,
    findings=[
        Finding(
            kind="half_open",
            server="s1",
            identity="app@10.0.0.7",
            pid=7,
            onset=START - 60 * SECOND,
            severity=Severity.HIGH,
            client=ClientProcess(9, 1, "python3", dialled=Endpoint("10.0.0.9", 1)),
            peer=Endpoint("10.0.0.8", 2),
            evidence={"yes": True, "number": 1, "share": 0.5, "text": "t", "pgsonar.evidence.unanswered": "keepalive"},
        )
    ],
    members=[Member(7, "10.0.0.7", 40000, START - 60 * SECOND)],
    slots=Slots(3, 27),
    opened_at=START - 50 * SECOND,
)
