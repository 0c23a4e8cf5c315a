"""What is missing is told once in the log, and each time in the metric."""

import os
import time
from pathlib import Path

from pgsonar.daemon.own import OwnAccount
from pgsonar.exporters.sender import ExporterStats
from pgsonar.model import Lack

BLIND = Lack("capability", "CAP_SYS_PTRACE", "descriptors may not be looked into", "db:5432")


def test_what_is_missing_is_logged_once_for_each_subject(caplog):
    lacks = [BLIND]
    account = OwnAccount("abc", dict, lambda: lacks)
    account.read()
    lacks = [BLIND._replace(sentence="the same in other numbers"), BLIND._replace(subject="db:5433")]
    reading = account.read()

    assert reading.lacks == lacks
    assert [record.getMessage() for record in caplog.records] == [
        "seeing less: db:5432: descriptors may not be looked into",
        "seeing less: db:5433: descriptors may not be looked into",
    ]


def test_what_was_mended_and_is_missing_again_is_logged_again(caplog):
    found = iter([[BLIND], [], [BLIND]])
    account = OwnAccount("abc", dict, lambda: next(found))
    for _ in range(3):
        account.read()

    assert len(caplog.records) == 2


def test_logins_and_exporters_have_logged_it_themselves(caplog):
    OwnAccount("abc", dict, lambda: [Lack("login", "receivers.postgresql", "refused")]).read()

    assert not caplog.records


def test_an_exporter_that_fails_is_missing_and_what_it_did_is_told():
    stats = ExporterStats(retries=3, queue_capacity=7, failing_since=time.monotonic() - 61, last_error="HTTP 503")
    stats.sent["logs"] = 5
    reading = OwnAccount("abc", lambda: {"otlp_http/x": stats}, list).read()

    (lack,), (exporter,) = reading.lacks, reading.exporters
    assert (lack.part, lack.name) == ("exporter", "otlp_http/x")
    assert lack.text == "exporter otlp_http/x has failed for 61 s: HTTP 503"
    assert (exporter.name, exporter.sent, exporter.retries, exporter.queue_capacity) == (
        "otlp_http/x",
        {"logs": 5},
        3,
        7,
    )


def test_the_process_is_read_from_the_kernel():
    reading = OwnAccount("abc", dict, list).read()
    status = Path("/proc/self/status").read_text().splitlines()
    resident = next(line for line in status if line.startswith("VmRSS:"))

    assert abs(reading.memory - int(resident.split()[1]) * 1024) < 10 << 20
    assert 0 < reading.cpu <= sum(os.times()[:2]) + 1
    assert reading.config_hash == "abc"
