"""Backends followed in time: since when they do what they do, and since when nothing moved."""

from build import START, backend, connection, tcp, title
from pgsonar.model import SECOND, BackendSighting, Details, Session
from pgsonar.tracking.backends import BackendTable, quiet_since, settle_doubt


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


class TestDoubt:
    """A context switch is movement only where something was done for the client."""

    @staticmethod
    def idling(*, details=None, session=None):
        table = BackendTable()
        look = BackendSighting(7, START, title("idle in transaction"), 10, START)
        table.observe("s", [look])
        (one,) = table.of_server("s")
        one.connection = connection(tcp(1))
        one.connection.details = details
        one.session = session
        table.observe("s", [look._replace(switches=11, at=START + 8 * SECOND)])
        return table, one, look

    @staticmethod
    def told(at, last):
        """TCP_INFO of `at`, the last byte so many seconds before."""
        return Details(START + at * SECOND, 0, 0, 0, 0, 0, 0, last * 1000, last * 1000, 0, 0, 0, 0)

    def test_while_it_is_in_doubt_both_are_known(self):
        _, one, _ = self.idling(details=self.told(5, 5))
        assert (one.still_since, one.still_before) == (START + 8 * SECOND, START)

    def test_no_byte_means_that_the_server_woke_it(self):
        _, one, _ = self.idling(details=self.told(5, 5))
        one.connection.details = self.told(9, 9)
        settle_doubt(one, START + 9 * SECOND, told_at=None)
        assert (one.still_since, one.still_before) == (START, None)

    def test_a_byte_means_that_it_moved(self):
        _, one, _ = self.idling(details=self.told(5, 5))
        one.connection.details = self.told(9, 1)
        settle_doubt(one, START + 9 * SECOND, told_at=None)
        assert (one.still_since, one.still_before) == (START + 8 * SECOND, None)

    def test_an_old_reading_decides_nothing_and_doubt_ends(self):
        _, one, _ = self.idling(details=self.told(5, 5))
        settle_doubt(one, START + 12 * SECOND, told_at=None)
        assert one.still_before == START
        settle_doubt(one, START + 18 * SECOND, told_at=None)
        assert (one.still_since, one.still_before) == (START + 8 * SECOND, None)

    def test_a_login_tells_as_well(self):
        session = Session(7, "client backend", START, state="idle in transaction", state_since=START)
        _, one, _ = self.idling(session=session)
        settle_doubt(one, START + 9 * SECOND, told_at=START + 9 * SECOND)
        assert one.still_since == START

    def test_where_nothing_tells_one_wake_up_is_forgiven_and_no_second(self):
        table, one, look = self.idling()
        assert (one.still_since, one.still_before) == (START, None)
        table.observe("s", [look._replace(switches=12, at=START + 9 * SECOND)])
        assert one.still_since == START + 9 * SECOND

    def test_switches_that_were_not_read_move_nothing(self):
        table, one, look = self.idling(details=self.told(5, 5))
        one.still_before, one.still_since = None, START
        table.observe("s", [look._replace(switches=None, at=START + 10 * SECOND)])
        assert (one.still_since, one.switches) == (START, 11)


def test_quiet_is_since_the_last_byte_where_that_is_told():
    one = backend(title(), since=START, still=START + 5 * SECOND)
    assert quiet_since(one) == START + 5 * SECOND
    one.connection = connection(tcp(1))
    one.connection.details = TestDoubt.told(10, 3)
    assert quiet_since(one) == START + 7 * SECOND
    one.activity_since = START + 12 * SECOND
    assert quiet_since(one) == START + 12 * SECOND, "what began after TCP_INFO was read"
