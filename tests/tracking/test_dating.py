"""How old what one look finds is: never older than is certain, never younger than was seen to move."""

from build import START, backend, connection, tcp, title
from pgsonar.model import SECOND, Details, Session, TcpState
from pgsonar.tracking.dating import date_back

NOW = START + 100 * SECOND


def details(*, sent=0, received=0, ack=0):
    return Details(NOW, 0, 0, 0, 0, 0, 0, sent * 1000, received * 1000, ack * 1000, 0, 0, 0)


def seen_now(what, state=TcpState.ESTABLISHED, **told):
    """A backend and its socket at first sight."""
    socket = connection(tcp(1, state), opened=NOW)
    socket.details = details(**told)
    return backend(what, started=START, since=NOW, first_seen=NOW, bound=socket)


def test_a_transaction_idles_since_the_last_byte_either_way():
    one = seen_now(title("idle in transaction"), sent=40, received=41, ack=40)
    date_back([one.connection], [one])

    assert (one.activity_since, one.still_since) == (NOW - 40 * SECOND, NOW - 40 * SECOND)
    assert one.connection.opened_at == NOW - 41 * SECOND


def test_nothing_is_older_than_its_process():
    one = seen_now(title("idle"), sent=500, received=500, ack=500)
    date_back([one.connection], [one])

    assert one.activity_since == START


def test_what_was_seen_to_move_is_no_older_than_that():
    one = seen_now(title("idle in transaction"), sent=40, received=41)
    one.first_seen = one.connection.opened_at = NOW - 5 * SECOND
    one.activity_since = one.still_since = NOW - SECOND
    date_back([one.connection], [one])

    assert (one.activity_since, one.still_since) == (NOW - SECOND, NOW - SECOND)


def test_a_login_under_way_has_stood_still_since_the_password_was_asked_for():
    one = seen_now(title("authentication"), sent=40, received=40)
    one.activity_since = START  # under way since the fork
    date_back([one.connection], [one])

    assert (one.activity_since, one.still_since) == (START, NOW - 40 * SECOND)


def test_a_fin_is_as_old_as_the_last_acknowledgement_at_least():
    one = seen_now(title("SELECT"), TcpState.CLOSE_WAIT, sent=60, received=60, ack=7)
    date_back([one.connection], [one])

    assert one.connection.state_since == NOW - 7 * SECOND


def test_a_session_tells_what_a_unix_socket_does_not():
    one = backend(title("idle", host="[local]"), since=NOW, first_seen=NOW, still=NOW)
    one.session = Session(1, "client backend", START, state="idle", state_since=NOW - 30 * SECOND)
    date_back([], [one])
    other = backend(title("active", host="[local]"), since=NOW, first_seen=NOW, still=NOW)
    other.session = one.session  # told before it began to work
    date_back([], [other])

    assert (one.activity_since, other.activity_since) == (NOW - 30 * SECOND, NOW)
