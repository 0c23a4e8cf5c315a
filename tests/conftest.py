"""Tests side by side, those that nothing may run beside, and what is said of those that were left out.

The rule: workers of one run share a lock. A test marked `alone`, because it is exact about time or sees the whole host,
takes it for itself; all others share it. Whoever waits holds the turnstile meanwhile, so that nobody passes for ever.
"""

import contextlib
import fcntl
import os

import pytest

import needs


@contextlib.contextmanager
def locked(path, how):
    with path.open("w") as file:
        fcntl.flock(file, how)
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """What waits most comes first, so that no worker is left with a long file in the end; the rest stays at random."""
    items.sort(key=lambda item: item.get_closest_marker("live") is None)


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


def pytest_unconfigure(config):
    """The last words, after pytest's own: what would bring those tests that were left out."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    reasons = [str(report.longrepr[-1]) for report in reporter.stats.get("skipped", [])]
    for line in needs.closing_lines(reasons):
        reporter.write_line(line)
