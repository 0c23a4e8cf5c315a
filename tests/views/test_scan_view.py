"""The screens of `pgsonar scan`, as golden text at 80 and at 100 columns, and its JSON."""

import json
from dataclasses import replace
from pathlib import Path

from build import START, backend, connection, server, settled, sight, tcp, title
from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import rules
from pgsonar.episodes.verdicts import Look, Seen, untold, verdicts
from pgsonar.model import SECOND, BackendKind, ClientProcess, Limits, Moment, TcpState
from pgsonar.views.scan import scan_lines
from pgsonar.views.scan_json import scan_object

AT = START + 852 * SECOND
MOMENT = Moment(AT, 1_767_323_045_678_000_000)  # 2026-01-02T03:04:05.678Z
RULES = rules(LeaksProcessor())


def test_slots_without_a_leak_are_somebodys():
    of = server(limits=Limits(10, 3, "pg_control"))
    crowd = [backend(title("idle", user="billing", host="10.4.9.10"), pid=n) for n in range(1, 7)]
    text = " ".join(" ".join(scan_lines(look(sight(crowd, at=AT, of=of)), 80)).split())

    assert "WHY 1 6 slots most are held by billing@10.4.9.10: 6 slots, 6 idle (certain) not: " in text
    leaking = [backend(title("idle in transaction", user="checkout"), pid=n) for n in range(20, 22)]
    text = " ".join(scan_lines(look(sight(crowd + leaking, at=AT, of=of)), 80))
    assert "most are held" not in text


def look(*sights, missing=()):
    """One look that found these, with the verdicts of the default configuration."""

    def name(findings):
        clients = {backend.pid: backend.client for one in sights for backend in one.backends}
        return [replace(finding, client=clients.get(finding.pid)) for finding in findings]

    kinds = tuple(rule.kind for rule in RULES.servers)
    seen = [Seen(one, kinds, verdicts(name(settled(one)), one.at), untold(one, RULES)) for one in sights]
    return Look(MOMENT, seen, missing=list(missing))


