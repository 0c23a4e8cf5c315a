"""Where the severity stands, under any log_line_prefix: what is quoted counts nothing, its true twin does."""

import string

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pgsonar.sources.loglines import LogLines
from pgsonar.sources.serverlog import SAYS, class_of
from serverlogs import CHECKPOINTER, DEBIAN, EVERYTHING, REFUSED, Log, Who

RESERVED = "remaining connection slots are reserved for roles with the SUPERUSER attribute"
FULL = f'connection to server at "10.0.0.9", port 5432 failed: FATAL:  {REFUSED}'
LITERALS = [" ", " ", ":", "@", ",", " - ", "[", "] ", "/", "|", "user=", ",db=", " app=", "<", "> ", "(", ")", "%%"]

escapes = st.builds(str.__add__, st.sampled_from(["%", "%", "%", "%-9", "%7"]), st.sampled_from(EVERYTHING))
parts = st.lists(st.one_of(escapes, st.sampled_from(LITERALS)), max_size=8).map("".join)
# Who is told apart at all has a time or a process; PostgreSQL's manual asks for one of them.
prefixes = st.builds(
    lambda first, some, cut, more, end: f"%{first} {some}{cut}{more}{end}",
    st.sampled_from("mtnpsc"),
    parts,
    st.sampled_from(["", "%q"]),
    parts,
    st.sampled_from([" ", ": ", "", "] "]),
)
# Others do with neither: what stands first is anybody's name.
any_prefixes = st.one_of(
    prefixes,
    st.builds(
        lambda begin, first, some, cut, more, end: f"{begin}%{first} {some}{cut}{more}{end}",
        st.sampled_from(["", "", "pg ", "<", "user="]),
        st.sampled_from("udabihve"),
        parts,
        st.sampled_from(["", "%q"]),
        parts,
        st.sampled_from([" ", ": ", ""]),
    ),
)
words = st.sampled_from(
    [
        "app",
        "FATAL",
        "FATAL:",
        "LOG:",
        "a b",
        "ERROR:x",
        "x@y",
        "[7]",
        "DETAIL",
        "2026-11-28",
        "ü",
        REFUSED,
        "0",
        ",",
        "=",
    ]
)
names = st.lists(words, min_size=1, max_size=3).map(" ".join)
# A name may also be what a line of the log could be from there on.
forgeries = st.one_of(
    names,
    st.sampled_from(
        [f"a FATAL:  {REFUSED}", f"x@y FATAL:  {REFUSED}", f"LOG:  x FATAL:  {RESERVED}", f"FATAL:  {REFUSED}"]
    ),
    st.text(string.printable.replace("\n", "").replace("\r", ""), min_size=1, max_size=20),
)


def counted(*texts, before=""):
    """The classes that are told by some pieces of a log, of which one was there before."""
    lines = LogLines()
    lines.begin(before)
    return [said[0] for text in texts for entry in lines.entries(text, SAYS) if (said := class_of(entry))]


def quotations(log, who):
    """What quotes a refusal, and is none."""
    log.write(who, "error", f"upstream said\nFATAL:  {REFUSED}", context="PL/pgSQL function inline_code_block")
    log.write(who, "error", f"FATAL:  {REFUSED}", statement=f"select 1 -- FATAL:  {RESERVED}")
    log.write(who, "error", 'could not connect to server "x"', detail=FULL, hint=FULL, context=FULL, query=FULL)
    log.write(who, "log", f"statement: select 1 -- FATAL:  {RESERVED}")
    log.write(who, "warning", f"{log.before(who)}FATAL:  {REFUSED}")
    log.write(who, "fatal", f'role "{who.user}" does not exist')
    log.write(who, "fatal", f'database "FATAL:  {REFUSED}" does not exist')
    log.write(CHECKPOINTER, "fatal", f"could not connect to the primary server: {FULL}")
    log.write(CHECKPOINTER, "error", f"could not connect to the publisher: {FULL}\nFATAL:  {REFUSED}")
    log.write(CHECKPOINTER, "log", REFUSED)
    return log


@settings(deadline=None, max_examples=300)
@given(any_prefixes, forgeries, forgeries, forgeries)
@example(DEBIAN, f"a FATAL:  {REFUSED}", "shop", "psql")
@example("%t:%r:%u@%d:[%p]:", "app", "shop", "psql")
def test_what_is_quoted_counts_nothing_whoever_writes_under_whatever_prefix(prefix, user, database, application):
    log = Log(prefix).ordinary()
    before = log.text
    quoted = quotations(Log(prefix), Who(user, database, application))
    assert counted(quoted.text, before=before) == []
    assert counted(before + quoted.text) == [], "learned at once"


