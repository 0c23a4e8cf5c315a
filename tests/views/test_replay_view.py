"""What a replay prints."""

import pytest

from pgsonar.signals.rows import EventRow
from pgsonar.views.replay import end_line, event_lines, head_line, instant

SECOND = 1_000_000_000
ONSET = 1_795_275_911_986_000_000


def event(members, **changes):
    attributes = {
        "pgsonar.leak.severity": "high",
        "pgsonar.leak.kind": "orphaned_backend",
        "pgsonar.leak.identity": "reports@10.4.8.4",
        "pgsonar.leak.onset": ONSET,
        "pgsonar.leak.members": len(members),
        "pgsonar.leak.member_list": tuple(members),
    }
    kept = {key: value for key, value in (attributes | changes).items() if value is not None}
    return EventRow("pgsonar.leak.opened", ONSET + 2 * SECOND, 17, "high", "A query runs on.", kept, 1, 1)


def test_an_event_is_told_in_five_lines():
    assert event_lines(event([f"1196 10.4.8.4 40000 {ONSET}"])) == [
        "2026-11-21T15:45:13.986Z  OPENED    high      orphaned_backend",
        "  culprit  reports@10.4.8.4",
        "  since    2026-11-21T15:45:11.986Z",
        "  members  1: pid 1196 10.4.8.4:40000",
        "  A query runs on.",
    ]


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("- 10.4.8.4 40000 1", "1: 10.4.8.4:40000"),
        ("1196 - - 1", "1: pid 1196"),
        ("- - - 1", "1"),
    ],
)
def test_what_is_unknown_of_a_member_is_left_out(member, said):
    assert f"  members  {said}" in event_lines(event([member]))


def test_an_episode_of_nobody_says_so():
    assert "  culprit  none, all together" in event_lines(event(["- - - 1"], **{"pgsonar.leak.identity": None}))


def test_head_and_end():
    assert head_line("db-1", "0.1.0", ()) == "RECORDING of db-1 by pgsonar 0.1.0"
    assert head_line("ab", "0.1.0", ("addresses", "users")).endswith(", addresses and users rewritten")
    assert end_line(0, 90 * SECOND, 1, 0) == "END      1970-01-01T00:01:30.000Z after 1m30s: 1 episode"
    assert end_line(0, SECOND, 3, 2).endswith("3 episodes, 2 open at the end")


def test_an_instant_has_milliseconds():
    assert instant(1_999_999) == "1970-01-01T00:00:00.001Z"
