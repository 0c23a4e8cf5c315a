"""What a test needs of the machine: it is left out where that is missing, for a reason that says how to have it.

The rule: a reason names either a part that `make parts` brings, or root, or it says that this `cannot be installed`.
How many were left out for which of them is told after the run; see conftest.
"""

import functools
import os
import shutil
import subprocess
import sys

import pytest

import own_network

PARTS, ROOT = "sudo make parts", "needs root"


def part(name):
    """Leaves the test out for want of a part."""
    pytest.skip(f"{name} is not installed: {PARTS}")


def programs(*names):
    """All of them."""
    for name in names:
        if not shutil.which(name):
            part(name)


def either(*names):
    """The path of the first that is here."""
    for name in names:
        if path := shutil.which(name):
            return path
    return part(names[0])


def root(why):
    if os.geteuid():
        pytest.skip(f"{ROOT}, {why}")


def namespaces():
    """Root, and a kernel that lets it have network namespaces: a container's root may not."""
    root("for a network namespace of its own")
    if _are_refused():
        pytest.skip("cannot be installed: the right to create network namespaces")


@functools.cache
def _are_refused():
    return subprocess.run([sys.executable, own_network.__file__, "true"], capture_output=True, check=False).returncode


def closing_lines(reasons):
    """How many tests were left out for which reason, what can be helped last."""
    for_parts = sum(PARTS in reason for reason in reasons)
    for_root = sum(ROOT in reason for reason in reasons)
    told = {
        "that cannot run on this machine, as said above": len(reasons) - for_parts - for_root,
        "that only root can run": for_root,
        f"for want of parts: {PARTS} brings them": for_parts,
    }
    return [f"{number} skipped {why}" for why, number in told.items() if number]
