"""The table of connections: what the sampler reports, followed in time."""

from build import NETNS, PORT, START, tcp
from pgsonar.model import SECOND, ChangeKind, Details, Endpoint, TcpState
from pgsonar.tracking.connections import KEEP_CLOSED, OTHER, REMEMBERED, ConnectionTable, FoldedCounts
from pgsonar.tracking.listening import Listener, Listening

PEER = Endpoint("10.0.0.7", 40000)


def change(number, at, kind, socket):
    return (number, START + at * SECOND, NETNS, kind, 0, socket, None)


def test_a_connection_keeps_when_it_was_first_seen_and_since_when_it_is_in_its_state():
    table = ConnectionTable()
    table.apply(
        [
            change(1, 0, ChangeKind.OPENED, tcp(40000)),
            change(1, 3, ChangeKind.QUEUE, tcp(40000, rx=5)),
            change(1, 5, ChangeKind.STATE, tcp(40000, TcpState.CLOSE_WAIT, rx=6)),
        ]
    )
    seen = table.connections[1]

    assert seen.opened_at == START
    assert seen.state_since == START + 5 * SECOND
    assert seen.socket.rx_queue == 6


def test_a_moving_timer_is_no_movement_of_data():
    table = ConnectionTable()
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(40000)), change(1, 9, ChangeKind.PROBE, tcp(40000))])

    assert table.connections[1].moved_at == START


def test_a_closed_connection_is_still_found_by_its_peer_for_a_while():
    table = ConnectionTable()
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(40000)), change(1, 2, ChangeKind.CLOSED, tcp(40000))])

    assert table.connections == {}
    assert [c.closed_at for c in table.from_peer(NETNS, PORT, PEER)] == [START + 2 * SECOND]

    later = 3 + KEEP_CLOSED // SECOND
    table.apply([change(2, later, ChangeKind.OPENED, tcp(1)), change(2, later, ChangeKind.CLOSED, tcp(1))])

    assert table.from_peer(NETNS, PORT, PEER) == []


def test_a_reused_four_tuple_is_found_newest_first():
    table = ConnectionTable()
    table.apply(
        [
            change(1, 0, ChangeKind.OPENED, tcp(40000)),
            change(1, 2, ChangeKind.CLOSED, tcp(40000)),
            change(2, 2, ChangeKind.OPENED, tcp(40000)),
        ]
    )

    assert [c.id for c in table.from_peer(NETNS, PORT, PEER)] == [2, 1]


def test_a_change_of_a_connection_never_seen_opens_it_and_a_close_does_not():
    table = ConnectionTable()
    table.apply([change(1, 0, ChangeKind.STATE, tcp(1)), change(2, 0, ChangeKind.CLOSED, tcp(2))])

    assert list(table.connections) == [1]


def test_resync_closes_what_is_absent_opens_what_is_new_and_keeps_the_rest():
    table = ConnectionTable()
    table.apply([change(n, 0, ChangeKind.OPENED, tcp(n)) for n in (1, 2)])
    kept = table.connections[2]
    table.resync(
        NETNS,
        [change(2, 0, ChangeKind.OPENED, tcp(2, TcpState.CLOSE_WAIT)), change(3, 4, ChangeKind.OPENED, tcp(3))],
        START + 9 * SECOND,
    )

    assert set(table.connections) == {2, 3}
    assert table.connections[2] is kept
    assert kept.state_since == START + 9 * SECOND
    assert table.connections[3].opened_at == START + 4 * SECOND


def serving(*listeners):
    """A table of which one server listens on the port, or these do."""
    table = ConnectionTable()
    table.serve(Listening(listeners or [Listener("s1", NETNS, PORT, None)]))
    return table


def test_a_forgotten_namespace_counts_no_closes():
    table = serving()
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(1))])
    table.forget(NETNS)

    assert table.connections == {}
    assert table.closed.of("s1") == {}


def test_listeners_are_no_connections_in_the_counts():
    table = serving()
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(0, TcpState.LISTEN)), change(2, 0, ChangeKind.OPENED, tcp(1))])

    assert table.opened.of("s1") == {"10.0.0.7": 1}


