"""The metrics of the catalog: each value where it belongs, few series, none of a single connection."""

from collections import Counter

import pytest

from build import START, backend, connection, database_reading, server, sight, tcp, title
from pgsonar.model import (
    SECOND,
    BackendKind,
    Endpoint,
    Limits,
    LogCounts,
    Moment,
    Pool,
    Pooler,
    PoolerClient,
    PoolerEnds,
    PoolerReading,
    Pooling,
    ScanStats,
    Session,
    SessionCounts,
    Severity,
    TcpState,
    Via,
)
from pgsonar.signals.agent_metrics import AGENT_METRICS, AgentReading
from pgsonar.signals.catalog import metric_table
from pgsonar.signals.hop_metrics import POOLER_METRICS
from pgsonar.signals.identity import Identity
from pgsonar.signals.leak_metrics import LEAK_METRICS, LeakReading
from pgsonar.signals.login_metrics import LOGIN_METRICS
from pgsonar.signals.metrics import agent_rows, leak_rows, pooler_rows, server_rows
from pgsonar.signals.names import StickyNames
from pgsonar.signals.receiver_metrics import RECEIVER_METRICS
from pgsonar.signals.rows import Exemplar, Spread
from pgsonar.signals.server_metrics import SERVER_METRICS, ServerReading, state_of

ALL_OF_SERVERS = (*LEAK_METRICS, *SERVER_METRICS, *LOGIN_METRICS, *RECEIVER_METRICS)
NOW = Moment(START + SECOND, 1_700_000_000 * SECOND)


LOGIN = database_reading(
    Session(1, "client backend", 0, user="lim", database="shop"),
    Session(2, "walsender", 0, user="lim", database="shop"),
    Session(3, "client backend", 0, user="other", database="small"),
    role_limits={"lim": 7, "idle": 0},
    database_limits={"small": 9},
    counts={"shop": SessionCounts(100, 4, 3, 2)},
)


def reading(backends=(), connections=(), of=None, **changes):
    known = {
        "sight": sight(backends, connections, at=NOW.at, of=of, reading=LOGIN),
        "opened": {"10.0.0.7": 11},
        "closed": {"10.0.0.7": 12},
        "overflows": 13,
        "disagreements": 14,
        "clients": StickyNames(),
        "log": LogCounts(Counter(all_slots=17, authentication_timeout=18, lost_client=19), {}, 20),
        "untold": {"accept_queue": "why"},
    }
    return ServerReading(**(known | changes))


LEAKS = LeakReading(
    server(),
    {("auth_stuck", Severity.HIGH): 15},
    {("auth_stuck", Severity.WARNING): 16},
    {"auth_stuck": 17},
    {"auth_stuck": 18},
)


def points(what, name, exemplars=None):
    told = leak_rows(what, 5, NOW, exemplars or {}) if isinstance(what, LeakReading) else server_rows(what, 5, NOW)
    rows = {row.name: row for row in told}
    return rows[name].points if name in rows else []


def values(what, name):
    drop = {"server.address", "server.port"}
    return [({k: v for k, v in point.attributes.items() if k not in drop}, point.value) for point in points(what, name)]


def test_each_metric_reads_its_own_value():
    sockets = [
        connection(tcp(1, rx=21, tx=31)),
        connection(tcp(2, TcpState.CLOSE_WAIT, rx=1)),
        connection(tcp(0, TcpState.LISTEN, rx=7, tx=244)),
    ]
    what = reading([backend(title()), backend(title(kind=BackendKind.UNKNOWN))], sockets)

    assert values(what, "pgsonar.slot.limit") == [
        ({"pgsonar.limit.source": "pg_control", "pgsonar.limit.guessed": False}, 30)
    ]
    assert values(what, "pgsonar.slot.reserved") == [({}, 3)]
    assert values(what, "pgsonar.slot.utilization") == [({}, 2 / 27)]
    assert ({"pgsonar.refusal": "all_slots"}, 17) in values(what, "pgsonar.refused")
    assert values(what, "pgsonar.login.timeout") == [({}, 18)]
    assert values(what, "pgsonar.client.lost") == [({}, 19)]
    assert values(what, "pgsonar.log.skipped") == [({}, 20)]
    assert values(what, "pgsonar.detector.blind") == [({"pgsonar.leak.kind": "accept_queue"}, 1)]
    assert values(reading(log=None), "pgsonar.refused") == []
    assert values(what, "pgsonar.own.connections") == [({}, 1)]
    assert values(what, "postgresql.backends") == [({"postgresql.database.name": "shop"}, 2)]
    assert values(what, "postgresql.connection.max") == [({}, 30)]
    assert ({"db.namespace": "shop", "pgsonar.session.end": "any"}, 100) in values(what, "pgsonar.session.count")
    assert ({"db.namespace": "shop", "pgsonar.session.end": "killed"}, 2) in values(what, "pgsonar.session.count")
    assert values(what, "pgsonar.role.connections") == [
        ({"user.name": "lim", "pgsonar.limit.part": "used"}, 1),
        ({"user.name": "lim", "pgsonar.limit.part": "limit"}, 7),
        ({"user.name": "idle", "pgsonar.limit.part": "used"}, 0),
        ({"user.name": "idle", "pgsonar.limit.part": "limit"}, 0),
    ]
    assert values(what, "pgsonar.database.connections") == [
        ({"db.namespace": "small", "pgsonar.limit.part": "used"}, 1),
        ({"db.namespace": "small", "pgsonar.limit.part": "limit"}, 9),
    ]
    assert values(what, "pgsonar.listener.backlog") == [({}, 7)]
    assert values(what, "pgsonar.listener.backlog.limit") == [({}, 244)]
    assert values(what, "pgsonar.listener.overflow") == [({}, 13)]
    assert values(what, "pgsonar.queue.receive") == [({}, 22)]
    assert values(what, "pgsonar.queue.send") == [({}, 31)]
    assert values(what, "pgsonar.connection.opened") == [({"client.address": "10.0.0.7"}, 11)]
    assert values(what, "pgsonar.connection.closed") == [({"client.address": "10.0.0.7"}, 12)]
    leaks = ("open", "count", "flaps", "silenced")
    assert [v for name in leaks for _, v in values(LEAKS, f"pgsonar.leak.{name}")] == [15, 16, 17, 18]
    assert {a["pgsonar.views"]: v for a, v in values(what, "pgsonar.connection.unaccounted")} == {
        "title_and_inode": 14,
        "process_and_title": 1,
    }
    assert {a["network.connection.state"]: v for a, v in values(what, "pgsonar.connection.count")} == {
        "established": 1,
        "close_wait": 1,
        "listen": 1,
    }


