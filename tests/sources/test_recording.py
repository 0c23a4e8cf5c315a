"""Recordings as files: what was written is read, and damage takes nothing but what stands behind it."""

import dataclasses
import enum
import struct
import types
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsonar.errors import RecordingError
from pgsonar.model import Moment
from pgsonar.sources import entries
from pgsonar.sources.entries import Entry, KeyFrame, Stage, Tick, decode, encode, joined
from pgsonar.sources.recording import MAGIC, Header, Recording, Segment, header_bytes

HEADER = Header(version="0.1.0", host="h", started_unix=7, id="ab")
PLAIN = {
    int: st.integers(0, 2**63),
    str: st.text(max_size=8),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    types.NoneType: st.none(),
}


def any_of(hint):
    """Values of a type as the recording has them."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin = typing.get_origin(hint)
    if origin is not None:
        return any_collection(origin, [one if one is Ellipsis else any_of(one) for one in typing.get_args(hint)])
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    assert dataclasses.is_dataclass(hint) or issubclass(hint, tuple | msgspec.Struct)
    return st.builds(hint, **{name: any_of(inner) for name, inner in typing.get_type_hints(hint).items()})


def any_collection(origin, parts):
    if origin in (typing.Union, types.UnionType):
        return st.one_of(parts)
    if origin is tuple and parts[-1] is not Ellipsis:
        return st.tuples(*parts)
    if origin is dict:
        return st.dictionaries(*parts, max_size=2)
    return (st.frozensets if origin is frozenset else st.lists)(parts[0], max_size=2).map(origin)


@pytest.mark.parametrize("kind", typing.get_args(Entry), ids=lambda kind: kind.__name__)
def test_every_entry_comes_back_as_it_was(kind):
    strategy = any_of(kind)

    @settings(max_examples=25, deadline=None)
    @given(strategy)
    def comes_back(entry):
        assert decode(joined([encode(entry)])) == [entry]

    comes_back()


def tick(at):
    return Tick(Stage.SLOW, Moment(at, at))


def write(path, ticks, *, header=HEADER):
    """A file of one block a tick; where each block ends."""
    text, segment = header_bytes(header), Segment()
    ends = [len(text)]
    for one in ticks:
        text += segment.add([encode(one)]) or segment.flush()
        ends.append(len(text))
    path.write_bytes(text)
    return ends


def read(path):
    recording = Recording(str(path))
    return list(recording.entries()), recording


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "r"
    ticks = [tick(n) for n in range(50)]
    write(path, ticks)
    found, recording = read(path)

    assert (found, recording.header, recording.damage) == (ticks, HEADER, None)
    assert recording.position == recording.size


def test_segments_are_read_one_after_the_other(tmp_path):
    path = tmp_path / "r"
    one, other = Segment(), Segment()
    one.add([encode(tick(1))])
    other.add([encode(tick(2))])
    path.write_bytes(header_bytes(HEADER) + one.flush() + other.flush())

    assert read(path)[0] == [tick(1), tick(2)]


def test_a_file_that_is_cut_anywhere_is_read_up_to_its_last_whole_block(tmp_path):
    path = tmp_path / "r"
    ticks = [tick(n) for n in range(5)]
    ends = write(path, ticks)
    text = path.read_bytes()
    for length in range(ends[0], len(text)):
        path.write_bytes(text[:length])
        found, recording = read(path)
        whole = sum(length >= end for end in ends[1:])
        assert found == ticks[:whole]
        assert (recording.damage is None) == (length in ends)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_byte_that_is_wrong_never_makes_an_entry_that_was_not_written(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("r") / "r"
    ticks = [tick(n) for n in range(5)]
    ends = write(path, ticks)
    text = bytearray(path.read_bytes())
    place = data.draw(st.integers(ends[0], len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(text)
    found, recording = read(path)

    assert recording.damage is not None
    assert found == ticks[: len(found)]


def test_a_newer_format_is_refused_with_a_hint(tmp_path):
    path = tmp_path / "r"
    write(path, [tick(1)])
    text = bytearray(path.read_bytes())
    text[len(MAGIC) : len(MAGIC) + 2] = struct.pack("<H", 999)
    path.write_bytes(text)

    with pytest.raises(RecordingError, match="has format 999") as caught:
        Recording(str(path))
    assert caught.value.exit_code == 2
    assert "newer one" in caught.value.hint


@pytest.mark.parametrize("text", [b"", b"hello", MAGIC, MAGIC + b"\1\0\4\0\0\0\0\0\0\0abcd", MAGIC + b"\1\0\xff"])
def test_what_is_no_recording_is_refused(tmp_path, text):
    path = tmp_path / "r"
    path.write_bytes(text)

    with pytest.raises(RecordingError):
        Recording(str(path))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RecordingError, match="no such file"):
        Recording(str(tmp_path / "r"))


def test_an_entry_that_this_version_does_not_know_is_told_as_such(tmp_path):
    path, segment = tmp_path / "r", Segment()
    segment.add([encode(tick(1))])
    block = segment.flush()
    segment.add([msgspec.msgpack.encode([99, "?"])])
    path.write_bytes(header_bytes(HEADER) + block + segment.flush())
    found, recording = read(path)

    assert found == [tick(1)]
    assert "pgsonar 0.1.0 wrote what this one cannot read" in recording.damage


def test_a_key_frame_holds_what_answers_tell():
    frame = KeyFrame(Moment(1, 2), [entries.Servers([])], [], [])

    assert decode(joined([encode(frame)])) == [frame]
