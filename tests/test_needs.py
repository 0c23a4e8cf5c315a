"""What is said of tests that were left out."""

import re
from pathlib import Path

import pytest

import needs

HERE = Path(__file__).parent
REASONS = re.compile(r"""(?:pytest\.skip\(|skipif\([^"]*(?:"[^"]*"[^"]*)?reason=)\s*f?"([^"]*)""")


def test_the_last_line_says_what_parts_would_bring():
    with pytest.raises(pytest.skip.Exception) as left_out:
        needs.part("PgBouncer")
    reasons = [str(left_out.value)] * 40 + ["needs root, to mount a disk"] * 2 + ["cannot be installed: IPv6"]

    assert reasons[0] == "PgBouncer is not installed: sudo make parts"
    assert needs.closing_lines(reasons) == [
        "1 skipped that cannot run on this machine, as said above",
        "2 skipped that only root can run",
        "40 skipped for want of parts: sudo make parts brings them",
    ]
    assert needs.closing_lines([]) == []


def test_every_reason_says_how_to_have_what_is_missing():
    reasons = [reason for path in HERE.rglob("*.py") for reason in REASONS.findall(path.read_text())]

    assert len(reasons) > 10
    assert [reason for reason in reasons if not re.search("needs root|{ROOT}|{PARTS}|cannot be", reason)] == []
