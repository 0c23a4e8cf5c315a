"""What waits for a backend: within its bounds, in order, and after a kill, a full disk or a damaged file."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from pgsonar.config.load import load
from pgsonar.config.schema import SendingQueue
from pgsonar.config.units import Duration
from pgsonar.daemon.exporting import Exporting
from pgsonar.daemon.storage import StateDirectory
from pgsonar.errors import ConfigError
from pgsonar.exporters.durable import MIGRATIONS, NAME, STEP, QueueFile
from pgsonar.exporters.encoding import Encoded
from pgsonar.exporters.queue import AT_ONCE, SIGNALS, Queue
from pgsonar.model import Moment

SOURCE = str(Path(__file__).parents[2] / "agent")


def request(text, signal="logs", items=1):
    return Encoded(signal, text.encode(), items)


def waiting(queue):
    """The texts of all that waits, by signal, taken out."""
    found = {}
    for name in SIGNALS:
        while (entry := queue.first(name)) is not None:
            found.setdefault(name, []).append(queue.read(entry).body.decode())
            queue.remove(entry)
    return found


@contextlib.contextmanager
def opened(directory, bounds=None, exporter="otlp_http"):
    file = QueueFile(directory)
    try:
        yield Queue(bounds or SendingQueue(), file.of(exporter))
    finally:
        file.close()


@pytest.mark.parametrize("is_durable", [False, True])
def test_it_comes_out_in_order_by_signal(tmp_path, is_durable):
    with opened(tmp_path) as durable:
        queue = durable if is_durable else Queue(SendingQueue())
        for text in ("a", "b"):
            queue.put(request(text))
            queue.put(request(text, "metrics", items=5))
        assert (len(queue), queue.items(), queue.bytes) == (4, 12, 4)
        assert waiting(queue) == {"logs": ["a", "b"], "metrics": ["a", "b"]}
        assert (len(queue), queue.items(), queue.bytes) == (0, 0, 0)


def test_what_is_left_comes_back_with_the_next_run(tmp_path):
    with opened(tmp_path) as queue:
        for text in ("a", "b", "c"):
            queue.put(request(text, items=2))
        queue.remove(queue.first("logs"))
        assert queue.items_at_risk() == 0
    with opened(tmp_path) as queue:
        queue.put(request("d"))
        assert queue.items() == 5
        assert waiting(queue) == {"logs": ["b", "c", "d"]}


def test_each_exporter_has_its_own(tmp_path):
    file = QueueFile(tmp_path)
    one, other = (Queue(SendingQueue(), file.of(name)) for name in ("otlp_http/a", "otlp_http/b"))
    one.put(request("for a"))
    other.put(request("for b"))
    assert waiting(other) == {"logs": ["for b"]}
    assert waiting(one) == {"logs": ["for a"]}
    file.close()


def test_what_waits_for_an_exporter_that_is_configured_no_more_is_dropped_and_said(tmp_path, caplog):
    file = QueueFile(tmp_path)
    for name in ("kept", "gone"):
        Queue(SendingQueue(), file.of(name)).put(request("x", items=3))
    file.forget_others(["kept"])

    assert waiting(Queue(SendingQueue(), file.of("gone"))) == {}
    assert waiting(Queue(SendingQueue(), file.of("kept"))) == {"logs": ["x"]}
    assert "3 items wait in" in caplog.text
    assert "for gone" in caplog.text
    file.close()


def test_what_waits_for_an_exporter_that_is_to_wait_in_memory_now_is_dropped_and_said(tmp_path, caplog):
    file = QueueFile(tmp_path)
    for name in ("otlp_http/stays", "otlp_http/now_in_memory"):
        Queue(SendingQueue(), file.of(name)).put(request("x", items=3))
    file.close()
    nobody = "endpoint: http://127.0.0.1:1"
    settings = [
        "receivers.sockets.targets=[{name: db, port: 1}]",
        f"exporters.otlp_http/stays={{{nobody}}}",
        f"exporters.otlp_http/now_in_memory={{{nobody}, sending_queue: {{storage: memory}}}}",
    ]
    exporting = Exporting(load([], settings, {}), tmp_path)
    assert exporting.exporters["otlp_http/stays"].stats.queue_requests == 1
    exporting.close(0)

    assert "for otlp_http/now_in_memory, which" in caplog.text
    with opened(tmp_path, exporter="otlp_http/now_in_memory") as queue:
        assert queue.items() == 0


@pytest.mark.parametrize(
    ("bounds", "left", "said"),
    [
        (SendingQueue(queue_size=2), ["d", "e"], "the queue is full"),
        (SendingQueue(max_bytes=3), ["c", "d", "e"], "the queue is full"),
        (SendingQueue(max_age=Duration(0)), [], "what waits has reached max_age"),
    ],
)
def test_the_oldest_is_dropped_and_returned(tmp_path, bounds, left, said):
    with opened(tmp_path, bounds) as queue:
        for text in "abcde":
            queue.put(request(text))
        time.sleep(0.001)
        dropped = queue.expire(())

        assert [queue.read(entry) for entry, _ in dropped] == [None] * (5 - len(left))
        assert {reason for _, reason in dropped} == {said}
        assert waiting(queue).get("logs", []) == left


def test_what_is_being_sent_is_not_dropped_meanwhile(tmp_path):
    with opened(tmp_path, SendingQueue(queue_size=1)) as queue:
        queue.put(request("on its way"))
        sending = queue.first("logs")
        for text in ("old", "new"):
            queue.put(request(text))

        assert [entry.number for entry, _ in queue.expire([sending])] == [2]
        assert waiting(queue) == {"logs": ["on its way", "new"]}


class Full:
    """A store on a disk that is full for a while; for what it does otherwise, a file."""

    def __init__(self, store):
        self._store = store
        self.is_full = False

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, entries):
        return not self.is_full and self._store.put(entries)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["put", "take", "full", "free", "restart"]), max_size=60))
def test_nothing_is_lost_or_reordered_whatever_the_disk_does(tmp_path_factory, steps):
    """But for a restart while the disk is full: what waits in memory only is at risk, and counted so."""
    file = QueueFile(tmp_path_factory.mktemp("queue"))
    store = Full(file.of("x"))
    queue = Queue(SendingQueue(), store)
    expected, number = [], 0
    for step in steps:
        if step == "put":
            number += 1
            queue.put(request(str(number)))
            expected.append(str(number))
        elif step == "take" and expected:
            entry = queue.first("logs")
            assert queue.read(entry).body.decode() == expected.pop(0)
            queue.remove(entry)
        elif step in ("full", "free"):
            store.is_full = step == "full"
        elif step == "restart" and not queue.items_at_risk():
            queue = Queue(SendingQueue(), store)
    assert queue.items() == len(expected)
    assert waiting(queue).get("logs", []) == expected
    file.close()


def test_what_waited_in_memory_is_written_when_there_is_room_some_at_a_time(tmp_path):
    file = QueueFile(tmp_path)
    store = Full(file.of("x"))
    queue = Queue(SendingQueue(), store)
    store.is_full = True
    for number in range(2 * AT_ONCE):
        queue.put(request(str(number)))
    assert queue.items_at_risk() == 2 * AT_ONCE
    store.is_full = False
    risks = []
    for _ in range(3):
        queue.put(request("more"))
        risks.append(queue.items_at_risk())

    assert risks == [AT_ONCE + 1, 2, 0]
    file.close()


def small_disk(tmp_path):
    """A disk of 1 MB, if one can be mounted here."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "pgsonar-test", str(disk)]
    needs.root("to mount a small disk")
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot be installed: the right to mount a small disk")
    return disk


