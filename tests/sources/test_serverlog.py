"""PostgreSQL's log: real ones of each format, through rotation, and what must not be counted."""

import contextlib
import os
import time

import pytest

from build import server
from pgsonar.demo.clients import WireClient
from pgsonar.sources.processes import Processes
from pgsonar.sources.serverlog import CLASSES, MOST, LogReader, ServerLogs, owner_of
from playing import postgres

REFUSED = "2026-01-02 03:04:05 UTC [77] app@shop FATAL:  sorry, too many clients already\n"


def counts(reader):
    ((_, told),) = reader.read().items()
    return dict(told.by_class)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "server.log"
    path.write_text(REFUSED)
    return path


def add(path, text):
    with path.open("a") as file:
        file.write(text)


def test_only_what_is_written_from_now_on_counts_and_each_line_once(log):
    reader = LogReader([str(log)])
    assert counts(reader) == {}
    add(log, REFUSED * 2)
    assert counts(reader) == {"all_slots": 2}
    assert counts(reader) == {"all_slots": 2}
    add(log, REFUSED[:-20])
    assert counts(reader) == {"all_slots": 2}
    add(log, REFUSED[-20:])
    assert counts(reader) == {"all_slots": 3}


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("sorry, too many clients already", "all_slots"),
        ("remaining connection slots are reserved for non-replication superuser connections", "reserved"),
        ('remaining connection slots are reserved for roles with privileges of the "x" role', "reserved"),
        ('too many connections for role "lim"', "role"),
        ('too many connections for database "limdb"', "database"),
        ("number of requested standby connections exceeds max_wal_senders (currently 2)", "walsenders"),
        ("canceling authentication due to timeout", "authentication_timeout"),
        ("unexpected EOF on client connection with an open transaction", "lost_client"),
        ("could not receive data from client: Connection timed out", "lost_client"),
        ("connection to client lost", "lost_client"),
        ("statement: select 'sorry, too many clients already'", None),
        ("connection received: host=10.0.0.1", None),
    ],
)
def test_each_class_by_its_text_and_no_quotation(log, message, name):
    reader = LogReader([str(log)])
    reader.read()
    add(log, f"2026-01-02 [77] FATAL:  {message}\nDETAIL:  sorry, too many clients already\n")
    assert counts(reader) == ({name: 1} if name else {})


def test_a_file_that_was_rotated_or_truncated_is_read_from_its_start(log):
    reader = LogReader([f"{log.parent}/*.log"])
    reader.read()
    log.rename(log.parent / "server.log.1")
    log.write_text(REFUSED)
    assert counts(reader) == {"all_slots": 1}
    log.write_text("")
    assert counts(reader) == {"all_slots": 1}
    add(log, REFUSED)
    assert counts(reader) == {"all_slots": 2}
    (log.parent / "other.log").write_text(REFUSED)
    assert sum(told.by_class["all_slots"] for told in reader.read().values()) == 3, "a new file is new from its start"


def test_a_log_that_grows_too_fast_is_passed_over_and_that_is_counted(log):
    reader = LogReader([str(log)])
    reader.read()
    add(log, "x" * (3 * MOST) + "\n" + REFUSED)
    ((_, told),) = reader.read().items()
    assert dict(told.by_class) == {"all_slots": 1}
    assert told.skipped_bytes > MOST


def test_what_cannot_be_followed_is_named(tmp_path, log):
    os.mkfifo(tmp_path / "pipe.log")
    alone = ServerLogs([LogReader([f"{tmp_path}/pipe.log"]), LogReader(["/no/such/*.log"])], Processes())
    alone.read([server()])
    assert any("no log matches /no/such/*.log" in problem for problem in alone.problems())
    several = ServerLogs([LogReader([str(log)])], Processes())
    several.read([server(id="a", pid=1 << 30), server(id="b", pid=1 << 30)])
    assert any("belongs to no server" in problem for problem in several.problems())