def test_slots_are_told_by_holder_and_transport_and_sum_to_what_is_used():
    local = backend(title(host="[local]", port=None))
    told = values(reading([local, backend(title("authentication"))]), "pgsonar.slot.used")

    assert {(a["pgsonar.slot.holder"], a["network.transport"]): v for a, v in told if v} == {
        ("session", "unix"): 1,
        ("authenticating", "tcp"): 1,
    }
    assert len(told) == 10


def test_without_a_limit_there_is_no_limit_and_no_utilization():
    what = reading(of=server(limits=Limits()))

    assert values(what, "pgsonar.slot.limit") == values(what, "pgsonar.slot.utilization") == []


def test_many_clients_are_folded_and_the_sum_is_kept():
    backends = [backend(title(host=f"10.0.0.{n}"), pid=n) for n in range(100)]
    told = values(reading(backends), "pgsonar.backend.count")

    assert sum(number for _, number in told) == 100
    assert len(told) == 21
    assert [number for attributes, number in told if attributes["client.address"] == "~other"] == [80]


def test_a_session_is_counted_by_its_application_also_behind_a_pooler():
    direct, pooled = backend(title(host="10.0.0.7")), backend(title(host="10.0.0.9"), pid=2)
    direct.session = Session(4711, "client backend", 0, application="billing")
    client = PoolerClient("p", "q", "app", "shop", "active", "checkout", "10.4.1.7", 40000, None, 0.0)
    pooled.via = Via("pooler:6432", client)
    told = {
        a["client.address"]: a["postgresql.application_name"]
        for a, _ in values(reading([direct, pooled]), "pgsonar.backend.count")
    }

    assert told == {"10.0.0.7": "billing", "10.4.1.7": "checkout"}


def test_a_client_that_has_a_name_keeps_it_while_it_is_there():
    names = StickyNames(places=1)

    assert names.keep(Counter({("a", "", ""): 1})) == {("a", "", "")}
    assert names.keep(Counter({("a", "", ""): 1, ("b", "", ""): 9})) == {("a", "", "")}
    assert names.keep(Counter({("b", "", ""): 9})) == {("b", "", "")}


def test_the_counter_of_leaks_carries_the_episode_as_exemplar():
    exemplar = Exemplar(1, 1, 2, 3)
    (point,) = points(LEAKS, "pgsonar.leak.count", {("auth_stuck", "warning"): (exemplar,)})

    assert point.exemplars == (exemplar,)


@pytest.mark.parametrize(
    ("activity", "state"),
    [("idle", "idle"), ("SELECT", "active"), ("CREATE INDEX", "active"), ("startup", "starting"), (None, "unknown")],
)
def test_command_tags_are_folded_into_states(activity, state):
    assert state_of(backend(title(activity))) == state


def test_no_metric_is_about_a_single_connection():
    forbidden = {"process.pid", "postgresql.pid", "client.port", "network.peer.port", "pgsonar.inode"}
    assert not any(forbidden & set(metric.attributes) for metric in (*ALL_OF_SERVERS, *POOLER_METRICS, *AGENT_METRICS))
    for metrics in (ALL_OF_SERVERS, POOLER_METRICS, AGENT_METRICS):
        assert len({metric.name for metric in metrics}) == len(metrics)


