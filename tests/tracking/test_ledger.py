"""The slot ledger: each child of the postmaster in its place."""

from build import START, backend, connection, server, tcp, title
from pgsonar.model import BackendKind, Limits, TcpState
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
