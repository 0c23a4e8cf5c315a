"""Process titles, taken apart from the right."""

import pytest
from hypothesis import assume, given
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


def test_a_cluster_name_that_postgresql_would_not_write_is_none():
    assert learn_cluster_name([b"postgres: 15\xff/main: checkpointer "]) == ""


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


# --- titles that are cut ----------------------------------------------------------------------------------------------

words = st.sampled_from(["app", "idle", "walsender", "a b", "x(5)", "Prod DB Readonly", "startup", "waiting", "é ü"])
chosen = st.one_of(words, st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20))
doing = st.sampled_from(
    (
        *("idle", "idle in transaction", "idle in transaction (aborted)", "authentication", "authentication waiting"),
        *("startup waiting", "initializing", "SELECT", "UPDATE waiting", "CREATE TABLE AS", "COPY", ""),
        "START TRANSACTION",
    )
)
ends = st.one_of(
    st.just("[local]"), st.tuples(st.ip_addresses().map(str), st.integers(1, 65535)).map(lambda e: "{}({})".format(*e))
)


def shown(text: bytes, arguments: int, environment: int) -> bytes:
    """What /proc/PID/cmdline has of a title that is written over so many bytes (ps_status.c, fs/proc/base.c)."""
    memory = text[: arguments + environment - 2].ljust(arguments + environment, b"\0")
    if memory[arguments - 1 : arguments] == b"\0":
        return memory[:arguments]
    return memory[: memory.index(b"\0") + 1]


def is_a_false_client(user, database):
    """Names that hold what looks like a client and what it does, right up to a cut."""
    return any("(" in name or "[local]" in name for name in (user, database))


def check_cut(title, truth):
    """A cut title says less than the whole one, and nothing else."""
    assert title.kind in (truth.kind, BackendKind.UNKNOWN)
    assert title.activity in (None, truth.activity) or (title.activity, truth.activity) == (
        "idle in transaction",
        "idle in transaction (aborted)",
    )
    for name in ("user", "database", "host", "port", "names"):
        assert getattr(title, name) in (None, getattr(truth, name)), name


@given(chosen, chosen, ends, doing, st.integers(14, 150), st.integers(0, 60), st.sampled_from(["", "15/main"]))
def test_a_cut_title_is_nothing_that_the_whole_one_is_not(user, database, end, does, arguments, environment, cluster):
    assume(not user.startswith("walsender"))
    prefix = f"{cluster}: " if cluster else ""
    whole = f"postgres: {prefix}{user} {database} {end} {does}".encode()
    truth, room = parse_title(whole + b"\0" * 20, cluster, POSTMASTER), arguments + environment - 2
    assert truth.kind is BackendKind.CLIENT
    title = parse_title(shown(whole, arguments, environment), cluster, POSTMASTER, room)

    if len(whole) < room:
        assert title == truth
    elif not is_a_false_client(user, database):
        assert title.is_cut
        check_cut(title, truth)
    else:
        assert title.is_cut
        assert title.kind in (BackendKind.CLIENT, BackendKind.UNKNOWN)


@given(chosen, chosen, ends, doing, st.integers(14, 150), st.integers(0, 60))
def test_a_cut_is_told_by_what_it_leaves_where_the_room_may_not_be_read(user, database, end, does, arguments, more):
    assume(not user.startswith("walsender") and not is_a_false_client(user, database))
    whole = f"postgres: {user} {database} {end} {does}".encode()
    truth, room = parse_title(whole + b"\0" * 20, "", POSTMASTER), arguments + more - 2
    raw = shown(whole, arguments, more)
    title = parse_title(raw, "", POSTMASTER)

    if len(whole) < room and does:
        assert title == truth
    elif len(whole) > room and not raw.rstrip(b"\0").endswith(b" ") and not reads_as_another(whole[:room]):
        is_half_a_command = title.activity is not None and title.activity[0].isupper()
        assert title.is_cut or (is_half_a_command and truth.activity.startswith(title.activity))
        check_cut(title if title.is_cut else title._replace(activity=None), truth)


def reads_as_another(left: bytes) -> bool:
    """Whether the cut leaves a whole activity, which only the room can tell: `idle` of `idle in transaction`."""
    wholes = ("idle", "idle in transaction", "UPDATE", "CREATE TABLE", "authentication", "startup")
    return left.endswith(tuple(f"{end} {whole}".encode() for end in (")", "[local]") for whole in wholes))


@pytest.mark.parametrize(
    "text",
    [
        *("checkpointer ", "background writer ", "autovacuum launcher ", "logical replication launcher ", "startup "),
        *("io worker 12 ", "parallel worker for PID 4711 ", "autovacuum worker shop", "walreceiver streaming 0/506"),
    ],
)
@pytest.mark.parametrize("shorter", range(6))
def test_a_worker_whose_title_is_cut_holds_no_slot_once_its_name_has_begun(text, shorter):
    whole = f"postgres: {text}".encode()
    room = len(whole) - shorter
    title = parse_title(whole[:room] + b"\0\0", "", POSTMASTER, room)

    is_one_word = " " not in title.text.removeprefix("postgres: ").rstrip()
    assert title.kind is (BackendKind.UNKNOWN if is_one_word else BackendKind.WORKER)


@pytest.mark.parametrize("title", ["pg_cron launcher ", "Citus Maintenance Daemon: 13003/10 "])
def test_a_worker_of_an_extension_is_one_where_the_room_may_not_be_read(title):
    assert parse_title(f"postgres: {title}".encode() + b"\0", "", POSTMASTER).kind is BackendKind.WORKER


def test_roles_with_blanks_are_known_by_user_and_database_together():
    title = parse("postgres: Prod DB Readonly Sales DB 10.0.0.1(1) idle")

    assert (title.user, title.database, title.names) == (None, None, "Prod DB Readonly Sales DB")
    assert parse("postgres: app shop 10.0.0.1(1) idle").names is None


@pytest.mark.parametrize("room", [21, 30, 45, 58])
def test_a_walsender_whose_title_is_cut_holds_no_slot(room):
    whole = b"postgres: walsender replicator 10.0.0.2(5000) streaming 0/5061538"

    assert parse_title(whole[:room] + b"\0\0", "", POSTMASTER, room).kind is BackendKind.WALSENDER


@pytest.mark.parametrize("activity", ["SELECT", "idle in transaction", "INSERT", "CREATE TABLE"])
def test_a_role_called_walsender_is_a_client_once_it_does_what_walsenders_do_not(activity):
    title = parse(f"postgres: walsender shop 10.0.0.1(1) {activity}")

    assert (title.kind, title.user, title.database) == (BackendKind.CLIENT, "walsender", "shop")
