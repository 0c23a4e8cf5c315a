"""Who is behind each socket, by title and by inode, also when 4-tuples return."""

import pytest

from build import NETNS, START, backend, server, tcp, title
from pgsonar.model import SECOND, BackendKind, ChangeKind, TcpState
from pgsonar.tracking.connections import ConnectionTable
from pgsonar.tracking.correlation import Correlation, owners
from pgsonar.tracking.earlier import EarlierRun


@pytest.fixture
def table():
    return ConnectionTable()


def opened(table, number, socket, at=0.0):
    table.apply([(number, START + round(at * SECOND), NETNS, ChangeKind.OPENED, 0, socket, None)])
    return table.connections[number]


def closed(table, number, at):
    socket = table.connections[number].socket
    table.apply([(number, START + round(at * SECOND), NETNS, ChangeKind.CLOSED, 1, socket, None)])


def test_the_title_joins_the_rows_remote_end(table):
    mine, other = backend(title(port=40000)), backend(title(port=40001), pid=2)
    opened(table, 1, tcp(40000))
    opened(table, 2, tcp(40001))
    Correlation(EarlierRun()).bind(server(), [mine, other], table)

    assert (mine.connection.id, other.connection.id) == (1, 2)
    assert owners([mine, other]) == {1: mine, 2: other}


def test_the_same_port_of_another_address_is_another_client(table):
    mine = backend(title(port=40000))
    opened(table, 1, tcp(40000, address="10.9.9.9"))
    Correlation(EarlierRun()).bind(server(), [mine], table)

    assert mine.connection is None


def test_a_socket_on_another_local_port_is_another_servers(table):
    mine = backend(title(port=40000))
    opened(table, 1, tcp(40000, local=6432))
    Correlation(EarlierRun()).bind(server(), [mine], table)

    assert mine.connection is None


def test_a_child_that_still_holds_its_postmasters_listeners_is_behind_none_of_them(table):
    mine = backend(title(port=40000))
    mine.inodes = (5, 7)
    opened(table, 1, tcp(0, TcpState.LISTEN, inode=5))
    opened(table, 2, tcp(40000, inode=7))
    correlation = Correlation(EarlierRun())
    correlation.bind(server(), [mine], table)

    assert mine.connection.id == 2
    assert not correlation.disagreements


def test_the_inode_decides_and_a_title_that_disagrees_is_counted(table):
    mine = backend(title(port=40000))
    mine.inodes = (8,)
    opened(table, 1, tcp(40000, inode=7))
    opened(table, 2, tcp(40001, inode=8))
    correlation = Correlation(EarlierRun())
    correlation.bind(server(), [mine], table)

    assert mine.connection.id == 2
    assert correlation.disagreements["s1"] == 1


def test_a_backend_without_a_title_is_bound_by_its_inode(table):
    young = backend(title(None, user=None, host=None, port=None, kind=BackendKind.PRESTARTUP))
    young.inodes = (8,)
    opened(table, 1, tcp(40001, inode=8))
    Correlation(EarlierRun()).bind(server(), [young], table)

    assert young.connection.id == 1


def test_a_lost_socket_is_noted_with_the_first_scan_without_it(table):
    mine = backend(title("SELECT", port=40000))
    opened(table, 1, tcp(40000))
    correlation = Correlation(EarlierRun())
    correlation.bind(server(), [mine], table)
    assert mine.socket_lost_at is None

    closed(table, 1, 4)
    correlation.bind(server(), [mine], table)

    assert mine.socket_lost_at == START + 4 * SECOND


def test_a_socket_whose_backend_has_ended_is_left_until_it_is_bound_again(table):
    mine = backend(title("SELECT", port=40000))
    opened(table, 1, tcp(40000))
    correlation = Correlation(EarlierRun())
    seen = []
    for backends in ([], [mine], [], [], [mine]):
        correlation.bind(server(), backends, table)
        seen.append(table.connections[1].is_left)

    assert seen == [False, False, True, True, False]


def test_a_socket_that_vanished_before_the_title_was_read_is_found_all_the_same(table):
    mine = backend(title("SELECT", port=40000))
    opened(table, 1, tcp(40000), at=0.1)
    closed(table, 1, 0.2)
    Correlation(EarlierRun()).bind(server(), [mine], table)

    assert mine.socket_lost_at == START + SECOND // 5


def test_a_connection_that_ended_before_the_backend_began_is_not_its_own(table):
    opened(table, 1, tcp(40000), at=-9)
    closed(table, 1, -1)
    mine = backend(title("SELECT", port=40000))
    Correlation(EarlierRun()).bind(server(), [mine], table)

    assert mine.connection is None


def test_an_orphan_keeps_its_lost_socket_when_its_port_returns(table):
    orphan = backend(title("SELECT", port=40000))
    opened(table, 1, tcp(40000))
    correlation = Correlation(EarlierRun())
    correlation.bind(server(), [orphan], table)
    closed(table, 1, 4)
    opened(table, 2, tcp(40000, inode=99), at=5)
    heir = backend(title(port=40000), pid=2, started=START + 5 * SECOND)
    correlation.bind(server(), [orphan, heir], table)

    assert (orphan.connection.id, heir.connection.id) == (1, 2)
    assert heir.socket_lost_at is None


def test_queues_that_move_restart_the_clock_of_their_backend(table):
    mine = backend(title("idle in transaction", port=40000))
    opened(table, 1, tcp(40000))
    table.apply([(1, START + 8 * SECOND, NETNS, ChangeKind.QUEUE, 1, tcp(40000, rx=3), None)])
    Correlation(EarlierRun()).bind(server(), [mine], table)

    assert mine.still_since == START + 8 * SECOND


def test_sessions_over_a_unix_socket_have_no_row(table):
    local = backend(title(host="[local]", port=None))
    opened(table, 1, tcp(40000, TcpState.CLOSE_WAIT))
    Correlation(EarlierRun()).bind(server(), [local], table)

    assert local.connection is None


def test_a_client_told_by_name_is_found_by_its_port_if_that_is_unique(table):
    mine = backend(title(host="app-7.example", port=40000))
    opened(table, 1, tcp(40000))
    Correlation(EarlierRun()).bind(server(), [mine], table)
    assert mine.connection.id == 1

    unsure = backend(title(host="app-8.example", port=50000), pid=2)
    opened(table, 2, tcp(50000))
    opened(table, 3, tcp(50000, address="10.0.0.8"))
    Correlation(EarlierRun()).bind(server(), [unsure], table)
    assert unsure.connection is None


def test_the_zone_of_a_link_local_address_is_not_in_the_row(table):
    mine = backend(title(host="fe80::1%eth0", port=40000))
    opened(table, 1, tcp(40000, address="fe80::1"))
    Correlation(EarlierRun()).bind(server(), [mine], table)

    assert mine.connection.id == 1
