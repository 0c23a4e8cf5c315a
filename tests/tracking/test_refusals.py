"""Refused clients count for a minute."""

from build import START
from pgsonar.model import SECOND
from pgsonar.tracking.refusals import SLOTS, Refusals


def test_refusals_count_for_a_minute_and_no_longer():
    refusals = Refusals()
    assert refusals.lately("s") == {}
    for second, total in ((0, 0), (1, 4), (30, 4), (60, 5), (61, 5)):
        refusals.note("s", SLOTS, total, START + second * SECOND)
    assert refusals.lately("s") == {SLOTS: 1}
    refusals.note("s", SLOTS, 5, START + 121 * SECOND)
    assert refusals.lately("s") == {}
    refusals.forget("s")
    assert refusals.lately("s") == {}


def test_what_was_told_before_a_server_was_seen_is_old_whatever_it_was_about():
    refusals = Refusals()
    for _ in range(2):
        refusals.note("s", SLOTS, 3, START)
        refusals.note("s", ("role", "etl"), 2, START)
        assert refusals.lately("s") == {}
        refusals.note("s", SLOTS, 4, START + SECOND)
        refusals.note("s", ("database", "shop"), 1, START + SECOND)
        assert refusals.lately("s") == {SLOTS: 1, ("database", "shop"): 1}
        refusals.forget("s")  # its server was out of sight


def test_a_total_that_falls_is_counted_anew():
    refusals = Refusals()
    for second, total in ((0, 100), (60, 100), (120, 100), (121, 20), (122, 25)):
        refusals.note("s", SLOTS, total, START + second * SECOND)
    assert refusals.lately("s") == {SLOTS: 25}


def test_each_limit_is_counted_by_itself():
    refusals = Refusals()
    for at in (START, START + SECOND):
        refusals.note("s", SLOTS, 0, at)
        refusals.note("other", SLOTS, 0, at)
    refusals.note("s", ("role", "etl"), 2, START + SECOND)
    refusals.note("other", ("role", "etl"), 9, START + SECOND)

    assert refusals.lately("s") == {("role", "etl"): 2}