def test_counts_keep_the_first_clients_by_name_and_never_fall():
    counts = FoldedCounts(places=2)
    for client in ("a", "b", "c", "d", "a", "c"):
        counts.add("s1", client)

    assert counts.of("s1") == {"a": 2, "b": 1, OTHER: 3}


def test_counts_of_servers_without_end_let_go_of_the_oldest():
    counts = FoldedCounts(places=2)
    for number in range(REMEMBERED + 5):
        counts.add(f"s{number}", "a")

    assert (counts.of("s4"), counts.of("s5")) == ({}, {"a": 1})


OWN, PROXY = Listener("s1", NETNS, PORT, frozenset({"10.0.0.1"})), Listener("s2", NETNS, PORT, frozenset({"10.0.0.9"}))


def test_a_socket_belongs_to_who_has_accepted_it():
    table = serving(OWN, PROXY)
    mine, other = tcp(1), tcp(2)._replace(local=Endpoint("10.0.0.9", PORT))
    nobodys = tcp(3)._replace(local=Endpoint("10.0.0.8", PORT))
    table.apply([change(n, 0, ChangeKind.OPENED, socket) for n, socket in enumerate((mine, other, nobodys), 1)])

    assert [[c.id for c in table.of_server(server)] for server in ("s1", "s2")] == [[1], [2]]
    assert (table.opened.of("s1"), table.opened.of("s2")) == ({"10.0.0.7": 1}, {"10.0.0.7": 1})

    table.apply([change(1, 1, ChangeKind.CLOSED, mine), change(3, 1, ChangeKind.CLOSED, nobodys)])
    assert table.of_server("s1") == []
    assert (table.closed.of("s1"), table.closed.of("s2")) == ({"10.0.0.7": 1}, {})


def test_who_listens_later_gets_what_is_open_and_nothing_is_counted_twice():
    table = serving(Listener("s1", NETNS, PORT, None))
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(1)), change(2, 0, ChangeKind.OPENED, tcp(2, local=6432))])
    table.serve(Listening([PROXY._replace(id="s1"), OWN._replace(id="s2"), Listener("p", NETNS, 6432, None)]))

    assert [[c.id for c in table.of_server(server)] for server in ("s1", "s2", "p")] == [[], [1], [2]]
    assert [table.opened.of(server) for server in ("s1", "s2", "p")] == [{"10.0.0.7": 1}, {}, {"10.0.0.7": 1}]


def test_what_a_process_holds_is_its_servers_whoever_listens():
    table = serving(OWN._replace(addresses=None), PROXY._replace(addresses=None))
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(1)), change(2, 0, ChangeKind.OPENED, tcp(2))])
    first, gone = table.connections.values()
    assert table.opened.of("s1") == {}, "two may have accepted them"

    table.prove(first, "s1")
    table.serve(Listening([OWN._replace(id="s2")]))
    assert [c.id for c in table.of_server("s1")] == [1]
    table.apply([change(2, 1, ChangeKind.CLOSED, gone.socket)])
    assert (table.opened.of("s2"), table.closed.of("s2")) == ({"10.0.0.7": 1}, {"10.0.0.7": 1})


def test_what_is_known_to_be_a_servers_after_it_has_closed_counts_both_ways():
    table = ConnectionTable()
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(1))])
    late = table.connections[1]
    table.apply([change(1, 1, ChangeKind.CLOSED, late.socket)])
    table.prove(late, "s1")

    assert (table.opened.of("s1"), table.closed.of("s1")) == ({"10.0.0.7": 1}, {"10.0.0.7": 1})
    assert table.of_server("s1") == []


def test_a_number_of_a_namespace_that_returns_brings_no_counts_along():
    table = serving(OWN)
    table.apply([change(1, 0, ChangeKind.OPENED, tcp(1))])
    table.forget(NETNS)
    table.serve(Listening([OWN._replace(id="s2")]))
    table.apply([change(2, 9, ChangeKind.OPENED, tcp(2))])
    assert (table.opened.of("s1"), table.opened.of("s2")) == ({"10.0.0.7": 1}, {"10.0.0.7": 1})

    table.serve(Listening([OWN]))
    table.apply([change(3, 10, ChangeKind.OPENED, tcp(3))])
    assert table.opened.of("s1") == {"10.0.0.7": 2}, "who comes back goes on"