@settings(deadline=None, max_examples=300)
@given(prefixes, names, names, names)
@example("%m [%p] %q%u@%d ", "ERROR: x", "a b", "FATAL")
@example("%m %t%u: ", "app app", "app", "app")
def test_a_refusal_counts_whoever_is_refused_under_whatever_prefix(prefix, user, database, application):
    before = Log(prefix).ordinary().text
    who = Who(user, database, application)
    assume(":  " not in Log(prefix).before(who))  # as FATAL: is, under %-9u
    refused = Log(prefix).write(who, "fatal", REFUSED, state="53300").text
    assert counted(refused, before=before) == ["all_slots"]
    quoted = quotations(Log(prefix), Who()).text
    assert counted(quoted + refused + quoted, before=before) == ["all_slots"]


@pytest.mark.parametrize("prefix", [DEBIAN, "%m [%p] ", "", "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ", "%p"])
@pytest.mark.parametrize("written", ["nothing", "by the server", "by sessions"])
def test_the_first_refusal_counts_at_once(prefix, written):
    log = Log(prefix)
    if written == "by sessions":
        log.ordinary()
    elif written == "by the server":
        log.write(CHECKPOINTER, "log", "checkpoint starting: time")
    refused = Log(prefix).write(Who(transaction=""), "fatal", REFUSED).text
    assert counted(refused, before=log.text) == ["all_slots"]


def test_a_name_that_holds_a_label_is_told_from_one_where_the_prefix_is_known():
    before = Log().ordinary().text
    for user in (f"a FATAL:  {REFUSED}", "x ERROR:  y", "z LOG:  "):
        refused = Log().write(Who(user), "fatal", RESERVED).text
        assert counted(refused, before=before) == ["reserved"]
        assert counted(Log().write(Who(user), "fatal", f'role "{user}" does not exist').text, before=before) == []


@pytest.mark.parametrize("name", ["a\n", "a\nb\n"])
def test_names_with_line_breaks_forge_nothing(name):
    before = Log().ordinary().text
    forged = f"{Log().before(Who('u', 'd'))}FATAL:  {REFUSED}\n"[-60:]
    for line in (forged, f"2026-11-28 21:51:05.1 UTC [1] a@b FATAL:  {REFUSED}\n"):
        attack = Log().write(Who(name + line, "shop"), "fatal", "no").text
        assert counted(attack, before=before) == []
    refused = Log().write(Who(), "fatal", REFUSED).text
    assert counted(attack + before + refused, before=before) == ["all_slots"]


@pytest.mark.parametrize(
    "printed",
    [
        f"psql: error: {FULL}",
        f"psql: FATAL:  {REFUSED}",
        f"FATAL:  {REFUSED}",
        f"2026-11-28 21:51:39.123 P00   WARN: unable to check pg1: [DbConnectError] {FULL}",
        f"2026-11-28 21:51:39.123 UTC [9] app@shop ANWEISUNG:  select 1 -- FATAL:  {REFUSED}",
        f"2026-11-28 21:51:39.123 UTC [9] app@shop INSTRUCTION : select 1 -- FATAL:  {REFUSED}",
    ],
)
def test_what_commands_print_and_what_stands_in_another_language_counts_nothing(printed):
    before = Log().ordinary().text
    assert counted(f"{printed}\n" * 3, before=before) == []
    assert counted(f"{printed}\n" + Log().write(Who(), "fatal", REFUSED).text, before=before) == ["all_slots"]


def test_another_prefix_is_learned_while_the_server_runs():
    before = Log().ordinary().text
    after = Log("<%p> %d:%u | ").ordinary().write(Who(), "fatal", REFUSED).text
    assert counted(after, before=before) == ["all_slots"]


def test_verbose_messages_have_their_state_before_them():
    text = Log().write(Who(), "fatal", f"53300: {REFUSED}", location="InitProcess, proc.c:375").text
    assert counted(text) == ["all_slots"]


def test_lines_of_later_versions_are_not_miscounted():
    log = Log().ordinary()
    log.write(Who(), "log", "connection received: host=10.0.0.7 port=51234")
    log.write(Who(), "log", "connection ready: setup total=2.1 ms, fork=0.4 ms, authentication=0.2 ms")
    log.write(
        Who(),
        "log",
        "process 4711 still waiting for ShareLock on transaction 750 after 1000.123 ms",
        detail="Process holding the lock: 99. Wait queue: 4711.",
    )
    log.write(Who(), "fatal", 'number of requested standby connections exceeds "max_wal_senders" (currently 2)')
    log.write(Who(), "log", "could not receive data from client: Connection reset by peer")
    log.write(Who(), "fatal", "connection to client lost", statement=f"select '{REFUSED}'")
    assert counted(log.text) == ["walsenders", "lost_client", "lost_client"]


def test_a_prefix_of_many_blanks_costs_no_more_than_others():
    before = Log("%m %u %d %a %i x").ordinary().text
    name = "a " * 30
    log = Log("%m %u %d %a %i x")
    for _ in range(50):
        log.write(Who(name, name, name), "error", f"{name * 50} FATAL:  {REFUSED}")
    assert counted(log.text, before=before) == []
