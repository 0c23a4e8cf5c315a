"""Since when a backend has not moved for its client: the truth table of `tracking.stillness`, row by row."""

import re

import pytest

from build import START, backend, connection, tcp, title
from pgsonar.model import SECOND, BackendSighting, Details, Session
from pgsonar.tracking import stillness
from pgsonar.tracking.backends import BackendTable, bind, follow
from pgsonar.tracking.stillness import (
    DOUBT,
    DOUBT_OF_LOGIN,
    idle_since,
    is_dated,
    is_doubted,
    quiet_since,
    settle_doubt,
    unmoved_since,
)

MET = 2  # seconds after its fork, in an activity that had begun before


def at(seconds):
    return START + round(seconds * SECOND)


def tcp_info(read, last):
    """TCP_INFO of the second `read`, the last byte so many seconds before."""
    return Details(at(read), 0, 0, 0, 0, 0, 0, last * 1000, last * 1000, 0, 0, 0, 0)


def login(since):
    return Session(7, "client backend", START, state="idle in transaction", state_since=at(since))


class Followed:
    """A backend from its first look on."""

    def __init__(self, activity="idle in transaction"):
        self.table = BackendTable()
        self.look(MET, 10, activity)

    def look(self, second, switches, activity="idle in transaction"):
        self.table.observe("s", [BackendSighting(7, START, title(activity), switches, at(second))])
        return self

    @property
    def one(self):
        (backend,) = self.table.of_server("s")
        return backend

    def knowing(self, details=None, session=None):
        bind(self.one, connection(tcp(1)))
        self.one.connection.details = details
        self.one.session = session
        return self

    def bytes_moved(self, second):
        self.one.connection.moved_at = at(second)
        follow(self.one)
        return self

    def settled(self, second, told_at=None):
        settle_doubt(self.one, at(second), told_at=None if told_at is None else at(told_at))
        return self

    def aged(self):
        stillness.note_age(self.one)
        return self


def woken_once():
    return Followed().look(8, 11)


def doubted():
    return Followed().knowing(tcp_info(5, 3)).look(8, 11)


def told(by, read, last):
    by.one.connection.details = tcp_info(read, last)
    return by


# What is seen, in the words of the table; then since when it is in its activity, still, and still if it is in doubt.
ROWS = [
    ("first look, a login is under way", lambda: Followed("authentication"), (0, 0, None)),
    ("first look, anything else", Followed, (MET, MET, None)),
    ("another title", lambda: Followed().look(8, 10, "idle"), (8, 8, None)),
    ("another title", lambda: doubted().look(9, 11, "idle"), (9, 9, None)),
    ("it ran; TCP_INFO or a login can tell what for", doubted, (MET, 8, MET)),
    ("it ran; TCP_INFO or a login can tell what for", lambda: doubted().look(9, 12), (MET, 9, MET)),
    (
        "it ran; TCP_INFO or a login can tell what for",
        lambda: Followed().knowing(session=login(0)).look(8, 11),
        (MET, 8, MET),
    ),
    ("it ran once, soon after its last statement, and nothing can tell", woken_once, (MET, MET, None)),
    ("it ran again, or later, and nothing can tell", lambda: woken_once().look(9, 12), (MET, 9, None)),
    ("it ran again, or later, and nothing can tell", lambda: Followed().look(8, 12), (MET, 8, None)),
    ("it ran again, or later, and nothing can tell", lambda: Followed().look(14, 11), (MET, 14, None)),
    ("bytes moved on its socket", lambda: Followed().knowing().bytes_moved(7), (MET, 7, None)),
    ("bytes moved on its socket", lambda: Followed().knowing().bytes_moved(0), (MET, MET, None)),
    ("in doubt; told: nothing was done for the client", lambda: told(doubted(), 9, 9).settled(9), (MET, MET, None)),
    ("in doubt; told: nothing was done for the client", lambda: told(doubted(), 9, 3).settled(9), (MET, 6, None)),
    (
        "in doubt; told: nothing was done for the client",
        lambda: Followed().knowing(session=login(0)).look(8, 11).settled(9, told_at=9),
        (MET, MET, None),
    ),
    ("in doubt; told: something was", lambda: told(doubted(), 9, 1).settled(9), (MET, 8, None)),
    ("in doubt for too long (DOUBT, DOUBT_OF_LOGIN)", lambda: doubted().settled(9), (MET, 8, MET)),
    ("in doubt for too long (DOUBT, DOUBT_OF_LOGIN)", lambda: doubted().settled(8 + DOUBT / SECOND), (MET, 8, None)),
    (
        "in doubt for too long (DOUBT, DOUBT_OF_LOGIN)",
        lambda: Followed().knowing(session=login(0)).look(8, 11).settled(8 + DOUBT / SECOND),
        (MET, 8, MET),
    ),
    (
        "in doubt for too long (DOUBT, DOUBT_OF_LOGIN)",
        lambda: Followed().knowing(session=login(0)).look(8, 11).settled(8 + DOUBT_OF_LOGIN / SECOND),
        (MET, 8, None),
    ),
    (
        "one look alone; TCP_INFO or a login told an age",
        lambda: Followed().knowing(tcp_info(3, 2)).aged(),
        (1, 1, None),
    ),
    ("one look alone; TCP_INFO or a login told an age", lambda: Followed().aged(), (MET, MET, None)),
    ("one look alone; TCP_INFO or a login told an age", lambda: doubted().aged(), (MET, 8, MET)),
]


@pytest.mark.parametrize(("seen", "play", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_truth_table(seen, play, expected):
    one = play().one
    before = None if one.still_before is None else (one.still_before - START) / SECOND

    assert ((one.activity_since - START) / SECOND, (one.still_since - START) / SECOND, before) == expected


def test_every_row_of_the_table_is_tested():
    cells = re.findall(r"^\| ([^|]*?) *\|", stillness.__doc__, re.MULTILINE)
    text = " ".join(cell for cell in cells if not cell.startswith("-"))

    assert [seen for seen, _, _ in ROWS if seen not in text] == []
    for seen, _, _ in ROWS:
        text = text.replace(seen, "")
    assert text.replace(": taken for the server's doing", "").split() == ["what", "is", "seen"]


def test_while_it_is_in_doubt_it_has_not_idled_less_and_not_stood_longer():
    one = doubted().one

    assert is_doubted(one)
    assert idle_since(one, None).at == at(MET)
    assert unmoved_since(one) == at(8)


def test_what_idles_since_before_the_first_look_is_observed_only_where_a_login_told():
    one = Followed().one
    assert idle_since(one, None) == (at(MET), False)
    one.session = login(1)
    assert idle_since(one, at(3)) == (at(1), True)
    assert idle_since(Followed().look(8, 10, "idle").one, None) == (at(8), True)


def test_an_age_is_known_of_what_was_seen_to_begin():
    assert not is_dated(Followed().one)
    assert is_dated(Followed().look(8, 10, "idle").one)
    assert is_dated(Followed().knowing(tcp_info(3, 2)).aged().one)


def test_switches_that_were_not_read_move_nothing():
    followed = Followed().look(8, None)

    assert (unmoved_since(followed.one), followed.one.switches) == (at(MET), 10)


def test_quiet_is_since_the_last_byte_where_that_is_told():
    one = backend(title(), since=START, still=at(5))
    assert quiet_since(one) == at(5)
    bind(one, connection(tcp(1)))
    one.connection.details = tcp_info(10, 3)
    assert quiet_since(one) == at(7)
    one.activity_since = at(12)
    assert quiet_since(one) == at(12), "what began after TCP_INFO was read"