def test_a_full_disk_loses_nothing_and_is_said_once(tmp_path, caplog):
    disk = small_disk(tmp_path)
    try:
        file = QueueFile(disk)
        queue = Queue(SendingQueue(), file.of("x"))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(600_000))
        bodies = [os.urandom(10_000).hex() for _ in range(40)]  # what does not compress
        for body in bodies:
            queue.put(request(body))
        assert "database or disk is full" in file.problem
        assert queue.items_at_risk() > 0
        assert len([r for r in caplog.records if "waits in memory" in r.message]) == 1
        assert waiting(queue) == {"logs": bodies}

        ballast.unlink()
        queue.put(request("there is room again"))
        assert file.problem is None
        assert queue.items_at_risk() == 0
        assert waiting(queue) == {"logs": ["there is room again"]}
        assert waiting(Queue(SendingQueue(), file.of("x"))) == {}  # what was sent meanwhile is not sent once more
        file.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


STARTED_ON = ("fresh", "killed", "stopped")
KILLED = """
import os, sys
from pathlib import Path
from pgsonar.config.schema import SendingQueue
from pgsonar.exporters.durable import QueueFile
from pgsonar.exporters.encoding import Encoded
from pgsonar.exporters.queue import Queue

file = QueueFile(Path(sys.argv[1]))
Queue(SendingQueue(), file.of("x")).put(Encoded("logs", b"from before", 1))
if sys.argv[2] == "stopped":
    file.close()
os._exit(9)
"""


