"""Finds tests that depend on luck: `python tests/flaky.py N ARGUMENTS...` runs pytest N times and tells what failed.

The rule: every run has an order of its own, told by its seed, and the second half runs beside two busy processes. What
failed is told with its seeds, and each run's whole output stays in build/flaky.
"""

import contextlib
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "build" / "flaky"
BUSY = [sys.executable, "-c", "while True: pass"]


@contextlib.contextmanager
def busy():
    processes = [subprocess.Popen(BUSY) for _ in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(seed, arguments):
    """The exit code of pytest, and the tests that failed."""
    report, output = FOLDER / f"{seed}.xml", FOLDER / f"{seed}.log"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"--randomly-seed={seed}", f"--junitxml={report}", *arguments]
    with output.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    if not report.exists():
        return code, [f"pytest itself, see {output}"]
    cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - our own
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return code, [f"{case.get('classname')}::{case.get('name')}" for case in failed]


def main():
    count, arguments = int(sys.argv[1]), sys.argv[2:]
    FOLDER.mkdir(parents=True, exist_ok=True)
    first = int(time.time())
    failures = defaultdict(list)
    for number in range(count):
        seed, is_busy = first + number, number >= count / 2
        begun = time.monotonic()
        with busy() if is_busy else contextlib.nullcontext():
            code, failed = run(seed, arguments)
        for test in failed or (["pytest itself"] if code else []):
            failures[test].append(seed)
        beside = ", beside two busy processes" if is_busy else ""
        told = f"{len(failed)} failed" if failed else f"exit code {code}" if code else "passed"
        print(f"run {number + 1} of {count}, seed {seed}{beside}, {time.monotonic() - begun:.0f} s: {told}", flush=True)
        for test in failed:
            print(f"  {test}", flush=True)
    for test, seeds in sorted(failures.items(), key=lambda item: -len(item[1])):
        print(f"{len(seeds)} of {count} failed: {test}, with the seeds {', '.join(map(str, seeds))}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
