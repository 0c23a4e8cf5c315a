"""Files of a recording: bounded, rotated, never written over what is no recording, played together and apart."""

import os
import random
from types import SimpleNamespace

import pytest

from pgsonar.config.schema import LeakKind, LeaksProcessor, Telemetry
from pgsonar.config.units import Duration
from pgsonar.errors import RecordingError
from pgsonar.model import SECOND, Moment
from pgsonar.recording.replaying import Played, play
from pgsonar.recording.rotation import RotatingFiles
from pgsonar.signals.rows import EventRow
from pgsonar.sources.entries import KeyFrame, Stage, Tick, encode
from pgsonar.sources.recording import Header, Recording
from recorded import Recorded, leave_open, moment

SOON = LeaksProcessor(idle_in_transaction=LeakKind(after=Duration(2)))
HEADER = Header(version="1", host="h", started_unix=1, id="ab")


def files(path, most=1 << 20, number=4):
    return RotatingFiles(str(path), most, number, lambda: None)


def tick(at):
    return encode(Tick(Stage.SLOW, Moment(at, at)))


def frame(at):
    return encode(KeyFrame(Moment(at, at), [], [], []))


def fill(sink, ticks, size=1000):
    """Ticks of a second each, with what cannot be compressed."""
    chance = random.Random(1)
    sink.begin(HEADER, frame(0), 0)
    for number in range(ticks):
        noise = [encode(Tick(Stage.SLOW, Moment(chance.getrandbits(62), 0))) for _ in range(size // 14)]
        sink.write([*noise, tick(number)], number * SECOND)
        if sink.wants_key_frame(number * SECOND):
            sink.begin(HEADER, frame(number), number * SECOND)
    sink.close()


def events(paths, leaks=SOON):
    return list(play(list(map(str, paths)), leaks, Telemetry(), lambda done, total: None))


def test_all_files_together_stay_below_what_is_allowed(tmp_path):
    path = tmp_path / "r"
    sink = files(path, 100_000, 3)
    fill(sink, 400)
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}

    assert sink.written > 250_000
    assert sizes.keys() == {"r", "r.1", "r.2"}
    assert sum(sizes.values()) < 105_000
    assert [Recording(str(path) + end).header.part for end in ("", ".1", ".2")] == sorted(
        (Recording(str(file)).header.part for file in tmp_path.iterdir()), reverse=True
    )


def test_a_file_is_for_its_owner_alone(tmp_path):
    fill(files(tmp_path / "r"), 2)

    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600


def test_an_older_recording_of_the_name_is_kept_as_the_one_before(tmp_path):
    path = tmp_path / "r"
    fill(files(path), 2)
    before = path.read_bytes()
    fill(files(path), 5)

    assert (tmp_path / "r.1").read_bytes() == before
    assert path.read_bytes() != before


@pytest.mark.parametrize("name", ["r", "r.1"])
def test_what_is_no_recording_is_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("precious")

    with pytest.raises(RecordingError, match="is no recording"):
        files(tmp_path / "r")
    assert (tmp_path / name).read_text() == "precious"


def test_what_is_read_is_on_the_disk_a_second_later(tmp_path):
    sink = files(tmp_path / "r")
    sink.begin(HEADER, frame(0), 0)
    for number in range(10):
        sink.write([tick(number)], number * SECOND // 2)

    read = list(Recording(str(tmp_path / "r")).entries())
    sink.close()
    assert len(read) > 8


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="cannot be installed: /dev/full")
def test_a_full_disk_ends_the_recording_and_is_told(tmp_path, monkeypatch):
    told = []
    sink = RotatingFiles(str(tmp_path / "r"), 1 << 20, 2, lambda: told.append(1))
    full = SimpleNamespace(**vars(os) | {"open": lambda *_: os.open("/dev/full", os.O_WRONLY)})
    monkeypatch.setattr("pgsonar.recording.rotation.os", full)
    fill(sink, 3)

    assert told == [1]
    assert str(sink.error).endswith("no space left on device")
    assert sink.error.hint


def test_a_directory_that_is_missing_is_told(tmp_path):
    sink = files(tmp_path / "missing" / "r")
    fill(sink, 3)

    assert "no such file" in str(sink.error)


def recorded_in(path, *, most):
    there = Recorded(files(path, most, 4), leaks=SOON)
    leave_open(there.world)
    there.run(0, 120)
    there.pipeline.stop(moment(120))
    there.recorder._sink.close()
    return there


def test_parts_of_one_recording_are_played_as_one(tmp_path):
    there = recorded_in(tmp_path / "r", most=9000)
    paths = sorted(tmp_path.iterdir())
    heard = events(paths)
    rows = [row for row in heard if isinstance(row, EventRow)]

    assert len(paths) > 1
    assert [row.event_name for row in rows] == [row.event_name for row in there.told]
    assert events(reversed(paths)) == heard
    assert sum(isinstance(one, Played) for one in heard) == 1


def test_the_newest_part_alone_knows_how_old_things_are(tmp_path):
    there = recorded_in(tmp_path / "r", most=9000)
    (opened,) = [row for row in events([tmp_path / "r"]) if isinstance(row, EventRow) and "opened" in row.event_name]

    assert opened.attributes["pgsonar.leak.onset"] == there.told[0].attributes["pgsonar.leak.onset"]


def test_behind_a_part_that_is_missing_or_damaged_playing_begins_anew(tmp_path):
    recorded_in(tmp_path / "r", most=9000)
    first, second, *rest = sorted(tmp_path.iterdir(), key=lambda path: Recording(str(path)).header.part)
    text = first.read_bytes()
    first.write_bytes(text[:-3])
    heard = events([first, second, *rest])
    apart = events([first, *rest])

    assert [one.damage is not None for one in heard if isinstance(one, Played)] == [True, False]
    assert sum(isinstance(one, Played) for one in apart) == 2
