"""Tests side by side, and those that nothing may run beside.

The rule: workers of one run share a lock. A test marked `alone`, because it is exact about time or sees the whole host,
takes it for itself; all others share it. Whoever waits holds the turnstile meanwhile, so that nobody passes for ever.
"""

import contextlib
import fcntl
import os

import pytest


@contextlib.contextmanager
def locked(path, how):
    with path.open("w") as file:
        fcntl.flock(file, how)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    folder = item.config.rootpath / "build"
    folder.mkdir(exist_ok=True)
    how = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with contextlib.ExitStack() as stack:
        with locked(folder / "tests.turnstile", fcntl.LOCK_EX):
            stack.enter_context(locked(folder / "tests.door", how))
        return (yield)