@pytest.mark.parametrize("before", STARTED_ON)
def test_a_start_on_a_full_disk_goes_on_in_memory_and_writes_when_there_is_room(tmp_path, caplog, monkeypatch, before):
    monkeypatch.setattr("pgsonar.sqlite_file.LOOK", 0)
    disk = small_disk(tmp_path)
    try:
        if before != "fresh":
            command = [sys.executable, "-c", KILLED, str(disk), before]
            subprocess.run(command, env={"PYTHONPATH": SOURCE}, check=False)
        (disk / "queue.sqlite-shm").unlink(missing_ok=True)  # as after a boot
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        file = QueueFile(disk)
        queue = Queue(SendingQueue(), file.of("x"))
        known = queue.items()
        for text in ("a", "b"):
            queue.put(request(text))
        assert "cannot be written" in file.problem
        assert queue.items_at_risk() == 2
        assert caplog.text.count("waits in memory") == 1

        (disk / "ballast").unlink()
        queue.put(request("c"))
        assert file.problem is None
        assert queue.items_at_risk() == 0
        found = [] if before == "fresh" else ["from before"]
        assert known == len(found)
        assert waiting(Queue(SendingQueue(), file.of("x"))) == {"logs": [*found, "a", "b", "c"]}
        file.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_state_directory_on_a_full_disk_is_kept_when_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr("pgsonar.sqlite_file.LOOK", 0)
    disk = small_disk(tmp_path)
    try:
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        state, now = StateDirectory(str(disk)), Moment(0, 0)
        assert (state.load(now), state.untold(now), state.save([], now)) == ([], [], False)
        assert "cannot be written" in state.problem
        (disk / "ballast").unlink()
        assert state.save([], now)
        assert state.problem is None
        state.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_read_only_disk_is_refused(tmp_path):
    disk = small_disk(tmp_path)
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ConfigError, match="cannot be opened") as refused:
            QueueFile(disk)
        assert refused.value.hint
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


class Late:
    """A store that cannot be read at first; for what it does otherwise, a file."""

    def __init__(self, store):
        self._store = store
        self.is_there = False

    def __getattr__(self, name):
        return getattr(self._store, name)

    def load(self):
        return self._store.load() if self.is_there else None


def test_what_an_earlier_run_left_is_taken_in_when_the_file_can_be_read_at_last(tmp_path):
    file = QueueFile(tmp_path)
    Queue(SendingQueue(), file.of("x")).put(request("from before", items=2))
    store = Late(file.of("x"))
    queue = Queue(SendingQueue(), store)
    queue.put(request("a"))
    in_hand = queue.first("logs")
    assert (queue.items(), queue.items_at_risk()) == (1, 1)
    store.is_there = True
    queue.put(request("b"))
    assert (queue.items(), queue.items_at_risk(), queue.bytes) == (4, 0, 13)
    queue.remove(in_hand)

    assert waiting(Queue(SendingQueue(), file.of("x"))) == {"logs": ["from before", "b"]}
    file.close()


