"""The flight recorder: what it keeps in memory, when it writes a file, and what it does when it cannot."""

import contextlib
import os
import threading
from types import SimpleNamespace

import pytest

from build import title
from pgsonar.config.schema import FlightRecorder as Settings
from pgsonar.config.schema import LeaksProcessor, Telemetry
from pgsonar.config.units import ByteSize, Duration
from pgsonar.model import SECOND, BackendSighting, Moment, Severity
from pgsonar.recording.flight import FlightRecorder
from pgsonar.recording.replaying import Played, play
from pgsonar.signals.rows import Batch, EventRow
from pgsonar.sources.entries import KeyFrame, Stage, Tick, encode
from pgsonar.sources.recording import Header, Recording
from recorded import Recorded, moment
from waiting import until

HEADER = Header(version="1", host="h", started_unix=1, id="ab")
UNIX = 1_795_275_911 * SECOND


def recorder(folder, **changes):
    return FlightRecorder(Settings(directory=str(folder), **changes))


def event(severity=Severity.CRITICAL, *, because="threshold", number=1):
    attributes = {"pgsonar.leak.fired_because": because, "pgsonar.leak.kind": "auth_stuck"}
    row = EventRow("pgsonar.leak.opened", UNIX, int(severity), severity.word, "", attributes, number, 1)
    return Batch("logs", [(None, [row])])


def tick(second):
    return encode(Tick(Stage.SLOW, Moment(second * SECOND, second)))


def frame(second):
    return encode(KeyFrame(Moment(second * SECOND, second), [], [], []))


def pass_time(flight, begin, end):
    """A tick a second, as the recorder calls."""
    for second in range(begin, end):
        if second == 0:
            flight.begin(HEADER, frame(0), 0)
            continue
        at = second * SECOND
        flight.write([tick(second)], at)
        if flight.wants_key_frame(at):
            flight.begin(HEADER, frame(second), at)


def written(folder):
    until(lambda: list(folder.glob("*.rec")))
    return sorted(folder.glob("*.rec"))


def seconds(path):
    entries = list(Recording(str(path)).entries())
    assert isinstance(entries[0], KeyFrame)
    return [entry.moment.unix for entry in entries if isinstance(entry, Tick)]


def test_the_last_minutes_and_the_seconds_that_follow_are_written(tmp_path):
    flight = recorder(tmp_path)
    pass_time(flight, 0, 1000)
    flight.export(event())
    pass_time(flight, 1000, 1030)
    flight.close()
    (path,) = written(tmp_path)
    played = seconds(path)

    assert path.name == "pgsonar-20261121T154511Z-auth_stuck-00000000000000000000000000000001.rec"
    assert path.stat().st_mode & 0o777 == 0o600
    assert 580 <= played[0] <= 700  # whole segments, a fifth of the window each
    assert played == list(range(played[0], 1011))
    assert Recording(str(path)).header.id != HEADER.id
    assert flight.report()["files"] == 1


@pytest.mark.parametrize(
    ("severity", "because"),
    [(Severity.HIGH, "threshold"), (Severity.CRITICAL, "heartbeat"), (Severity.CRITICAL, "members")],
)
def test_only_what_becomes_critical_is_written(tmp_path, severity, because):
    flight = recorder(tmp_path)
    pass_time(flight, 0, 10)
    flight.export(event(severity, because=because))
    pass_time(flight, 10, 30)
    flight.close()

    assert list(tmp_path.iterdir()) == []


def test_what_is_only_tried_out_is_not_written(tmp_path):
    flight = recorder(tmp_path)
    pass_time(flight, 0, 10)
    batch = event()
    batch.resources[0][1][0].attributes["pgsonar.shadow"] = True
    flight.export(batch)
    pass_time(flight, 10, 30)
    flight.close()

    assert list(tmp_path.iterdir()) == []


def test_one_that_grows_critical_is_written(tmp_path):
    flight = recorder(tmp_path)
    pass_time(flight, 0, 10)
    flight.export(event(because="severity"))
    pass_time(flight, 10, 12)
    flight.close()

    assert written(tmp_path)


def test_there_is_at_most_one_file_a_minute_and_the_oldest_go(tmp_path):
    flight = recorder(tmp_path, keep=3)
    pass_time(flight, 0, 5)
    for number in range(1, 9):
        flight.export(event(number=number))
        flight.export(event(number=100 + number))
        pass_time(flight, 30 * number, 30 * number + 30)
    (tmp_path / "other.rec").write_text("not ours")
    flight.close()

    def kept():
        return sorted(path.name[-6:-4] for path in tmp_path.iterdir() if path.name != "other.rec")

    until(lambda: flight.report()["files"] == 4)  # each is written in a thread of its own
    assert kept() == ["03", "05", "07"]
    assert (tmp_path / "other.rec").exists()


