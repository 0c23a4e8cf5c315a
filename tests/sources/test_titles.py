"""Process titles, taken apart from the right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsonar.model import BackendKind
from pgsonar.sources.titles import learn_cluster_name, parse_title, readable

POSTMASTER = b"/usr/lib/postgresql/15/bin/postgres\0-D\0/var/lib/postgresql/15/main\0"


def parse(text, cluster=""):
    raw = text if isinstance(text, bytes) else text.encode()
    return parse_title(raw + b"\0" * 20, cluster, POSTMASTER)


@pytest.mark.parametrize(
    ("text", "user", "database", "host", "port", "activity", "waiting"),
    [
        ("postgres: app shop 127.0.0.1(36190) idle", "app", "shop", "127.0.0.1", 36190, "idle", False),
        ("postgres: app shop ::1(54960) SELECT", "app", "shop", "::1", 54960, "SELECT", False),
        ("postgres: app shop fe80::1%eth0(5) SELECT", "app", "shop", "fe80::1%eth0", 5, "SELECT", False),
        ("postgres: app shop db-client.example(77) idle", "app", "shop", "db-client.example", 77, "idle", False),
        ("postgres: app shop [local] idle", "app", "shop", "[local]", None, "idle", False),
        ("postgres: app shop 10.0.0.1(1) UPDATE waiting", "app", "shop", "10.0.0.1", 1, "UPDATE", True),
        ("postgres: app shop 10.0.0.1(1) startup waiting", "app", "shop", "10.0.0.1", 1, "startup", True),
        ("postgres: app shop 10.0.0.1(1) authentication", "app", "shop", "10.0.0.1", 1, "authentication", False),
        (
            "postgres: app shop 10.0.0.1(1) idle in transaction (aborted)",
            *("app", "shop", "10.0.0.1", 1, "idle in transaction (aborted)", False),
        ),
        ("postgres: app shop 10.0.0.1(1) ", "app", "shop", "10.0.0.1", 1, None, False),
        ("postgres: app x 9.9.9.9(99) idle 10.0.0.1(1) SELECT", None, None, "10.0.0.1", 1, "SELECT", False),
        ("postgres: app [local] idle 10.0.0.1(1) idle", None, None, "10.0.0.1", 1, "idle", False),
        ("postgres: the app the shop 10.0.0.1(1) idle", None, None, "10.0.0.1", 1, "idle", False),
        ("postgres: idle waiting 10.0.0.1(1) COPY", "idle", "waiting", "10.0.0.1", 1, "COPY", False),
        ("postgres: (x) y(5) 10.0.0.1(1) idle", "(x)", "y(5)", "10.0.0.1", 1, "idle", False),
    ],
)
def test_a_client_is_told_from_the_right(text, user, database, host, port, activity, waiting):
    title = parse(text)

    assert title[:7] == (BackendKind.CLIENT, user, database, host, port, activity, waiting)


def test_the_cluster_name_is_no_user():
    title = parse("postgres: 15/main: app shop 10.0.0.1(1) idle", "15/main")

    assert (title.user, title.database) == ("app", "shop")


@pytest.mark.parametrize(
    "text",
    [
        "checkpointer ",
        "autovacuum worker shop",
        "logical replication worker for subscription 16401",
        "parallel worker for PID 4711",
        "io worker 1",
        "pg_cron launcher ",
        "walreceiver streaming 0/5061538",
    ],
)
def test_workers_are_no_clients(text):
    assert parse(f"postgres: {text}").kind is BackendKind.WORKER


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("postgres: walsender repl 10.0.0.2(5000) streaming 0/5061538", "repl"),
        ("postgres: walsender repl shop 10.0.0.2(5000) START_REPLICATION", "repl"),
    ],
)
def test_a_walsender_is_told_apart(text, user):
    title = parse(text)

    assert (title.kind, title.user, title.port) == (BackendKind.WALSENDER, user, 5000)


def test_a_child_that_still_has_the_postmasters_command_line_has_not_begun():
    assert parse_title(POSTMASTER, "", POSTMASTER).kind is BackendKind.PRESTARTUP


@pytest.mark.parametrize("text", ["", "postgres: ", "something else"])
def test_what_tells_nothing_is_unknown(text):
    assert parse(text).kind is BackendKind.UNKNOWN


def test_bytes_chosen_by_others_are_made_safe_to_print():
    title = parse(b"postgres: a\xffb s\x1b[31mhop\n 10.0.0.1(1) idle")

    assert (title.user, title.database) == ("a\\xffb", "s\\x1b[31mhop\\x0a")
    assert title.text.isprintable()


def test_the_cluster_name_is_learned_from_children_with_names_of_their_own():
    titles = [
        b"postgres: 15/main: checkpointer \0\0",
        b"postgres: 15/main: walwriter \0",
        b"postgres: a b [local] idle\0",
    ]

    assert learn_cluster_name(titles) == "15/main"
    assert learn_cluster_name([b"postgres: checkpointer \0"]) == ""


def test_a_user_cannot_choose_the_cluster_name():
    titles = [b"postgres: 15/main: checkpointer ", b"postgres: 15/main: walwriter ", b"postgres: x: checkpointer : y"]

    assert learn_cluster_name(titles) == "15/main"


names = st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b and b" " not in b)
anything = st.binary(max_size=30).filter(lambda b: b"\0" not in b)
hosts = st.ip_addresses().map(str)
activities = st.sampled_from(
    ["idle", "idle in transaction", "idle in transaction (aborted)", "CREATE INDEX", "authentication"]
)


@given(anything, anything, hosts, st.integers(1, 65535), activities, st.booleans())
def test_whatever_names_hold_client_and_activity_come_back(user, database, host, port, activity, waiting):
    tail = f" {host}({port}) {activity}{' waiting' if waiting else ''}".encode()
    title = parse(b"postgres: " + user + b" " + database + tail)

    assert (title.host, title.port, title.activity, title.waiting) == (host, port, activity, waiting)


@given(names, names, hosts, st.integers(1, 65535), st.sampled_from(["", "15/main", "a: b", "x y"]))
def test_names_without_blanks_come_back_whatever_the_cluster_is_called(user, database, host, port, cluster):
    prefix = f"postgres: {cluster}: ".encode() if cluster else b"postgres: "
    title = parse(prefix + user + b" " + database + f" {host}({port}) idle".encode(), cluster)
    if title.kind is BackendKind.CLIENT:
        assert (title.user, title.database) == (readable(user), readable(database))
