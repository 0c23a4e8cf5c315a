"""What a login adds: the right server, the gap that stands, and a server that is known by nothing else."""

from dataclasses import replace

import pytest

from build import START, backend, database_reading, server, title
from pgsonar.model import LOCAL_HOST, SECOND, BackendKind, BackendSighting, Endpoint, Limits, Session
from pgsonar.tracking.backends import BackendTable, attach
from pgsonar.tracking.ledger import Reconciliation, slot_ledger
from pgsonar.tracking.readings import Readings, improved, server_of, sightings

AT = START + 100 * SECOND


def session(pid, state="idle", *, started=START, kind="client backend", **more):
    return Session(pid=pid, kind=kind, started=started, state=state, user="app", database="shop", **more)


def reading(*sessions, at=AT, **changes):
    known = {"endpoint": Endpoint("db.example", 5432), "system_identifier": "7", "limits": Limits(50, 5, "login")}
    return database_reading(*sessions, begun=at - SECOND // 100, at=at, **(known | changes))


def children(**of):
    """A table in which each of these servers has one child: by its number in its own namespace."""
    table = BackendTable()
    for name, (number, user) in of.items():
        table.observe(name, [BackendSighting(100, START, title(user=user), at=AT, inner_pid=number)])
    return table


def logged_in(**changes):
    """A reading with the session of the login itself."""
    changes = {"endpoint": Endpoint("localhost", 5432)} | changes
    return reading(replace(session(77), user="pgsonar"), own_pid=77, role="primary", **changes)


def test_a_reading_is_of_the_server_with_its_system_identifier():
    here, other = server(id="a", system_identifier="7"), server(id="b", system_identifier="8")

    for skew in (-3600, 0, 3600):  # whatever the clocks say
        assert server_of(logged_in(started=skew * SECOND), [other, here], children()) is here
    assert server_of(logged_in(port=5433), [here], children()) is None
    assert server_of(logged_in(system_identifier="9"), [here, other], children(a=(77, "pgsonar"))) is None


def test_of_several_with_one_identifier_the_own_backend_tells():
    primary = server(id="a", system_identifier="7", role="primary")
    standby = server(id="b", system_identifier="7", role="standby", netns=2)

    assert server_of(logged_in(), [standby, primary], children(a=(77, "pgsonar"), b=(9, "app"))) is primary
    assert server_of(logged_in(), [standby, primary], children(a=(77, "app"), b=(77, "pgsonar"))) is standby
    assert server_of(logged_in(), [standby, primary], children()) is None


def test_one_of_another_role_is_another_server_unless_it_was_promoted():
    standby = server(id="a", system_identifier="7", role="standby")

    assert server_of(logged_in(), [standby], children(a=(9, "app"))) is None, "its primary, elsewhere"
    assert server_of(logged_in(), [standby], children(a=(77, "pgsonar"))) is standby, "promoted"


def test_a_copy_elsewhere_is_another_server():
    here, there = server(id="a", listens_on=("10.0.0.1",)), Endpoint("prod.example", 5432)

    assert server_of(logged_in(endpoint=there), [here], children(a=(9, "app"))) is None
    assert server_of(logged_in(endpoint=there), [here], children(a=(77, "pgsonar"))) is here, "by another name"
    assert server_of(logged_in(endpoint=Endpoint("10.0.0.1", 5432)), [here], children()) is here


def test_where_the_identifier_cannot_be_read_the_own_backend_tells():
    unread = server(id="a", system_identifier=None)

    assert server_of(logged_in(), [unread], children(a=(77, "pgsonar"))) is unread
    assert server_of(logged_in(), [unread], children(a=(77, "app"))) is None, "a number of another namespace"
    assert server_of(logged_in(), [unread], children()) is None


def test_what_runs_is_believed_before_what_the_server_says_of_itself_and_that_before_a_guess():
    sure, guessed = server(), server(limits=Limits(100, 3, "configuration file", guessed=True))

    assert improved(sure, reading()).limits == sure.limits
    assert improved(guessed, reading()).limits == Limits(50, 5, "login")
    assert improved(sure, reading(missing=("names",))).missing == ("names",)
    assert (improved(sure, reading()).version, improved(sure, reading()).role) == ("16.4", "primary")


def test_a_session_belongs_to_the_process_with_its_number_that_was_there_when_it_was_listed():
    mine = backend(title(), pid=900)
    mine.inner_pid = 10
    for skew in (-3600, 0, 3600):  # the server's clock may have been set since
        listed = session(10, started=START + skew * SECOND)
        attach([mine], reading(listed))
        assert mine.session == listed
    attach([mine], reading(session(900)))
    assert mine.session is None
    attach([mine], reading(session(10)))
    attach([mine], None)
    assert mine.session is None
    attach([mine], reading(replace(session(10), user="another")))
    assert mine.session is None
    heir = backend(title(), pid=10, started=AT + SECOND)
    attach([heir], reading(session(10)))
    assert heir.session is None, "the number has returned"


def gap_of(*looks):
    """The ledger after readings: of backends and the sessions listed then."""
    reconciliation = Reconciliation()
    for backends, sessions in looks:
        reconciliation.take(backends, reading(*sessions))
    return slot_ledger(server(), looks[-1][0], reconciliation)


@pytest.mark.parametrize(
    ("titles", "cause"),
    [
        ([title("authentication")], "1 client never sent its password"),
        ([title("authentication"), title("authentication")], "2 clients never sent their password"),
        ([title("startup", waiting=True)], "1 login waits for a lock on a catalog"),
        ([title("startup")], "1 login has not finished starting"),
        ([title(kind=BackendKind.UNKNOWN)], "1 process tells nothing by its title"),
        ([title("idle")], "1 session is not listed"),
        ([title("authentication"), title("idle")], "1 client never sent its password, 1 session is not listed"),
    ],
)
def test_a_gap_that_stands_has_a_cause(titles, cause):
    backends = [backend(title(), pid=10), *(backend(what, pid=20 + n) for n, what in enumerate(titles))]
    ledger = gap_of((backends, [session(10)]), (backends, [session(10)]))

    assert (ledger.used, ledger.database_sees, ledger.gap) == (1 + len(titles), 1, len(titles))
    assert ledger.cause == cause


def test_a_gap_of_one_reading_is_none():
    backends = [backend(title(), pid=10), backend(title("authentication"), pid=20)]
    assert gap_of((backends, [session(10)])).gap == 0
    assert gap_of((backends, [session(10)]), (backends, [session(10), session(20)])).gap == 0
    assert gap_of((backends, [session(10)]), (backends[:1], [session(10)])).gap == 0


def test_who_came_while_the_database_was_read_is_no_gap():
    backends = [backend(title(), pid=10, started=AT)]
    assert gap_of((backends, []), (backends, [])).gap == 0


def test_a_process_that_took_the_number_of_one_in_the_gap_is_not_in_it():
    first = [backend(title("authentication"), pid=20)]
    second = [backend(title("authentication"), pid=20, started=START + SECOND)]
    assert gap_of((first, []), (second, [])).gap == 0


def test_logins_that_postgresql_18_lists_as_starting_are_no_sessions():
    backends = [backend(title("authentication"), pid=20)]
    look = backends, [session(20, "starting")]
    assert gap_of(look, look).gap == 1


def test_a_role_that_does_not_see_all_proves_no_gap():
    readings = Readings(BackendTable())
    readings.reconcile(server(), [backend(title())], reading(sees_all=False))
    assert readings.reconciliations == {}


def test_a_server_that_does_not_run_here_is_known_by_its_login_while_that_answers():
    readings = Readings(BackendTable())
    other = server(system_identifier="8")
    assert readings.take(reading(), 10 * SECOND, [other]) is None
    readings.settle([other])
    (remote,) = readings.remote(AT)

    assert (remote.pid, remote.id, remote.label) == (0, "7@db.example:5432", "db.example:5432")
    assert remote.limits == Limits(50, 5, "login")
    assert "does not run on this host" in remote.missing[0]
    assert readings.remote(AT) == [remote]
    assert readings.remote(AT + 10 * SECOND) == []


def test_a_server_that_is_read_before_it_is_found_is_not_taken_for_a_remote_one():
    readings = Readings(BackendTable())
    readings.take(reading(), 10 * SECOND, [])
    readings.settle([server(address="db.example")])

    assert readings.remote(AT) == []
    assert readings.of(server(address="db.example").id, AT) is not None


def test_a_remote_server_that_turns_out_to_run_here_is_one_server():
    readings = Readings(BackendTable())
    readings.take(reading(), 10 * SECOND, [])
    readings.settle([])
    assert len(readings.remote(AT)) == 1
    here = server(address="db.example")
    assert readings.take(reading(), 10 * SECOND, [here]) is here
    assert readings.remote(AT) == []


def test_sessions_of_a_remote_server_stand_in_for_processes():
    told = reading(
        session(1, "idle in transaction", client_address="10.0.0.7", client_port=4, state_since=AT - SECOND),
        session(2, "active", wait_event_type="Lock", wait_event="relation"),
        session(3, "starting"),
        session(4, None, kind="walsender"),
        session(5, None, kind="checkpointer"),
    )
    one, two, three, four, five = sightings(told)

    assert (one.title.activity, one.title.host, one.title.port) == ("idle in transaction", "10.0.0.7", 4)
    assert one.switches == AT - SECOND
    assert (two.title.waiting, two.title.host) == (True, LOCAL_HOST)
    assert three.title.activity == "authentication"
    kinds = [s.title.kind for s in (three, four, five)]
    assert kinds == [BackendKind.CLIENT, BackendKind.WALSENDER, BackendKind.WORKER]


def test_a_reading_holds_for_a_while_and_is_forgotten_with_its_server():
    readings = Readings(BackendTable())
    here = server(address="db.example")
    readings.take(reading(), 10 * SECOND, [here])
    assert readings.of(here.id, AT + 9 * SECOND) is not None
    assert readings.of(here.id, AT + 10 * SECOND) is None
    readings.take(replace(reading(), at=AT + 20 * SECOND), 10 * SECOND, [here])
    assert readings.of(here.id, AT + 21 * SECOND) is not None
    readings.forget(here.id)
    assert readings.of(here.id, AT + 21 * SECOND) is None