def test_files_that_a_slow_disk_has_written_at_once_count_each_other(tmp_path, monkeypatch):
    """Each would make room before the other is there, were they not placed one after the other."""
    both = threading.Barrier(2)

    def slow(*arguments):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # until the other one is about to be created as well
        return os.open(*arguments)

    monkeypatch.setattr("pgsonar.recording.flight.os", SimpleNamespace(**vars(os) | {"open": slow}))
    flight = recorder(tmp_path, keep=1)
    pass_time(flight, 0, 5)
    for number in range(1, 3):
        flight.export(event(number=number))
        pass_time(flight, 70 * number, 70 * number + 20)
    flight.close()
    until(lambda: flight.report()["files"] == 2)

    assert [path.name[-6:-4] for path in tmp_path.iterdir()] == ["02"]


def test_memory_is_bounded_by_bytes(tmp_path):
    flight = recorder(tmp_path, max_bytes=ByteSize(200_000))
    flight.begin(HEADER, frame(0), 0)
    most = 0
    for second in range(1, 300):
        at = second * SECOND
        flight.write([os.urandom(10_000)], at)
        most = max(most, flight.report()["bytes"])
        if flight.wants_key_frame(at):
            flight.begin(HEADER, frame(second), at)

    assert 100_000 < most < 250_000


def test_memory_is_bounded_by_time(tmp_path):
    flight = recorder(tmp_path, window=Duration(10))
    pass_time(flight, 0, 500)

    assert len(flight._kept) <= 7


def test_a_disk_that_refuses_is_counted_told_once_and_the_agent_goes_on(tmp_path, caplog):
    folder = tmp_path / "file"
    folder.write_text("no directory")
    flight = recorder(folder)
    pass_time(flight, 0, 5)
    for number in range(3):
        flight.export(event(number=number + 1))
        pass_time(flight, 70 * number + 5, 70 * number + 75)
    until(lambda: flight.failures == 3)
    flight.close()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    assert (flight.report()["files"], flight.report()["failures"]) == (0, 3)
    assert len(said) == 1
    assert "extensions.flight_recorder.directory" in said[0]
    assert "cannot be written" in flight.report()["problem"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="cannot be installed: /dev/full")
def test_a_disk_that_is_full_leaves_no_half_a_file(tmp_path, monkeypatch):
    def full(path, *_):
        path.touch()
        return os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr("pgsonar.recording.flight.os", SimpleNamespace(**vars(os) | {"open": full}))
    flight = recorder(tmp_path)
    pass_time(flight, 0, 5)
    flight.export(event())
    pass_time(flight, 5, 20)
    flight.close()
    until(lambda: flight.failures)

    assert "no space left" in flight.report()["problem"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_complete_when_the_agent_stops_meanwhile(tmp_path):
    flight = recorder(tmp_path)
    pass_time(flight, 0, 20)
    flight.export(event())
    pass_time(flight, 20, 22)
    flight.close()

    assert seconds(written(tmp_path)[0])[-1] == 21
    assert flight.report()["files"] == 1


def test_a_pipeline_writes_what_led_to_a_critical_episode_and_it_is_played(tmp_path):
    flight = recorder(tmp_path)
    there = Recorded(flight, leaks=LeaksProcessor())
    there.reporter._outlets["logs"].append(flight)
    there.run(0, 100)
    there.world.sightings = [BackendSighting(n, moment(90).at, title("SELECT", port=n), None, 0, n) for n in range(29)]
    there.run(100, 115)
    flight.close()
    (path,) = written(tmp_path)
    heard = list(play([str(path)], LeaksProcessor(), Telemetry(), lambda done, total: None))
    (row,) = [one for one in heard if isinstance(one, EventRow)]
    sent = there.told[0]

    assert sent.severity_text == "critical"
    assert (row.body, row.time_unix, row.severity_text) == (sent.body, sent.time_unix, sent.severity_text)
    assert isinstance(heard[-1], Played)
    assert heard[-1].still_open == 1
    assert (heard[-1].ended.at - row.time_unix + moment(0).unix - moment(0).at) / SECOND > 8