class TestWaiting:
    """Since when bytes wait, and since when the peer is silent."""

    @staticmethod
    def after(*rows, kind=ChangeKind.QUEUE):
        table = ConnectionTable()
        for second, row in enumerate(rows):
            at = START + second * SECOND
            change = ChangeKind.OPENED if not second else kind
            table.apply([(1, at, NETNS, change, 0, row, None)])
        return table, table.connections[1]

    def test_a_queue_counts_since_it_filled_and_no_more_once_it_is_empty(self):
        _, one = self.after(tcp(1), tcp(1, tx=5, rx=7))
        assert (one.unsent_since, one.unread_since) == (START + SECOND, START + SECOND)
        _, one = self.after(tcp(1), tcp(1, tx=5, rx=7), tcp(1))
        assert (one.unsent_since, one.unread_since) == (None, None)

    def test_bytes_that_were_taken_begin_it_anew(self):
        table, one = self.after(tcp(1, tx=1000, rx=1000))
        table.resync(
            NETNS, [(1, START, NETNS, ChangeKind.OPENED, 0, tcp(1, tx=1000, rx=900), None)], START + 9 * SECOND
        )
        assert (one.unsent_since, one.unread_since) == (START, START + 9 * SECOND)
        assert one.compared_at == START + 9 * SECOND

    def test_a_refilled_queue_is_told_by_the_bytes_that_went(self):
        table, one = self.after(tcp(1, tx=1000, rx=1000))
        for second, sent in ((2, 5000), (4, 5000), (6, 5001)):
            told = Details(START + second * SECOND, 0, sent, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
            table.note({1: told})
        assert (one.unsent_since, one.unread_since) == (START + 6 * SECOND, START)

    def test_a_peer_is_silent_since_the_fifth_retransmission_or_a_probe(self):
        rows = [tcp(1)._replace(retransmits=number) for number in (0, 4, 5, 6)]
        _, one = self.after(*rows, kind=ChangeKind.PROBE)
        assert one.silent_since == START + 2 * SECOND
        _, one = self.after(*rows, tcp(1), kind=ChangeKind.PROBE)
        assert one.silent_since is None
        _, one = self.after(tcp(1), tcp(1)._replace(probes=1), kind=ChangeKind.PROBE)
        assert one.silent_since == START + SECOND

    def test_probes_and_timers_move_nothing(self):
        _, one = self.after(tcp(1), tcp(1)._replace(probes=1, timer=4), kind=ChangeKind.PROBE)
        assert one.moved_at == START

    def test_a_connection_ends_once_when_neither_end_uses_it(self):
        table, one = self.after(tcp(1), tcp(1, TcpState.TIME_WAIT, inode=0), kind=ChangeKind.STATE)
        assert one.ended_at == START + SECOND
        table.apply([(1, START + 60 * SECOND, NETNS, ChangeKind.CLOSED, 6, tcp(1, TcpState.TIME_WAIT), None)])
        assert one.ended_at == START + SECOND


def test_what_stood_at_the_first_scan_is_no_short_connection():
    table = serving()
    waits = [(n, START, NETNS, ChangeKind.OPENED, 0, tcp(n, TcpState.TIME_WAIT, inode=0), None) for n in range(1, 301)]
    table.apply(waits)
    assert table.churn.thrashing("s1", START + 2 * SECOND) == []
    later = START + 3 * SECOND
    table.apply([(n, later, NETNS, ChangeKind.OPENED, 0, tcp(n, TcpState.TIME_WAIT), None) for n in range(301, 601)])
    assert table.churn.thrashing("s1", START + 5 * SECOND) != []


def test_what_had_closed_when_it_was_met_is_dated_by_its_last_acknowledgement():
    table = ConnectionTable()
    table.apply([(1, START, NETNS, ChangeKind.OPENED, 0, tcp(1, TcpState.CLOSE_WAIT), None)])
    table.note({1: Details(START + SECOND, 0, 0, 0, 0, 0, 0, 0, 0, 61_000, 0, 0, 0)})
    assert table.connections[1].state_since == START - 60 * SECOND
