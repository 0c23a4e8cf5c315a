"""What an earlier run left open is told once to whom it concerns, and all of it expires together."""

from dataclasses import replace

import pytest

from build import START
from episode import EPISODE
from pgsonar.model import SECOND, Member
from pgsonar.tracking.earlier import AWAITED, AWAITED_IN_SIGHT, EarlierRun, key_of


def left(kind, identity="app@10.0.0.7", pids=(7,)):
    evidence = {"pgsonar.leak.normal": 3, "pgsonar.leak.opened": 5, "pgsonar.leak.closed": 1}
    return replace(
        EPISODE,
        kind=kind,
        identity=identity,
        members=[Member(pid, "10.0.0.7", 40000 + pid, START - pid * SECOND) for pid in pids],
        findings=[replace(EPISODE.findings[0], evidence=evidence)],
    )


LOST = left("orphaned_backend_no_socket", pids=(7, 8))
POOLED = left("pooler_forgotten_server", "10.0.0.9:6432")
GROWN = left("idle_leak")


@pytest.fixture
def earlier():
    run = EarlierRun()
    run.leave([LOST, POOLED, GROWN], START)
    return run


def asked(run, server="s1"):
    return (
        run.socket_lost_at(server, 8, 40008),
        run.forgetful_pooler(server, 7),
        run.growth(server, {7, 9}),
    )


def test_each_is_told_what_it_cannot_see_any_more_and_once(earlier):
    assert asked(earlier, "another") == (None, None, None)
    assert earlier.socket_lost_at("s1", 8, 40007) is None, "another connection"
    assert asked(earlier) == (START - 8 * SECOND, "10.0.0.9:6432", (GROWN.onset, 3, 5, 1))
    assert asked(earlier) == (None, None, None)
    assert earlier.socket_lost_at("s1", 7, 40007) == START - 7 * SECOND, "another member"


def test_what_is_met_is_not_waited_for_and_its_other_members_are_known_still(earlier):
    earlier.meet(key_of(LOST))

    assert not earlier.is_awaited(key_of(LOST))
    assert earlier.is_awaited(key_of(GROWN))
    assert earlier.socket_lost_at("s1", 8, 40008) is not None


@pytest.mark.parametrize(("in_sight", "patience"), [(["s1"], AWAITED_IN_SIGHT), ([], AWAITED)])
def test_all_of_it_expires_together(earlier, in_sight, patience):
    earlier.expire(START + patience - 1, in_sight)
    assert (earlier.is_awaited(key_of(GROWN)), earlier.is_over) == (True, False)

    earlier.expire(START + patience, in_sight)
    assert (earlier.is_awaited(key_of(GROWN)), earlier.is_over) == (False, True)
    assert asked(earlier) == (None, None, None)


def test_a_run_waits_for_its_own_and_tells_nothing_of_it(earlier):
    own = left("idle_leak", "other@10.0.0.7", pids=(9,))
    earlier.meet(key_of(GROWN))
    earlier.wait_for([own, GROWN], START + AWAITED)
    earlier.expire(START + AWAITED, [])

    assert earlier.is_awaited(key_of(own))
    assert earlier.is_awaited(key_of(GROWN)), "again"
    assert not earlier.is_awaited(key_of(LOST))
    assert earlier.growth("s1", {9}) is None
    assert earlier.growth("s1", {7}) is not None
