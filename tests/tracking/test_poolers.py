"""Sessions through PgBouncer: whose they are, and which of them it has forgotten."""

from dataclasses import replace

from build import NETNS, PORT, START, backend, connection, server, tcp, title
from pgsonar.model import (
    SECOND,
    Endpoint,
    Pool,
    Pooler,
    PoolerClient,
    PoolerEnds,
    PoolerReading,
    PoolerServer,
    TcpState,
    Via,
)
from pgsonar.tracking.earlier import EarlierRun
from pgsonar.tracking.poolers import PoolerTable, closed_at

NOW = START + 100 * SECOND
END = Endpoint("10.0.0.7", 41000)  # the pooler's, of its connection to the server
POOLER = Pooler("p", (7,), NETNS, 6432, "10.0.0.7", socket_directories=frozenset({"/run/one", "/run/two"}))
APPLICATION = PoolerClient(
    "c1", "s1", "app", "shop", "active", "web", "10.0.0.9", 5000, Endpoint("10.0.0.7", 6432), 0.0
)


def reading(*, at=NOW, endpoint=None, servers=True, clients=True, pools=(), wait_time=None):
    one = PoolerServer("s1", "c1", "app", "shop", "active", Endpoint("10.0.0.1", PORT), END, 4711)
    return PoolerReading(
        at=at,
        endpoint=endpoint or Endpoint("10.0.0.7", 6432),
        version="1.18",
        pools=tuple(pools),
        clients=(APPLICATION,) if clients else (),
        servers=(one,) if servers else (),
        wait_time=wait_time or {},
    )


def pooled(state=TcpState.ESTABLISHED, *, since=START):
    return backend(title("SELECT"), bound=connection(tcp(END.port, state), state_since=since))


def table(*readings, ends=(), ends_at=NOW):
    made = PoolerTable(EarlierRun())
    made.poolers = {"p": POOLER}
    made.ends, made.ends_at = {"p": PoolerEnds(dict.fromkeys(ends, TcpState.ESTABLISHED), frozenset({91, 92}))}, ends_at
    for one in readings:
        made.take(one, 60 * SECOND)
    return made


def test_a_session_is_the_applications_and_after_the_pooler_has_closed_it_still_is():
    session = pooled()
    told = table(reading())
    told.join(server(), [session], NOW)
    assert session.via == Via("10.0.0.7:6432", APPLICATION)

    session.connection.socket = tcp(END.port, TcpState.CLOSE_WAIT)
    table(reading(servers=False, clients=False)).join(server(), [session], NOW)
    assert session.via.client == APPLICATION


def test_what_the_pooler_has_closed_and_nobody_holds_is_forgotten():
    session = pooled(TcpState.CLOSE_WAIT, since=NOW - 3 * SECOND)
    session.via = Via("10.0.0.7:6432", APPLICATION)
    table().judge([session], NOW)

    assert session.via.has_forgotten


def test_what_a_living_pooler_holds_is_not_forgotten():
    closed = pooled(TcpState.CLOSE_WAIT, since=NOW - 3 * SECOND)
    for told in (table(ends=[END]), table(reading(at=NOW - SECOND))):
        closed.via = Via("10.0.0.7:6432", APPLICATION)
        told.judge([closed], NOW)
        assert not closed.via.has_forgotten
    running = pooled()
    running.via = Via("10.0.0.7:6432", APPLICATION)
    table().judge([running], NOW)
    assert not running.via.has_forgotten


def test_a_console_that_told_before_the_close_proves_nothing():
    closed = pooled(TcpState.CLOSE_WAIT, since=NOW - 3 * SECOND)
    closed.via = Via("10.0.0.7:6432", APPLICATION)
    table(reading(at=NOW - 5 * SECOND)).judge([closed], NOW)

    assert closed.via.has_forgotten


def test_it_is_known_since_when_a_session_has_lost_its_pooler():
    closed = pooled(TcpState.CLOSE_WAIT, since=NOW - 3 * SECOND)
    assert closed_at(closed) == 0, "it never came through a pooler"
    closed.via = Via("10.0.0.7:6432")
    assert closed_at(closed) == NOW - 3 * SECOND
    running = pooled()
    running.via = Via("10.0.0.7:6432")
    assert closed_at(running) == 0


def pool(user, used, size=5, wait=0.0):
    return Pool("shop", user, used, 1, used, 2, 0, wait, "transaction", size)


def test_processes_that_share_a_port_are_told_together():
    told = table(
        reading(endpoint=Endpoint("/run/one", 6432), pools=[pool("app", 1, wait=2.0)], wait_time={"shop": 5}),
        reading(endpoint=Endpoint("/run/two", 6432), pools=[pool("app", 3), pool("job", 1)], wait_time={"shop": 7}),
        reading(endpoint=Endpoint("/run/other", 6432), pools=[pool("app", 9)]),
    )
    together = told.of(replace(POOLER, pids=(7, 8)), NOW)

    assert [(p.user, p.servers_active, p.size, p.max_wait) for p in together.pools] == [
        ("app", 4, 10, 2.0),
        ("job", 1, 5, 0.0),
    ]
    assert together.wait_time == {"shop": 12}


def test_two_consoles_of_one_process_are_not_added_up():
    by_tcp = reading(pools=[pool("app", 3)])
    by_socket = reading(endpoint=Endpoint("/run/one", 6432), pools=[pool("app", 3)])

    assert table(by_tcp, by_socket).of(POOLER, NOW).pools == by_tcp.pools


def test_a_console_on_a_loopback_is_of_the_pooler_of_our_own_namespace():
    told = table(reading(endpoint=Endpoint("localhost", 6432)))

    assert told.of(POOLER, NOW) is not None
    assert told.of(replace(POOLER, is_here=False), NOW) is None


def test_when_the_console_falls_silent_nobody_is_blamed_for_what_comes_later():
    session = pooled()
    told = table(reading())
    told.join(server(), [session], NOW)
    told.join(server(), [session], NOW + 61 * SECOND)

    assert session.via == Via("10.0.0.7:6432")


def test_over_unix_sockets_the_far_ends_tell_which_sessions_are_a_poolers():
    through = backend(title("idle", host="[local]", port=None), pid=1)
    direct = backend(title("idle", host="[local]", port=None), pid=2)
    through.inodes, direct.inodes = (90, 91), (93,)
    told = table()
    told.join(server(), [through, direct], NOW)

    assert (through.via, direct.via) == (Via("10.0.0.7:6432"), None)