def busy():
    gone = connection(tcp(50001, TcpState.CLOSE_WAIT, rx=1))
    sockets = [gone, connection(tcp(1, TcpState.TIME_WAIT, inode=0)), connection(tcp(0, TcpState.LISTEN, rx=2))]
    backends = [
        *(backend(title("idle in transaction", user="checkout", database="orders"), pid=n) for n in range(4701, 4709)),
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
    of = server(
        limits=Limits(30, 3, "pg_control", children=104),
        version="15",
        role="primary",
        address="orders-db",
    )
    return sight(backends, sockets, at=AT, of=of)


def golden(name):
    return (Path(__file__).parent / name).read_text().splitlines()


def test_the_screen_at_80_columns():
    lines = scan_lines(look(busy()), 80)

    assert lines[:-1] == golden("scan_80.txt")
    assert max(map(len, lines)) <= 80


def test_the_screen_at_100_columns():
    lines = scan_lines(look(busy(), missing=["the target other matches no running server"]), 100)

    assert lines == golden("scan_100.txt")
    assert max(map(len, lines)) <= 100


def test_a_full_server_says_so_and_a_large_one_is_scaled_to_the_screen():
    full = sight([backend(title(), pid=n) for n in range(500)], at=AT, of=server(limits=Limits(503, 3, "pg_control")))
    lines = scan_lines(look(full), 80)

    assert "applications FULL (500 of 500), 3 reserved for superusers" in lines[1]
    assert "still free" in lines[2]
    assert lines[3] == "." * 80


def test_one_holder_among_hundreds_is_still_seen():
    backends = [backend(title("idle"), pid=n) for n in range(400)] + [backend(title("authentication"), pid=900)]
    lines = scan_lines(look(sight(backends, at=AT, of=server(limits=Limits(1000, 3, "pg_control")))), 80)

    assert "N" in lines[2]
    assert len(lines[2]) <= 80


def test_an_unknown_limit_is_said_and_not_invented():
    lines = scan_lines(look(sight([backend(title())], at=AT, of=server(limits=Limits()))), 80)

    assert lines[1] == "SLOTS 1 used: the limit is unknown"
    assert lines[2] == "."


def test_no_server_is_said():
    assert scan_lines(look(), 80)[0] == "No PostgreSQL server found.  03:04:05Z"


def test_json_tells_unknown_as_null_and_sessions_without_a_row_with_null_endpoints():
    seen = busy()
    unread = replace(seen, server=replace(seen.server, missing=("pg_control: run as the postgres user",)))
    told = json.loads(json.dumps(scan_object(look(unread, missing=["x"]))))

    assert set(told) == {"time", "servers", "connections", "ledgers", "verdicts", "missing"}
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
    assert told["missing"][:2] == ["x", "orders-db:5432: pg_control: run as the postgres user"]
    kinds = ["role_or_database_limit", "long_query", "unaccounted"]
    assert [text.split()[1] for text in told["missing"][2:]] == kinds


def test_a_leak_names_the_process_and_says_offers_what_still_works():
    gone = connection(tcp(50001, TcpState.CLOSE_WAIT, rx=1))
    gone.client = ClientProcess(7, 0, "python3", unit="checkout.service")
    backends = [backend(title("SELECT"), pid=20, bound=gone), *(backend(title(), pid=n) for n in range(30, 59))]
    text = "\n".join(scan_lines(look(sight(backends, [gone], at=AT)), 100))

    assert "WHY   1    1 slot  app@10.0.0.7, by checkout.service (python3, pid 7): client gone, query runs on" in text
    assert "SLOTS 30 of 30 used: applications FULL (27 of 27), 3 reserved for superusers, 0 of them free" in text
    assert "DO    sudo kill -TERM 20" in text
    assert "<- culprit" in text


def test_a_proxy_is_named_and_is_no_culprit():
    through = [connection(tcp(50001 + n)) for n in range(3)]
    for one in through:
        one.client = ClientProcess(7, 0, "haproxy", unit="haproxy.service")
    backends = [backend(title("idle in transaction"), pid=20 + n, bound=one) for n, one in enumerate(through)]
    text = "\n".join(scan_lines(look(sight(backends, through, at=AT)), 100))

    assert "behind the proxy haproxy.service (haproxy, pid 7)" in text
    assert "culprit" not in text


def test_what_cannot_be_told_is_no_all_clear():
    text = "\n".join(scan_lines(look(sight([], [connection(tcp(1))], at=AT, of=server(pid=0))), 100))

    assert "CANNOT TELL  idle_in_transaction: its processes are not seen" in text
    assert "CANNOT TELL  pool_exhausted: its processes are not seen" in text
    assert "not: queries without a client (0), accept queue (0)" in text.replace("WHY   seen is none of", "not")


def test_json_tells_the_verdicts_with_the_next_command():
    told = scan_object(look(busy()))["verdicts"]

    assert [(v["kind"], v["identity"], len(v["backend_pids"])) for v in told] == [
        ("idle_in_transaction", "checkout@10.0.0.7", 8),
        ("auth_stuck", "10.4.7.31", 3),
        ("orphaned_backend", "reports@10.4.8.4", 1),
    ]
    assert all(v["age_seconds"] == 852.0 and v["next_command"] and v["severity"] for v in told)


def test_two_processes_of_one_identity_are_not_one_culprit():
    bound = [connection(tcp(50001 + n)) for n in range(3)]
    for number, one in enumerate(bound):
        one.client = ClientProcess(7 + (number > 0), 0, "java", unit=f"{'ab'[number > 0]}.service")
    backends = [backend(title("idle in transaction"), pid=20 + n, bound=one) for n, one in enumerate(bound)]
    told = look(sight(backends, bound, at=AT))
    (why,) = [line for line in scan_lines(told, 100) if line.startswith("WHY")]

    assert why == "WHY   1   3 slots  app@10.0.0.7 leaves transactions open, since 02:49:53Z (certain)"
    assert scan_object(told)["verdicts"][0]["client"] is None


def test_transactions_that_nothing_dates_are_no_all_clear():
    local = title("idle in transaction", host="[local]", port=None)
    undated = [backend(local, pid=n, since=AT, first_seen=AT) for n in range(3)]
    text = "\n".join(scan_lines(look(sight(undated, [connection(tcp(0, TcpState.LISTEN))], at=AT)), 100))

    assert "CANNOT TELL  idle_in_transaction: since when 3 transactions are open: add receivers.postgresql" in text
    assert "transactions left open" not in text


def test_what_was_not_looked_for_is_not_told_as_absent():
    seen = look(busy()).servers[0]._replace(kinds=("auth_stuck",), found=[], untold={})
    text = "\n".join(scan_lines(Look(MOMENT, [seen]), 100))

    assert "WHY   seen is none of: stuck logins (3)" in text
    assert "accept queue (" not in text
