"""Two ways of doing one job, measured in turn.

The rule: a ratio is taken within one run, round by round, so that what disturbs the one disturbs the other. It is the
median of the rounds' ratios, with its 95 % interval by order statistics; a goal is met when the interval touches it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

Work = Callable[[], object]


class Ratio(NamedTuple):
    """Cost of one thing over the cost of another."""

    median: float
    low: float
    high: float
    pairs: int
    left: float  # median CPU seconds of each
    right: float
    noise: float  # spread of the right side: half the distance of its quartiles over its median


def cpu_of(work: Work, times: int = 1) -> float:
    """CPU seconds of this thread for one call."""
    begun = time.thread_time_ns()
    for _ in range(times):
        work()
    return (time.thread_time_ns() - begun) / 1e9 / times


def cpu_of_command(command: list[str]) -> float:
    """CPU seconds of a program, to the nanosecond: read from its entry in /proc before it is collected."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with open(f"/proc/{process.pid}/schedstat", encoding="ascii") as file:
        spent = int(file.read().split()[0])
    assert process.wait() == 0, command
    return spent / 1e9


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of a median (binomial order statistics)."""
    ordered, n = sorted(values), len(values)
    reach = round(0.98 * n**0.5)
    return ordered[max(n // 2 - reach, 0)], ordered[min(n // 2 + reach, n - 1)]


def compare(left: Callable[[], float], right: Callable[[], float], pairs: int = 31) -> Ratio:
    """`left` and `right` each do their work once and return its cost."""
    lefts, rights = [], []
    left(), right()  # caches, tables and order are as they will be
    for number in range(pairs):
        if number % 2:
            lefts.append(left())
            rights.append(right())
        else:
            rights.append(right())
            lefts.append(left())
    ratios = [a / b for a, b in zip(lefts, rights, strict=True)]
    low, high = interval(ratios)
    quartiles = statistics.quantiles(rights, n=4)
    middle = statistics.median(rights)
    noise = (quartiles[2] - quartiles[0]) / 2 / middle
    return Ratio(statistics.median(ratios), low, high, pairs, statistics.median(lefts), middle, noise)
