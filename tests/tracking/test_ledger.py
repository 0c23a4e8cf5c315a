"""The slot ledger: each child of the postmaster in its place."""

from build import START, backend, connection, database_reading, server, tcp, title
from pgsonar.detectors.evidence import who
from pgsonar.model import BackendKind, Limits, Session, TcpState
from pgsonar.tracking.backends import attach
from pgsonar.tracking.ledger import slot_ledger


def test_every_holder_is_counted_once_and_in_its_place():
    gone = connection(tcp(3, TcpState.CLOSE_WAIT, rx=1))
    waiting = connection(tcp(4, TcpState.CLOSE_WAIT, inode=0, rx=1))
    backends = [
        backend(title("idle")),
        backend(title("SELECT"), bound=gone),
        backend(title("SELECT"), lost=START),
        backend(title("SELECT"), bound=waiting),
        backend(title("authentication")),
        backend(title("startup", waiting=True)),
        backend(title("idle", host="[local]", port=None)),
        backend(title(None)),
        backend(title(kind=BackendKind.UNKNOWN)),
        backend(title(kind=BackendKind.WALSENDER)),
        backend(title(kind=BackendKind.WORKER)),
        backend(title(kind=BackendKind.WORKER)),
        backend(title(kind=BackendKind.PRESTARTUP)),
    ]
    ledger = slot_ledger(server(), backends)

    assert ledger.holders == {"session": 4, "authenticating": 1, "starting": 1, "orphan": 2, "unaccounted": 1}
    assert ledger.used == 9
    assert ledger.unix == 1
    assert ledger.no_slot == {"walsender": 1, "worker": 2, "prestartup": 1}


def test_utilization_is_of_what_applications_can_have_and_may_pass_one():
    ledger = slot_ledger(server(limits=Limits(10, 3, "pg_control")), [backend(title())] * 8)

    assert ledger.utilization == 8 / 7


def test_without_a_limit_there_is_no_utilization():
    assert slot_ledger(server(limits=Limits()), [backend(title())]).utilization is None


CUT = title(None, user=None, database=None, host=None, port=None, kind=BackendKind.UNKNOWN)._replace(is_cut=True)


def told_by_a_login(backends, *kinds):
    """The same, with what a login lists them as."""
    sessions = [
        Session(pid=b.inner_pid, kind=kind, started=b.started, user="Prod DB Readonly", database="Sales DB")
        for b, kind in zip(backends, kinds, strict=True)
    ]
    attach(backends, database_reading(*sessions))
    return backends


def test_a_cut_title_holds_a_slot_until_a_login_says_that_it_is_a_workers():
    backends = [backend(CUT, pid=pid) for pid in (1, 2, 3, 4)]
    assert slot_ledger(server(), backends).used == 4

    told_by_a_login(backends, "client backend", "pg_cron", "walsender", "unknown")
    ledger = slot_ledger(server(), backends)

    assert (ledger.holders["session"], ledger.holders["unaccounted"]) == (1, 1)
    assert ledger.no_slot == {"worker": 1, "walsender": 1}


def test_a_role_that_is_called_walsender_holds_a_slot_once_a_login_tells():
    backends = [backend(title(kind=BackendKind.WALSENDER, user="shop", database=None))]
    assert slot_ledger(server(), backends).used == 0

    assert slot_ledger(server(), told_by_a_login(backends, "client backend")).used == 1


def test_who_a_session_is_stays_told_when_the_login_has_gone():
    whole = title(user=None, database=None)._replace(names="Prod DB Readonly Sales DB")
    backends = told_by_a_login([backend(whole)], "client backend")
    attach(backends, None)

    assert (backends[0].user, backends[0].database, backends[0].session) == ("Prod DB Readonly", "Sales DB", None)
    assert who(backends[0]) == "Prod DB Readonly@10.0.0.7"
    assert who(backend(whole)) == "Prod DB Readonly Sales DB@10.0.0.7"