@pytest.mark.parametrize("removed", [(NAME,), (NAME, f"{NAME}-wal", f"{NAME}-shm")], ids=["alone", "with-companions"])
def test_a_file_that_is_removed_while_it_is_used_is_written_anew_with_what_it_held(
    tmp_path, caplog, monkeypatch, removed
):
    monkeypatch.setattr("pgsonar.sqlite_file.LOOK", 0)
    file = QueueFile(tmp_path)
    queue = Queue(SendingQueue(), file.of("x"))
    for text in ("a", "b"):
        queue.put(request(text))
    for name in removed:
        (tmp_path / name).unlink()
    for text in ("c", "d"):
        queue.put(request(text))
    file.close()

    with opened(tmp_path, exporter="x") as again:
        assert waiting(again) == {"logs": ["a", "b", "c", "d"]}
    assert caplog.text.count("was removed while in use") == 1
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]


def test_what_a_removed_file_held_and_nobody_can_copy_is_said_to_be_lost(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pgsonar.sqlite_file.LOOK", 0)
    directory = tmp_path / "state"
    directory.mkdir()
    file = QueueFile(directory)
    queue = Queue(SendingQueue(), file.of("x"))
    queue.put(request("a"))
    shutil.rmtree(directory)
    queue.put(request("b"))

    assert "cannot be copied" in caplog.text
    assert "what waited in it is lost" in caplog.text
    assert "cannot be written" in file.problem
    assert queue.items_at_risk() == 1
    assert queue.read(queue.first("logs")) is None
    file.close()


def test_another_file_in_its_place_is_set_aside_and_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr("pgsonar.sqlite_file.LOOK", 0)
    file = QueueFile(tmp_path)
    queue = Queue(SendingQueue(), file.of("x"))
    queue.put(request("a"))
    (tmp_path / "other").write_text("somebody's")
    (tmp_path / "other").rename(tmp_path / NAME)
    queue.put(request("b"))

    (aside,) = tmp_path.glob("queue.damaged-*")
    assert aside.read_text() == "somebody's"
    assert waiting(Queue(SendingQueue(), file.of("x"))) == {"logs": ["a", "b"]}
    file.close()


def test_room_is_given_back_in_steps_between_which_others_use_the_file(tmp_path, monkeypatch):
    file = QueueFile(tmp_path)
    queue = Queue(SendingQueue(), file.of("x"))
    other = Queue(SendingQueue(), file.of("other"))
    for _ in range(40):
        queue.put(request(os.urandom(50_000).hex()))
    waiting(queue)
    pages = []

    def others_turn(_):
        other.put(request("meanwhile"))
        pages.append(file.run(lambda database: database.execute("pragma freelist_count").fetchone()[0], 0))

    monkeypatch.setattr("pgsonar.exporters.durable.time.sleep", others_turn)
    queue.tidy()

    assert len(pages) > 2
    assert all(before - after <= STEP + 1 for before, after in pairwise(pages))
    assert file.run(lambda database: database.execute("pragma freelist_count").fetchone()[0], None) == 0
    assert len(waiting(other)["logs"]) == len(pages)
    file.close()


def test_a_file_of_something_else_is_set_aside_and_named(tmp_path, caplog):
    (tmp_path / NAME).write_bytes(b"not a database at all" * 100)
    with opened(tmp_path) as queue:
        queue.put(request("x"))
        assert waiting(queue) == {"logs": ["x"]}

    aside = list(tmp_path.glob("queue.damaged-*"))
    assert [one.read_bytes()[:5] for one in aside] == [b"not a"]
    assert aside[0].name in caplog.text


def test_a_file_that_is_damaged_while_it_is_used_is_set_aside_and_the_loss_is_told(tmp_path, caplog):
    file = QueueFile(tmp_path)
    queue = Queue(SendingQueue(), file.of("x"))
    for number in range(50):
        queue.put(request(os.urandom(4000).hex() + str(number)))
    file.run(lambda database: database.execute("pragma wal_checkpoint(truncate)").fetchall(), [])
    with (tmp_path / NAME).open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * 200_000)
    file._database.execute("pragma cache_size = 1")
    file._database.execute("pragma shrink_memory")
    lost = 0
    while (entry := queue.first("logs")) is not None:
        lost += queue.read(entry) is None
        queue.remove(entry)
    queue.put(request("goes on"))

    assert lost > 0
    assert list(tmp_path.glob("queue.damaged-*"))
    assert "set aside" in caplog.text
    assert waiting(queue) == {"logs": ["goes on"]}
    file.close()


