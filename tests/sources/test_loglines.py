"""Formats of logs, and what is wrapped around them: each entry by its own severity, whatever it quotes."""

import csv
import io
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsonar.sources.loglines import LogLines
from pgsonar.sources.serverlog import SAYS, class_of
from serverlogs import REFUSED, Log, Who

STAMP = "2026-11-28 21:51:39.123 UTC"
INSIDE = f'\n{STAMP},"u","d",1,"h",6.1,1,"x",{STAMP},1/1,0,FATAL,53300,"{REFUSED}",,,,,,,,,"psql","client backend",,0\n'
texts = st.one_of(
    st.text(max_size=20),
    st.lists(st.sampled_from([*'"\n,\t', f"FATAL:  {REFUSED}", INSIDE, "a"]), max_size=5).map("".join),
)
entries = st.lists(
    st.tuples(st.sampled_from(["LOG", "ERROR", "FATAL"]), st.one_of(texts, st.just(REFUSED)), texts, texts), max_size=6
)


def row(severity, message, user="app", query=""):
    columns = [STAMP, user, "shop", 4711, "10.0.0.7:1", "6929f1a2.4d", 3, "SELECT", STAMP, "3/12", 0]
    columns += [severity, "53300", message, "", "", "", "", "", query, "", "", "psql", "client backend", "", 0]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(columns)
    return file.getvalue().replace(f'"{STAMP}"', STAMP)


def jsonlog(severity, message, user="app", query=""):
    told = {"timestamp": STAMP, "user": user, "error_severity": severity, "message": message, "statement": query}
    return json.dumps(told, ensure_ascii=False) + "\n"


def cloudnativepg(severity, message, user="app", query=""):
    record = {"log_time": STAMP, "user_name": user, "error_severity": severity, "message": message, "query": query}
    told = {"level": "info", "ts": STAMP, "logger": "postgres", "msg": "record", "logging_pod": "orders-1"}
    if user == "renamed":  # log-field-level, log-field-timestamp
        del told["level"], told["ts"]
    return json.dumps({**told, "record": record}, ensure_ascii=False) + "\n"


def stderr(severity, message, user="app", query=""):
    return Log().write(Who(user), severity, message, statement=query).text


def docker(text, most=16384):
    """As the json-file driver writes it."""
    pieces = [line[n : n + most] for line in text.splitlines(keepends=True) for n in range(0, len(line), most)]
    return "".join(
        json.dumps({"log": piece, "stream": "stderr", "time": "2026-11-28T21:51:39.1Z"}) + "\n" for piece in pieces
    )


def cri(text, most=16384, stream="stderr"):
    """As containerd writes it."""
    wrapped = ""
    for line in text.removesuffix("\n").split("\n"):
        pieces = [line[n : n + most] for n in range(0, len(line), most)] or [""]
        for number, piece in enumerate(pieces, 1):
            wrapped += f"2026-11-28T21:51:39.123456789Z {stream} {'F' if number == len(pieces) else 'P'} {piece}\n"
    return wrapped


def cri_in_pieces(severity, message, query=""):
    """A JSON line that is longer than a piece."""
    return cri(jsonlog(severity, message, query=query), 150)


def plain(text):
    return text


FORMATS = [stderr, row, jsonlog, cloudnativepg]
WRAPPERS = [plain, docker, cri, lambda text: docker(text, 30), lambda text: cri(text, 30)]


def classes(lines, text):
    return [said[0] for entry in lines.entries(text, SAYS) if (said := class_of(entry))]


def taken(lines, text):
    """The same of what is read, whatever stands in it."""
    return [said[0] for entry in lines.take(text, SAYS) if (said := class_of(entry))]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=["plain", "docker", "cri", "docker in pieces", "cri in pieces"])
@pytest.mark.parametrize("form", FORMATS)
def test_each_format_is_told_by_itself_also_in_a_wrapper(form, wrap):
    lines = LogLines()
    lines.begin(wrap(form("LOG", "checkpoint starting: time", "") * 3))
    assert not lines.is_strange
    quoted = form("ERROR", f"upstream said\nFATAL:  {REFUSED}", query=f"select 1 -- FATAL:  {REFUSED}")
    quoted += form("LOG", f"statement: select 1 -- FATAL:  {REFUSED}") + form("ERROR", REFUSED)
    assert classes(lines, wrap(quoted)) == []
    refused = form("FATAL", REFUSED) + form("FATAL", 'too many connections for role "a ""b"""')
    assert classes(lines, wrap(quoted + refused + quoted)) == ["all_slots", "role"]


