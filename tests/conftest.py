"""The order of tests, and what is said of those that were left out.

The rule: every test holds beside every other, on a busy machine, and in any order. What sees the whole host counts only
what is its own there.
"""

import pytest

import needs


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """What waits most comes first, so that no worker is left with a long file in the end; the rest stays at random."""
    items.sort(key=lambda item: item.get_closest_marker("live") is None)


def pytest_unconfigure(config):
    """The last words, after pytest's own: what would bring those tests that were left out."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    reasons = [str(report.longrepr[-1]) for report in reporter.stats.get("skipped", [])]
    for line in needs.closing_lines(reasons):
        reporter.write_line(line)
