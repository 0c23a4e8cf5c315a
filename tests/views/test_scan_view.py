"""The screens of `pgsonar scan`, as golden text at 80 and at 100 columns, and its JSON."""

import json

from build import START, backend, connection, server, sight, tcp, title
from pgsonar.model import SECOND, BackendKind, Limits, TcpState
from pgsonar.views.scan import scan_lines
from pgsonar.views.scan_json import scan_object

AT = START + 852 * SECOND


def busy():
    gone = connection(tcp(50001, TcpState.CLOSE_WAIT, rx=1))
    sockets = [gone, connection(tcp(1, TcpState.TIME_WAIT, inode=0)), connection(tcp(0, TcpState.LISTEN, rx=2))]
    backends = [
        *(backend(title("idle in transaction", user="checkout", database="orders"), pid=n) for n in range(1, 9)),
        backend(title("SELECT", user="reports", database="orders", host="10.4.8.4"), pid=20, bound=gone),
        *(backend(title("idle", user="billing", database="orders", host="10.4.9.10"), pid=n) for n in range(30, 34)),
        backend(title("UPDATE", user="billing", database="orders", host="10.4.9.10"), pid=40),
        *(
            backend(title("authentication", user="legacy_etl", database="orders", host="10.4.7.31"), pid=n)
            for n in range(50, 53)
        ),
        backend(title("idle", user="postgres", database="postgres", host="[local]", port=None), pid=60),
        backend(
            title("idle", user="a_service_with_a_long_name", database="and_a_database", host="2001:db8::17:4"), pid=61
        ),
        backend(title(kind=BackendKind.WALSENDER), pid=70),
        backend(title(kind=BackendKind.WORKER), pid=71),
    ]
    of = server(version="15", role="primary", address="orders-db", missing=("pg_control: run as the postgres user",))
    return sight(backends, sockets, at=AT, of=of)


GOLDEN_80 = """\
orders-db:5432   primary   PostgreSQL 15   pid 100   03:02:17Z
SLOTS 19 of 30 used: applications have 19 of 27, 3 reserved
TTTTTTTTONNNa......___________
T in transaction 8  O client gone 1  N no login yet 3  a active 1  . idle 6

HOLDER             FROM             SLOTS IN-XACT ACTIVE IDLE LOGIN GONE  OLDEST
checkout@orders    10.0.0.7             8       8      0    0     0    0  14m12s
billing@orders     10.4.9.10            5       0      1    4     0    0  14m12s
legacy_etl@orders  10.4.7.31            3       0      0    0     3    0  14m12s
a_service_with_a_~ 2001:db8::17:4       1       0      0    1     0    0  14m12s
postgres@postgres  unix socket          1       0      0    1     0    0  14m12s
reports@orders     10.4.8.4             1       0      0    0     0    1  14m12s

NO SLOT      walsender 1, worker 1, prestartup 0, TIME_WAIT 1, accept queue 2
SEEN WITH    process titles, sockets, pg_control; 1 session joined to a socket
NOT SEEN     locks held, application names, transaction ages: add
             receivers.postgresql (pg_monitor, 1 slot)
NOT SEEN     pg_control: run as the postgres user
"""

GOLDEN_100 = """\
orders-db:5432   primary   PostgreSQL 15   pid 100   03:02:17Z
SLOTS 19 of 30 used: applications have 19 of 27, 3 reserved
TTTTTTTTONNNa......___________
T in transaction 8  O client gone 1  N no login yet 3  a active 1  . idle 6

HOLDER                        FROM                      SLOTS IN-XACT ACTIVE IDLE LOGIN GONE  OLDEST
checkout@orders               10.0.0.7                      8       8      0    0     0    0  14m12s
billing@orders                10.4.9.10                     5       0      1    4     0    0  14m12s
legacy_etl@orders             10.4.7.31                     3       0      0    0     3    0  14m12s
a_service_with_a_long_name@a~ 2001:db8::17:4                1       0      0    1     0    0  14m12s
postgres@postgres             unix socket                   1       0      0    1     0    0  14m12s
reports@orders                10.4.8.4                      1       0      0    0     0    1  14m12s

NO SLOT      walsender 1, worker 1, prestartup 0, TIME_WAIT 1, accept queue 2
SEEN WITH    process titles, sockets, pg_control; 1 session joined to a socket
NOT SEEN     locks held, application names, transaction ages: add receivers.postgresql (pg_monitor,
             1 slot)
NOT SEEN     pg_control: run as the postgres user

NOT SEEN     the target other matches no running server"""


def test_the_screen_at_80_columns():
    lines = scan_lines([busy()], "03:02:17Z", [], 80)

    assert "\n".join(lines) == GOLDEN_80
    assert max(map(len, lines)) <= 80


def test_the_screen_at_100_columns():
    lines = scan_lines([busy()], "03:02:17Z", ["the target other matches no running server"], 100)

    assert "\n".join(lines) == GOLDEN_100
    assert max(map(len, lines)) <= 100


def test_a_full_server_says_so_and_a_large_one_is_scaled_to_the_screen():
    full = sight([backend(title(), pid=n) for n in range(500)], at=AT, of=server(limits=Limits(503, 3, "pg_control")))
    lines = scan_lines([full], "", [], 80)

    assert "applications are FULL (500 of 500)" in lines[1]
    assert lines[2] == "." * 80


def test_one_holder_among_hundreds_is_still_seen():
    backends = [backend(title("idle"), pid=n) for n in range(400)] + [backend(title("authentication"), pid=900)]
    lines = scan_lines([sight(backends, at=AT, of=server(limits=Limits(1000, 3, "pg_control")))], "", [], 80)

    assert "N" in lines[2]
    assert len(lines[2]) <= 80


def test_an_unknown_limit_is_said_and_not_invented():
    lines = scan_lines([sight([backend(title())], at=AT, of=server(limits=Limits()))], "", [], 80)

    assert lines[1] == "SLOTS 1 used: the limit is unknown"
    assert lines[2] == "."


def test_no_server_is_said():
    assert scan_lines([], "03:02:17Z", [], 80)[0] == "No PostgreSQL server found.  03:02:17Z"


def test_json_tells_unknown_as_null_and_sessions_without_a_row_with_null_endpoints():
    told = json.loads(json.dumps(scan_object([busy()], "2026-01-02T03:04:05.678Z", ["x"])))

    assert set(told) == {"time", "servers", "connections", "ledgers", "missing"}
    local = next(c for c in told["connections"] if c["backend_pid"] == 60)
    assert (local["remote_address"], local["state"], local["inode"], local["age_seconds"]) == (None, None, None, 852.0)
    gone = next(c for c in told["connections"] if c["backend_pid"] == 20)
    assert (gone["state"], gone["remote_port"], gone["activity"], gone["user"]) == (
        "close_wait",
        50001,
        "SELECT",
        "reports",
    )
    nobody = next(c for c in told["connections"] if c["state"] == "time_wait")
    assert (nobody["backend_pid"], nobody["age_seconds"], nobody["user"]) == (None, None, None)
    assert told["ledgers"] == [
        {
            "server": "s1",
            "limit": 30,
            "reserved": 3,
            "ceiling": 27,
            "used": 19,
            "holders": {"session": 15, "authenticating": 3, "starting": 0, "orphan": 1, "unaccounted": 0},
            "unix": 1,
            "database_sees": None,
            "gap": None,
            "cause": None,
        }
    ]
    assert told["missing"] == ["x", "orders-db:5432: pg_control: run as the postgres user"]
