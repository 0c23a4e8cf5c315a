"""Clients that connect again and again, told from bursts and from those that keep their connections."""

from pgsonar.model import SECOND
from pgsonar.tracking.churn import Churn

PLACE = ("s1", "10.0.0.7")


def closes(churn, per_second, seconds, *, begin=0, lived=SECOND // 100):
    for second in range(begin, begin + seconds):
        for number in range(per_second):
            at = second * SECOND + number * SECOND // max(per_second, 1)
            churn.note(PLACE, lived, at)


def thrashing(churn, second):
    return churn.thrashing("s1", second * SECOND)


def test_a_rate_that_stands_is_thrash_since_it_began():
    churn = Churn()
    closes(churn, 60, 20)
    (found,) = thrashing(churn, 10)

    assert (found.client, found.rate) == ("10.0.0.7", 60)
    assert found.since == 5 * SECOND, "as far back as the rate is taken"
    assert thrashing(churn, 15)[0].since == found.since
    assert churn.thrashing("s2", 15 * SECOND) == []


def test_a_burst_a_slow_rate_and_long_lives_are_none():
    for per_second, seconds, lived in ((100, 1, 0), (49, 30, 0), (100, 30, 2 * SECOND)):
        churn = Churn()
        closes(churn, per_second, seconds, lived=lived)
        assert thrashing(churn, seconds) == []


def test_it_ends_when_the_rate_falls_to_half():
    churn = Churn()
    closes(churn, 60, 10)
    assert thrashing(churn, 10)
    closes(churn, 30, 10, begin=10)
    assert thrashing(churn, 20), "hysteresis"
    closes(churn, 10, 10, begin=20)
    assert thrashing(churn, 30) == []


def test_no_more_clients_are_remembered_than_there_is_room_for():
    churn = Churn()
    for number in range(10_000):
        churn.note(("s1", f"10.{number >> 8}.{number & 255}.1"), 0, SECOND)
    assert len(churn._clients) <= 4096


def test_the_first_second_counts_and_is_not_forgotten():
    churn = Churn()
    closes(churn, 60, 1)
    assert churn.thrashing("s1", SECOND // 2) == []
    closes(churn, 60, 6, begin=1)
    (found,) = thrashing(churn, 7)
    assert found.rate == 60


def test_clients_of_ports_that_nobody_looks_at_are_forgotten():
    churn = Churn()
    churn.note(("s2", "10.0.0.9"), 0, SECOND)
    thrashing(churn, 60)
    assert churn._clients == {}
