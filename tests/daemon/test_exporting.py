"""Exporters that go and come back while the agent runs: nothing is sent twice, and no counter falls."""

import contextlib
import sqlite3
import threading
import time
from collections import Counter

import pytest

from otlp_servers import listening
from pgsonar.config.load import load
from pgsonar.daemon import exporting
from pgsonar.daemon.exporting import Exporting
from pgsonar.demo.receiver import Receiver
from pgsonar.exporters.durable import NAME
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow
from ports import free_port
from waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
EXPORTER = "otlp_http/x"


@pytest.fixture
def configured(tmp_path):
    """The configuration of an exporter of this port, or of none; beside it there is always another."""

    def read(port=None, more=""):
        ours = "" if port is None else f"  {EXPORTER}: {{endpoint: 'http://127.0.0.1:{port}'{more}}}\n"
        file = tmp_path / "c.yaml"
        file.write_text(f"exporters:\n  file: {{path: '{tmp_path}/out.jsonl'}}\n{ours}")
        return load([str(file)], [], {})

    return read


@pytest.fixture(params=[True, False], ids=["in a file", "in memory"])
def directory(request, tmp_path):
    return tmp_path if request.param else None


def events(exporter, texts):
    for text in texts:
        exporter.export(Batch("logs", [(Resource(()), [EventRow("e", 1, 9, "info", text, {}, 1, 1)])]))
    assert exporter.settle(10)


def change(exporter, config):
    exporter.apply(config, exporter.prepare(config))


def rows(directory):
    with contextlib.closing(sqlite3.connect(directory / NAME)) as database:
        return database.execute("select count(*) from request where exporter = ?", [EXPORTER]).fetchone()[0]


def test_one_that_comes_back_while_it_is_still_closing_sends_everything_once(configured, directory, caplog):
    arrived, texts = Counter(), [f"text-{number:03}" for number in range(40)]
    is_slow = threading.Event()

    def talk(connection):
        text = b""
        while piece := connection.recv(65536):
            text += piece
            if found := [name for name in texts if name.encode() in text]:
                arrived.update(found)
                text = b""
                is_slow.wait(0.02)
                connection.sendall(OK)

    with listening(talk) as port:
        config = configured(port, ", compression: none")
        running = Exporting(config, directory)
        events(running, texts)
        until(lambda: running.exporters[EXPORTER].stats.sent)
        for one in (configured(), config):
            change(running, one)
        stats = running.exporters[EXPORTER].stats
        assert stats.sent.total() > 0, "its counters began anew"
        until(lambda: not stats.queue_requests, 20)
        running.close(5)

    assert set(arrived) == set(texts)
    assert arrived.total() <= len(texts) + 1, "what was on its way as it came back may be sent again"
    assert (stats.sent.total(), stats.failed.total(), stats.dropped.total()) == (len(texts), 0, 0)
    assert "could not be read back" not in caplog.text


def test_what_waits_for_one_that_is_gone_for_good_is_dropped_counted_and_said(
    configured, directory, caplog, monkeypatch
):
    monkeypatch.setattr(exporting, "GONE_WITHIN", 0.3)
    nobody = free_port()
    with Receiver() as receiver:
        running = Exporting(configured(receiver.port), directory)
        events(running, "ab")
        until(lambda: running.exporters[EXPORTER].stats.sent.total() == 2)
    change(running, configured(nobody))
    events(running, "cde")
    gone = running.exporters[EXPORTER]
    change(running, configured())
    until(lambda: not running._gone)  # it is counted, then said, then gone
    assert gone.stats.dropped.total() == 3
    assert directory is None or rows(directory) == 0
    assert "exporter otlp_http/x: 3 items could not be sent before the end" in caplog.text
    assert "wait for the next start" not in caplog.text
    with Receiver() as receiver:
        change(running, configured(receiver.port))
        events(running, "f")
        stats = running.exporters[EXPORTER].stats
        until(lambda: stats.sent.total() == 3)
        assert [event["body"] for event in receiver.events] == ["f"]
    running.close(1)

    assert stats.dropped.total() == 3


def test_one_that_is_gone_sends_what_it_can(configured, directory):
    with Receiver() as receiver:
        running = Exporting(configured(receiver.port), directory)
        events(running, "abc")
        gone = running.exporters[EXPORTER]
        change(running, configured())
        until(lambda: not running._gone)
        running.close(1)

    assert (gone.stats.sent.total(), gone.stats.dropped.total()) == (3, 0)


def test_an_agent_that_stops_meanwhile_keeps_nothing_for_one_that_is_gone(configured, tmp_path, caplog):
    nobody = free_port()
    running = Exporting(configured(nobody), tmp_path)
    events(running, "ab")
    change(running, configured())
    running.close(1)

    assert rows(tmp_path) == 0
    assert "2 items could not be sent before the end" in caplog.text


@pytest.mark.parametrize("seconds", [0.5, 2])
def test_the_end_takes_no_longer_than_it_may(configured, tmp_path, seconds, monkeypatch):
    is_over = threading.Event()
    with listening(lambda _: is_over.wait(20)) as port:
        running = Exporting(configured(port), tmp_path)
        monkeypatch.setattr(running._outbox, "_encode", lambda _: is_over.wait(20))
        running.export(Batch("logs", []))
        begun = time.monotonic()
        running.close(seconds)
        took = time.monotonic() - begun
        is_over.set()

    assert took < seconds + 0.25