def test_points_carry_only_the_attributes_the_catalog_declares():
    what = reading([backend(title())], [connection(tcp(1)), connection(tcp(0, TcpState.LISTEN, tx=244))])
    declared = {metric.name: set(metric.attributes) | {"server.address", "server.port"} for metric in ALL_OF_SERVERS}
    rows = [*server_rows(what, 5, NOW), *leak_rows(LEAKS, 5, NOW, {})]

    assert {row.name for row in rows} == set(declared)
    assert [row.name for row in rows for point in row.points if not set(point.attributes) <= declared[row.name]] == []


def test_a_pooler_tells_of_both_hops_and_of_its_pools():
    pool = Pool("shop", "app", 9, 3, 4, 2, 1, 7.5, "transaction", 5)
    told = PoolerReading(
        at=0,
        endpoint=Endpoint("h", 6432),
        version="1.18",
        pools=(pool,),
        clients=(),
        servers=(),
        wait_time={"shop": 2500000},
        waits={"shop": 4},
    )
    pooler = Pooler("p", (7,), 1, 6432, "10.0.0.9")
    ends = PoolerEnds({Endpoint("10.0.0.9", 4): TcpState.ESTABLISHED}, frozenset({77}), 2)
    rows = {row.name: row for row in pooler_rows(Pooling(pooler, [connection(tcp(1))], ends, told), 5, NOW)}

    def told_by(name):
        drop = {"server.address", "server.port", "db.client.connection.pool.name"}
        return [({k: v for k, v in p.attributes.items() if k not in drop}, p.value) for p in rows[name].points]

    assert told_by("pgsonar.connection.count") == [
        ({"network.connection.state": "established", "pgsonar.side": "pooler_client"}, 3),
        ({"network.connection.state": "established", "pgsonar.side": "pooler_server"}, 2),
    ]
    assert told_by("db.client.connection.count") == [
        ({"db.client.connection.state": "used"}, 4),
        ({"db.client.connection.state": "idle"}, 2),
    ]
    assert told_by("db.client.connection.max") == [({}, 5)]
    assert told_by("db.client.connection.pending_requests") == [({}, 3)]
    assert told_by("pgsonar.pool.wait") == [({}, 7.5)]
    assert told_by("db.client.connection.wait_time") == [({}, Spread(4, 2.5))]
    assert told_by("pgsonar.pool.waited") == [({"db.namespace": "shop"}, 2.5)]
    (point, _) = rows["db.client.connection.count"].points
    assert point.attributes["db.client.connection.pool.name"] == "10.0.0.9:6432/shop/app"
    without = {row.name for row in pooler_rows(Pooling(pooler, [], ends, None), 5, NOW)}
    assert without == {"pgsonar.connection.count"}


def test_the_agent_tells_how_well_it_scans():
    stats = ScanStats(*range(1, len(ScanStats._fields) + 1))
    rows = {
        row.name: row
        for row in agent_rows(AgentReading({7: stats}, {7: 9.5}, 2, {7: "procfs"}, 0.4, "max_cpu"), 5, NOW)
    }

    assert rows["pgsonar.scan.late"].points[0].value == stats.late + stats.missed
    assert rows["pgsonar.scan.incomplete"].points[0].value == stats.incomplete
    assert rows["pgsonar.scan.malformed"].points[0].value == stats.malformed
    assert rows["pgsonar.scan.duration"].points[0].value == stats.last_cost / 1e9
    assert rows["pgsonar.scan.blind_window"].points[0].value == stats.max_gap / 1e9
    assert rows["pgsonar.scan.unseen"].points[0].value == stats.kernel_opened - stats.opened
    assert rows["pgsonar.scan.interval"].points[0].value == 0.4
    assert rows["pgsonar.scan.interval"].points[0].attributes == {"pgsonar.scan.reason": "max_cpu"}
    assert rows["pgsonar.scan.cpu"].points[0].value == stats.cpu / 1e9
    assert rows["pgsonar.scan.rate"].points[0].value == 9.5
    assert rows["pgsonar.scan.rate"].points[0].attributes == {"pgsonar.source": "procfs", "pgsonar.netns": 7}


def test_a_servers_instance_id_follows_its_key_and_not_its_role():
    identity = Identity(host="h", host_id="m", version="1", extra={"deployment": "x"})
    before, after = (dict(identity.server(server(role=role)).attributes) for role in ("standby", "primary"))

    assert before["service.instance.id"] == after["service.instance.id"]
    assert before["service.instance.id"] != dict(identity.server(server(id="s2")).attributes)["service.instance.id"]
    assert (after["server.address"], after["host.name"], after["deployment"]) == ("db-1", "h", "x")


def test_the_table_names_every_metric():
    assert all(f"`{metric.name}`" in metric_table() for metric in (*ALL_OF_SERVERS, *AGENT_METRICS))