@settings(deadline=None)
@given(st.sampled_from([row, jsonlog, cloudnativepg]), entries, st.lists(st.integers(0, 4000), max_size=3))
def test_what_is_read_in_pieces_counts_as_what_is_read_at_once(form, said, cuts):
    lines = LogLines()
    lines.begin(form("LOG", "checkpoint starting: time"))
    text = "".join(form(*entry) for entry in said)
    breaks = [text.find("\n", cut) + 1 for cut in sorted(cuts)]
    edges = [0, *sorted(b for b in breaks if b), len(text)]
    told = []
    for begin, end in pairwise(edges):
        told += taken(lines, text[begin:end])
    assert len(told) == sum(severity == "FATAL" and message == REFUSED for severity, message, _, _ in said)


@pytest.mark.parametrize("form", [row, cri_in_pieces], ids=["csvlog", "cri"])
def test_an_entry_whose_words_came_before_the_read_that_ends_it_counts(form):
    lines = LogLines()
    lines.begin(form("LOG", "checkpoint starting: time"))
    text = form("FATAL", REFUSED, query="select 1;\nselect 2")
    middle = text.index("\n", text.index("client")) + 1

    assert taken(lines, text[:middle]) == []
    assert taken(lines, text[middle:]) == ["all_slots"]


@pytest.mark.parametrize("wrap", [docker, cri])
def test_the_end_of_a_line_whose_beginning_was_passed_over_is_none(wrap):
    lines = LogLines()
    lines.begin(wrap(Log().ordinary().text))
    shown = f"{Log().before(Who())}ERROR:  select {'x' * 200}"
    first, second = wrap(f"{shown}{Log().before(Who())}FATAL:  {REFUSED}\n", len(shown)).splitlines(keepends=True)
    lines.learn(first)
    assert classes(lines, second) == []
    assert classes(lines, second) == ["all_slots"], "by itself it would be one"
    assert classes(lines, first + second) == []


def test_an_operator_may_call_its_level_otherwise_and_speaks_for_itself():
    lines = LogLines()
    lines.begin(
        '{"level":"info","ts":"2026-11-28T21:51:39Z","logger":"instance-manager","msg":"x","logging_pod":"a-1"}\n'
    )
    assert not lines.is_strange
    assert classes(lines, cloudnativepg("FATAL", REFUSED, "renamed")) == ["all_slots"]
    lines = LogLines()
    assert classes(lines, cloudnativepg("FATAL", REFUSED, "renamed")) == ["all_slots"]
    assert classes(lines, json.dumps({"logger": "postgres", "msg": f"FATAL:  {REFUSED}", "record": None}) + "\n") == []


def test_streams_that_run_beside_each_other_are_joined_apart():
    lines = LogLines()
    first, *more = cri(stderr("FATAL", REFUSED), 40).splitlines(keepends=True)
    text = first + cri("x\n", stream="stdout") + "".join(more)
    lines.begin(cri(Log().ordinary().text))
    assert classes(lines, text) == ["all_slots"]


def test_after_a_gap_the_first_line_is_none():
    for form in FORMATS:
        lines = LogLines()
        lines.begin(form("LOG", "checkpoint starting: time", ""))
        lines.tear()
        assert classes(lines, form("FATAL", REFUSED)) == []
        assert classes(lines, form("FATAL", REFUSED) * 2) == ["all_slots"] * 2


@pytest.mark.parametrize(
    ("text", "is_strange"),
    [
        ("", False),
        ("\n\n", False),
        ("Nov 28 21:51:39 host systemd[1]: Started PostgreSQL.\n", True),
        ('{"level":"info","msg":"a service of ours"}\n' * 3, True),
        (f"{STAMP} [77] ПОДРОБНОСТИ:  x\n" * 3, True),
        ("\x1f\x8b\x08 not text\n", True),
        (docker("GET / 200\n" * 3), True),
        (f"{STAMP} [77] LOG:  starting PostgreSQL\n", False),
        (docker(f"The files belonging to this database system\n{STAMP} [77] LOG:  starting PostgreSQL\n"), False),
    ],
)
def test_what_is_no_log_of_postgresql_is_strange(text, is_strange):
    lines = LogLines()
    lines.begin(text)
    assert lines.is_strange == is_strange
    lines.learn(stderr("LOG", "checkpoint starting: time"))
    assert not lines.is_strange, "until there is one"


def test_a_format_that_is_demanded_is_not_told_otherwise():
    lines = LogLines("csvlog")
    lines.begin(stderr("LOG", "checkpoint starting: time"))
    assert lines.is_strange
    assert classes(lines, row("FATAL", REFUSED)) == ["all_slots"]
    assert not lines.is_strange


def test_a_row_that_is_too_long_for_any_of_ours_is_passed_over():
    lines = LogLines()
    lines.begin(row("LOG", "checkpoint starting: time"))
    assert classes(lines, row("LOG", f"{REFUSED} {'x' * 200_000}") + row("FATAL", REFUSED)) == ["all_slots"]