def followed(*readers):
    return ServerLogs([LogReader([str(pattern) for pattern in include]) for include in readers], Processes())


def refused(logs):
    return logs.read([server(id="db")])["db"].by_class["all_slots"]


@pytest.mark.parametrize(
    "after",
    [
        [["server.log"], ["other.log"]],
        [["server.log", "other.log"]],
        [["other.log"]],
        [["*.log"]],
    ],
    ids=["the same and one more", "one reader of both", "another instead", "the same file by another pattern"],
)
def test_what_was_counted_stays_counted_when_other_logs_are_followed(log, after):
    other = log.parent / "other.log"
    other.write_text(REFUSED * 100)
    logs = followed([log])
    refused(logs)
    add(log, REFUSED * 3)
    assert refused(logs) == 3
    add(log, REFUSED)  # not read yet
    again = followed(*([log.parent / name for name in include] for include in after))
    again.take_over(logs)
    is_followed = after != [["other.log"]]
    assert refused(again) == 3 + is_followed
    add(other, REFUSED * 2)
    assert refused(again) == 3 + is_followed + 2
    last = followed([log])
    last.take_over(again)
    assert refused(last) == refused(again)


def test_a_log_that_was_rotated_away_stays_with_its_server(log):
    servers = [server(id="db", pid=1 << 30), server(id="two", pid=1 << 30)]
    logs = followed([f"{log.parent}/*.log"])
    logs.read(servers[:1])
    add(log, REFUSED)
    logs.read(servers[:1])
    again = followed([f"{log.parent}/*.log"], ["/no/such/*.log"])
    again.take_over(logs)

    assert again.read(servers)["db"].by_class["all_slots"] == 1


def test_a_log_belongs_to_the_server_in_whose_directory_it_lies_or_to_the_only_one():
    one, other = (server(id=f"{n}", pid=1 << 30, data_directory=f"/data/{n}") for n in (1, 2))
    assert owner_of("/data/2/log/x.log", [one, other], Processes()) == "2"
    assert owner_of("/elsewhere/x.log", [one, other], Processes()) is None
    assert owner_of("/elsewhere/x.log", [one], Processes()) == "1"


@pytest.mark.live
@pytest.mark.parametrize("form", ["stderr", "csvlog", "jsonlog"])
def test_a_real_log_tells_what_happened(form):
    directory = {"logging_collector": "on", "log_destination": form, "max_connections": 5, "max_wal_senders": 0}
    with postgres(16, **directory, authentication_timeout="1s") as running:
        reader = LogReader([f"{running.data_directory}/log/*"])
        reader.read()
        admin = WireClient(running.port, "postgres")
        admin.execute("create role legacy_etl login password 'x'; create role lim login connection limit 0")
        with pytest.raises(ConnectionRefusedError):
            WireClient(running.port, "lim")
        stuck = WireClient(running.port, "legacy_etl", login=False)
        gone = WireClient(running.port, "postgres")
        gone.execute("begin")
        gone.socket.close()
        time.sleep(1.3)
        stuck.socket.close()
        held = []
        for _ in range(8):
            with contextlib.suppress(ConnectionRefusedError):
                held.append(WireClient(running.port, "postgres"))
        wanted = {"role": 1, "authentication_timeout": 1, "lost_client": 1, "all_slots": 8 - len(held)}
        end = time.monotonic() + 5
        while (told := summed(reader)) != wanted and time.monotonic() < end:
            time.sleep(0.05)
        for client in (admin, *held):
            client.close()

    assert told == wanted


def summed(reader):
    together = {}
    for counts in reader.read().values():
        for name, number in counts.by_class.items():
            together[name] = together.get(name, 0) + number
    return together


def test_every_class_has_a_metric():
    from pgsonar.signals.server_metrics import REFUSALS

    assert {name for name, _ in CLASSES} == {*REFUSALS, "authentication_timeout", "lost_client"}
