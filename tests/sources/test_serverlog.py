"""PostgreSQL's log: real ones of each format, through rotation, and what must not be counted."""

import contextlib
import errno
import os
import shutil
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


def many(number):
    """Refusals of different sessions, so that no two logs begin alike."""
    return "".join(REFUSED.replace("[77]", f"[{n}]") for n in range(number, number + 9))


def test_a_file_that_is_renamed_goes_on_under_its_other_name(log):
    reader = LogReader([f"{log.parent}/server*"])
    add(log, many(100))
    reader.read()
    add(log, REFUSED)
    log.rename(log.parent / "server.log.1")  # as logrotate does; the server goes on writing there until it is told
    log.write_text(REFUSED)
    assert total(reader) == 2
    add(log.parent / "server.log.1", REFUSED)
    add(log, REFUSED)
    assert total(reader) == 4


def test_files_that_are_renamed_one_to_the_other_go_on(log):
    reader = LogReader([f"{log.parent}/server*"])
    add(log, many(100))
    (log.parent / "server.log.1").write_text(many(200))
    reader.read()
    add(log, many(300))
    assert total(reader) == 9
    (log.parent / "server.log.1").rename(log.parent / "server.log.2")
    log.rename(log.parent / "server.log.1")
    log.write_text(REFUSED)
    assert total(reader) == 10


def test_a_file_that_was_written_anew_is_new_however_long_it_is(log):
    reader = LogReader([str(log)])
    reader.read()
    log.write_text(many(100))
    assert total(reader) == 9
    other = LogReader([f"{log.parent}/server*"])
    (log.parent / "server.log.1").write_text(REFUSED)
    other.read()
    shutil.copyfile(log, log.parent / "server.log.1")
    assert total(other) == 0, "but not as a copy"


@pytest.mark.parametrize("keeps_its_time", [True, False])
def test_what_a_copy_holds_has_been_counted(log, keeps_its_time):
    reader = LogReader([f"{log.parent}/server*"])
    add(log, many(100))
    reader.read()
    add(log, many(200))
    assert total(reader) == 9
    (shutil.copy2 if keeps_its_time else shutil.copy)(log, log.parent / "server.log.1")  # copytruncate
    os.truncate(log, 0)
    assert total(reader) == 9
    add(log, REFUSED)
    assert total(reader) == 10


def test_a_log_that_comes_into_sight_late_is_old(log):
    other = log.parent / "other.log"
    reader = LogReader([f"{log.parent}/*.log"])
    log.rename(log.parent / "away")
    reader.read()
    (log.parent / "away").rename(log)  # a volume that is mounted later
    assert total(reader) == 0
    add(log, REFUSED)
    assert total(reader) == 1
    other.write_text(many(300))
    os.utime(other, (1, 1))  # moved here
    assert total(reader) == 1
    add(other, REFUSED)
    assert total(reader) == 2


def test_a_log_that_can_be_read_at_last_is_old(log, monkeypatch):
    reader = LogReader([f"{log.parent}/*.log"])
    other = log.parent / "other.log"
    reader.read()
    other.write_text(many(300))
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda path, flags: open_unless(path, flags, str(other)))
        reader.read()
        assert str(other) in reader.refused
    assert total(reader) == 0
    add(other, REFUSED)
    assert total(reader) == 1


OPEN = os.open


def open_unless(path, flags, forbidden):
    if path == forbidden:
        raise PermissionError(errno.EACCES, "no")
    return OPEN(path, flags)


def test_a_line_that_is_half_there_when_we_come_is_read_as_a_whole(log):
    add(log, REFUSED[:50])
    reader = LogReader([str(log)])
    reader.read()
    add(log, REFUSED[50:])
    assert counts(reader) == {"all_slots": 1}


def test_the_next_file_of_a_log_has_the_prefix_of_the_one_before(log):
    quoted = "user=a,db=b LOG:  checkpoint complete\nuser=,db= LOG:  checkpoint complete\n"
    log.write_text(quoted)
    reader = LogReader([f"{log.parent}/*.log"])
    reader.read()
    (log.parent / "server2.log").write_text("user=x y,db=b FATAL:  sorry, too many clients already\n")
    assert total(reader) == 1


def test_what_was_told_before_a_log_had_an_owner_is_nobodys(log):
    servers = [server(id="db", pid=1 << 30), server(id="two", pid=1 << 30)]
    logs = followed([log])
    logs.read(servers)
    add(log, REFUSED * 3)
    assert logs.read(servers) == {}
    assert refused(logs) == 0, "alone, it is its own now"
    add(log, REFUSED)
    assert refused(logs) == 1


def test_a_log_whose_server_is_out_of_sight_opens_nothing_at_another(tmp_path):
    one, two = (server(id=f"{n}", pid=1 << 30, data_directory=f"{tmp_path}/{n}") for n in (1, 2))
    logs = []
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        logs.append(tmp_path / name / "server.log")
        logs[-1].write_text(REFUSED)
    both = followed([f"{tmp_path}/*/server.log"])
    both.read([one, two])
    add(logs[0], REFUSED * 5)
    assert told_by(both.read([one, two])) == {"1": 5, "2": 0}
    assert told_by(both.read([two])) == {"2": 0}
    add(logs[0], REFUSED)
    assert told_by(both.read([one, two])) == {"1": 6, "2": 0}


def told_by(told):
    return {name: of.by_class["all_slots"] for name, of in told.items()}


def total(reader):
    return summed(reader).get("all_slots", 0)


def test_a_file_in_no_format_is_named_while_it_is_in_none(log):
    (log.parent / "old.log.gz").write_bytes(b"\x1f\x8b\x08 no text\n")
    said = "listening on 127.0.0.1:6432\n2026-01-02 03:04:05.123 UTC [9] LOG process up: PgBouncer 1.18\n"
    (log.parent / "pgbouncer.log").write_text(f"2026-01-02 03:04:05.123 UTC [9] LOG {said}")
    journal = log.parent / "journal"
    journal.write_text("Nov 28 21:51:39 host systemd[1]: Started PostgreSQL.\n")
    logs = followed([f"{log.parent}/*"])
    logs.read([server()])
    (problem,) = logs.problems()
    assert f"the log {journal} is in no format that is known" in problem
    add(journal, "2026-01-02 03:04:05 UTC [7] LOG:  starting PostgreSQL 18.1\n")
    logs.read([server()])
    assert logs.problems() == []
    demanded = ServerLogs([LogReader([str(log)], "jsonlog")], Processes())
    demanded.read([server()])
    (problem,) = demanded.problems()
    assert "is no jsonlog" in problem


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
