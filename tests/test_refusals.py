"""Refused clients count for a minute."""

from build import START
from pgsonar.model import SECOND
from pgsonar.refusals import Refusals


def test_refusals_count_for_a_minute_and_no_longer():
    refusals = Refusals()
    assert refusals.lately("s") == 0
    for second, total in ((0, 0), (1, 4), (30, 4), (60, 5), (61, 5)):
        refusals.note("s", total, START + second * SECOND)
    assert refusals.lately("s") == 1
    refusals.note("s", 5, START + 121 * SECOND)
    assert refusals.lately("s") == 0
    refusals.forget("s")
    assert refusals.lately("s") == 0


def test_what_is_new_at_the_first_look_counts():
    refusals = Refusals()
    refusals.note("s", 3, START)
    assert refusals.lately("s") == 3
