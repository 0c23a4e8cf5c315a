"""`pgsonar record` and `pgsonar replay` from outside."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgsonar import commands
from pgsonar.commands.record import recording_only
from pgsonar.config.load import load
from pgsonar.config.schema import LeakKind, LeaksProcessor
from pgsonar.config.units import Duration
from pgsonar.recording.rotation import RotatingFiles
from pgsonar.sources.recording import MAGIC, Recording
from recorded import Recorded, leave_open, moment, orphan

AGENT = str(Path(commands.__file__).parent.parent.parent)
ENVIRON = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")} | {"PYTHONPATH": AGENT}
SOON = "processors.leaks.idle_in_transaction.after=2s"
LATER = "processors.leaks.idle_in_transaction.after=1h"


def pgsonar(*words, **environ):
    command = [sys.executable, "-m", "pgsonar", *map(str, words)]
    return subprocess.run(
        command, env=ENVIRON | environ, capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "r"
    sink = RotatingFiles(str(path), 1 << 20, 1, lambda: None)
    there = Recorded(sink, leaks=LeaksProcessor(idle_in_transaction=LeakKind(after=Duration(2))))
    for number in range(7):
        leave_open(there.world, pid=4711 + number, port=40000 + number)
    orphan(there.world, pid=99, port=50000)
    there.run(0, 10)
    sink.close()
    return path


def test_it_prints_what_was_opened_the_same_to_the_byte(file):
    one, other = (pgsonar("replay", file, "--set", SOON, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    lines = one.stdout.splitlines()

    assert (one.returncode, one.stderr) == (0, "")
    assert one.stdout == other.stdout
    assert lines[0] == "RECORDING of h by pgsonar 0.1.0"
    assert "2023-11-14T22:13:22.000Z  OPENED    warning   idle_in_transaction" in lines
    assert "  culprit  app@10.0.0.7" in lines
    assert "  since    2023-11-14T22:13:20.000Z" in lines
    assert any(line.startswith("  members  7: pid 4711 10.0.0.7:40000, pid 4712") for line in lines)
    assert any("and 2 more" in line for line in lines)
    assert lines[-1] == "END      2023-11-14T22:13:29.500Z after 9.5 s: 2 episodes, 2 open at the end"
    assert max(map(len, lines)) <= 100


def test_other_thresholds_can_be_tried(file):
    ended = pgsonar("replay", file, "--set", LATER)

    assert "orphaned_backend" in ended.stdout
    assert "idle_in_transaction" not in ended.stdout


def test_json_has_a_line_for_each_event_with_all_that_was_told(file):
    ended = pgsonar("replay", file, "--set", SOON, "--format", "json")
    told = [json.loads(line) for line in ended.stdout.splitlines()]

    assert [one["event_name"] for one in told] == ["pgsonar.leak.opened"] * 2
    assert {one["attributes"]["pgsonar.leak.kind"] for one in told} == {"idle_in_transaction", "orphaned_backend"}
    assert all(one["attributes"]["pgsonar.leak.id"] == one["trace_id"] for one in told)


def test_a_damaged_file_is_played_up_to_the_damage_which_is_told_and_no_error(file):
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 3 // 4])
    ended = pgsonar("replay", file, "--set", SOON)

    assert ended.returncode == 0
    assert "OPENED" in ended.stdout
    assert "a block is cut off; it was played up to there" in ended.stderr


def test_a_newer_file_and_what_is_no_recording_are_refused(file):
    text = bytearray(file.read_bytes())
    text[len(MAGIC) : len(MAGIC) + 2] = struct.pack("<H", 999)
    file.write_bytes(text)
    newer = pgsonar("replay", file)
    other = pgsonar("replay", __file__)

    assert (newer.returncode, newer.stdout) == (2, "")
    assert "has format 999" in newer.stderr
    assert "hint: play it with the pgsonar that wrote it" in newer.stderr
    assert other.returncode == 2
    assert "is not a recording" in other.stderr


def test_recording_lasts_as_long_as_it_is_told(tmp_path):
    path = tmp_path / "r"
    begun = time.monotonic()
    ended = pgsonar("record", path, "--duration", "1.5s", "--set", "receivers.sockets.targets=[{port: 1}]")

    assert ended.returncode == 0
    assert 1.5 <= time.monotonic() - begun < 10
    assert f"into {path}" in ended.stderr
    assert Recording(str(path)).damage is None


def test_what_a_killed_recorder_leaves_is_played(tmp_path):
    path = tmp_path / "r"
    command = [sys.executable, "-m", "pgsonar", "record", str(path), "--set", "receivers.sockets.targets=[{port: 1}]"]
    process = subprocess.Popen(command, env=ENVIRON, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 300):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = pgsonar("replay", path)

    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1].startswith("END ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--duration", "soon"), "expected a duration"),
        (("--max-bytes", "much"), "expected a size"),
        (("--max-bytes", "100KiB"), "100KiB in 4 files: each needs 64KiB or more"),
        (("--files", "0"), "in 0 files"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, words, said):
    ended = pgsonar("record", tmp_path / "r", *words)

    assert ended.returncode == 2
    assert said in ended.stderr


def test_a_disk_that_refuses_is_told(tmp_path):
    ended = pgsonar("record", tmp_path / "missing" / "r", "--set", "receivers.sockets.targets=[{port: 1}]")

    assert ended.returncode == 1
    assert "no such file or directory" in ended.stderr
    assert "hint: choose another FILE" in ended.stderr


def test_who_records_sends_answers_and_keeps_nothing_else():
    extensions = "service.extensions=[health_check, flight_recorder, file_storage]"
    config = recording_only(load([], [extensions, "processors.leaks.half_open.probe=true"], {}))

    assert (config.exporters, config.health_check, config.flight_recorder, config.file_storage) == (
        {},
        None,
        None,
        None,
    )
    assert not config.leaks.half_open.probe


def test_the_example_begins_at_its_moment(file):
    assert Recording(str(file)).header.started_unix == moment(0).unix
