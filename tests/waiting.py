"""Waiting for what other threads and processes do."""

import time


def until(look, seconds=5.0):
    """Returns once `look` is true; fails when that takes longer."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
