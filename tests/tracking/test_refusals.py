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


def test_what_is_new_at_the_first_look_counts():
    refusals = Refusals()
    refusals.note("s", SLOTS, 3, START)
    assert refusals.lately("s") == {SLOTS: 3}


def test_a_total_that_falls_is_counted_anew():
    refusals = Refusals()
    for second, total in ((0, 100), (60, 100), (120, 100), (121, 20), (122, 25)):
        refusals.note("s", SLOTS, total, START + second * SECOND)
    assert refusals.lately("s") == {SLOTS: 25}


def test_each_limit_is_counted_by_itself():
    refusals = Refusals()
    refusals.note("s", ("role", "etl"), 2, START)
    refusals.note("s", SLOTS, 0, START)
    refusals.note("other", ("role", "etl"), 9, START)

    assert refusals.lately("s") == {("role", "etl"): 2}