def test_a_body_that_does_not_unpack_is_lost_alone(tmp_path):
    file = QueueFile(tmp_path)
    queue = Queue(SendingQueue(), file.of("x"))
    for text in ("damaged", "whole"):
        queue.put(request(text))
    file.run(lambda d: d.execute("update request set body = x'00112233' where number = 1"), None)
    read = []
    while (entry := queue.first("logs")) is not None:
        read.append(queue.read(entry))
        queue.remove(entry)

    assert [encoded and encoded.body for encoded in read] == [None, b"whole"]
    file.close()


def test_a_file_of_a_later_version_is_refused(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as database:
        database.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(ConfigError, match="is of version") as refused:
        QueueFile(tmp_path)
    assert "a later pgsonar wrote it" in refused.value.hint


def test_nobody_else_may_read_it_and_an_emptied_one_gives_its_room_back(tmp_path):
    file = QueueFile(tmp_path)
    queue = Queue(SendingQueue(), file.of("x"))
    for _ in range(40):
        queue.put(request(os.urandom(50_000).hex()))
    file.run(lambda database: database.execute("pragma wal_checkpoint(truncate)").fetchall(), [])
    full = (tmp_path / NAME).stat().st_size
    waiting(queue)
    queue.tidy()
    file.run(lambda database: database.execute("pragma wal_checkpoint(truncate)").fetchall(), [])

    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert full > 2_000_000
    assert (tmp_path / NAME).stat().st_size < 100_000
    file.close()


WRITER = """
import sys
from pathlib import Path
from pgsonar.config.schema import SendingQueue
from pgsonar.exporters.durable import QueueFile
from pgsonar.exporters.encoding import Encoded
from pgsonar.exporters.queue import Queue

queue = Queue(SendingQueue(), QueueFile(Path(sys.argv[1])).of("x"))
for number in range(1_000_000):
    queue.put(Encoded("logs", str(number).encode(), 1))
    print(number, flush=True)
"""


def test_a_kill_loses_nothing_that_was_put(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, text=True
    )
    told = [int(writer.stdout.readline()) for _ in range(500)]
    writer.send_signal(signal.SIGKILL)
    told += [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait()
    writer.stdout.close()
    with opened(tmp_path, exporter="x") as queue:
        found = [int(text) for text in waiting(queue)["logs"]]

    assert found[: len(told)] == told
    assert len(found) - len(told) <= 1  # written, and killed before it was told


def test_the_older_half_of_what_is_only_in_memory_is_given_up(tmp_path):
    file = QueueFile(tmp_path)
    store = Full(file.of("x"))
    queue = Queue(SendingQueue(), store)
    queue.put(request("on disk"))
    store.is_full = True
    for text in ("1", "2", "3"):
        queue.put(request(text))
    sending = queue.first("logs")
    dropped = queue.shed([sending])

    assert [entry.number for entry in dropped] == [2, 3]
    assert waiting(queue) == {"logs": ["on disk", "3"]}
    file.close()
