"""Backends followed in time: since when they do what they do, and since when nothing moved."""

from build import START, title
from pgsonar.model import SECOND, BackendSighting
from pgsonar.tracking.backends import BackendTable


def sighting(activity, seconds, *, pid=1, switches=None, started=START, **changes):
    return BackendSighting(pid, started, title(activity, **changes), switches, START + round(seconds * SECOND))


def table_after(*sightings):
    table = BackendTable()
    for one in sightings:
        table.observe("s1", [one])
    return table


def only(table):
    (backend,) = table.of_server("s1")
    return backend


def test_a_login_is_under_way_since_the_fork():
    assert only(table_after(sighting("authentication", 0.2))).still_since == START


def test_a_transaction_met_open_counts_from_the_first_sight():
    assert only(table_after(sighting("idle in transaction", 9))).still_since == START + 9 * SECOND


def test_an_activity_that_stays_keeps_its_time():
    backend = only(table_after(*(sighting("idle in transaction", n, switches=5) for n in range(4))))

    assert backend.still_since == START
    assert backend.seen_at == START + 3 * SECOND


def test_another_activity_restarts_the_clock():
    backend = only(
        table_after(sighting("idle", 1), sighting("idle in transaction", 2), sighting("idle in transaction", 3))
    )

    assert backend.activity_since == backend.still_since == START + 2 * SECOND


def test_context_switches_in_between_restart_the_clock_though_every_title_is_the_same():
    looks = [sighting("idle in transaction", n, switches=n) for n in range(5)]
    backend = only(table_after(*looks, sighting("idle in transaction", 9, switches=4)))

    assert backend.activity_since == START
    assert backend.still_since == START + 4 * SECOND


def test_a_first_reading_of_the_switches_is_no_movement():
    backend = only(table_after(sighting("authentication", 0), sighting("authentication", 1, switches=7)))

    assert backend.still_since == START


def test_who_is_not_in_a_look_has_ended():
    table = table_after(sighting("idle", 0))
    table.observe("s1", [])

    assert table.of_server("s1") == []


def test_a_pid_that_returns_is_another_backend():
    table = table_after(sighting("idle", 0))
    first = only(table)
    table.observe("s1", [sighting("idle", 9, started=START + 8 * SECOND)])

    assert only(table) is not first
