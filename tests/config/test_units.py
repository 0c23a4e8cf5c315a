"""Durations, percentages and sizes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsonar.config.units import ByteSize, Duration, Instant, Percent


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("1h30m", 5400), ("1.5s", 1.5), (".5m", 30), ("2us3ns", 2.003e-6), (0, 0)]
)
def test_durations_are_those_of_go(text, seconds):
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", 5, 1.5, True, None, "-1s", "1d", "1 s", "s", "1s!", "9" * 400 + "h"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="such as 100ms"):
        Duration.parse(text)


@given(st.integers(min_value=0, max_value=10 * 365 * 86400 * 10**3).map(lambda ms: Duration(ms / 1000)))
def test_a_duration_is_read_back_as_it_was_written(duration):
    assert Duration.parse(str(duration)) == pytest.approx(duration, rel=1e-12, abs=1e-9)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_refused(text):
    with suppress(ValueError):
        assert Duration.parse(text) >= 0


@given(st.integers(min_value=0, max_value=2**50))
def test_a_size_is_read_back_as_it_was_written(size):
    assert ByteSize.parse(str(ByteSize(size))) == size


@given(st.integers(min_value=0, max_value=1000))
def test_a_percentage_is_read_back_as_it_was_written(tenths):
    assert Percent.parse(str(Percent(tenths / 1000))) == pytest.approx(tenths / 1000)


@pytest.mark.parametrize(("text", "size"), [("256MiB", 2**28), ("1.5 kb", 1500), (7, 7), ("7", 7), ("0", 0)])
def test_sizes_are_decimal_or_binary(text, size):
    assert ByteSize.parse(text) == size


@pytest.mark.parametrize("text", ["", "-1", -1, "1 apple", True, None, 1.5])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="256MiB"):
        ByteSize.parse(text)


@pytest.mark.parametrize("text", ["2026-11-21T10:00:00Z", "2026-11-21T11:00:00+01:00", "2026-11-21 10:00:00Z"])
def test_an_instant_has_an_offset(text):
    assert Instant.parse(text) == 1_795_255_200 * 10**9
    assert str(Instant.parse(text)) == "2026-11-21T10:00:00Z"


@pytest.mark.parametrize("text", ["2026-11-21T10:00:00", "tomorrow", "", 5, None])
def test_what_is_no_instant_is_refused(text):
    with pytest.raises(ValueError, match="expected a time such as"):
        Instant.parse(text)
