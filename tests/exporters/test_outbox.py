"""Between the pipeline and the queues: nobody waits, and what is told of leaks is never given up for want of time."""

import threading

import pytest

from pgsonar.config.schema import DebugExporter
from pgsonar.exporters import Outbox, build, form_of, outbox, way_of
from pgsonar.exporters.encoding import Encoder
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow, MetricRow, Point

HERE = Resource((("server.address", "db-1"),))


def event(number):
    return Batch("logs", [(HERE, [EventRow("pgsonar.leak.opened", 1, 17, "high", str(number), {}, 1, 1)])])


def metrics(number):
    return Batch("metrics", [(HERE, [MetricRow("m", "gauge", "1", "", [Point({}, number, 1, 2)])])])


@pytest.fixture
def slow(monkeypatch):
    """An encoder that waits to be let go."""
    go, whole = threading.Event(), Encoder.encode

    def encode(self, batch):
        go.wait(10)
        return whole(self, batch)

    monkeypatch.setattr(Encoder, "encode", encode)
    return go


@pytest.fixture
def exporter():
    running = build("debug", way_of("debug", DebugExporter()))
    yield running
    running.close(5)


def made(exporter):
    form = form_of(DebugExporter())
    return Outbox({signal: [(exporter, form)] for signal in ("metrics", "logs", "traces")})


def test_behind_a_slow_encoder_metrics_are_given_up_and_counted_and_events_are_not(slow, exporter, capsys):
    box = made(exporter)
    for number in range(2 * outbox.MOST):
        box.export(event(number))
        box.export(metrics(number))
    slow.set()

    assert box.settle(10)
    box.close(5)
    exporter.close(5)
    assert exporter.stats.sent["logs"] == 2 * outbox.MOST
    assert exporter.stats.failed["metrics"] > 0
    assert exporter.stats.sent["metrics"] + exporter.stats.failed["metrics"] == 2 * outbox.MOST


def test_it_is_settled_when_what_was_handed_over_is_in_the_queues(slow, exporter, capsys):
    box = made(exporter)
    box.export(event(1))
    before = box.settle(0.05)
    slow.set()

    assert not before
    assert box.settle(10)
    box.close(5)


def test_a_batch_that_cannot_be_encoded_is_counted_and_the_next_goes_on(monkeypatch, exporter, capsys, caplog):
    whole = Encoder.encode

    def encode(self, batch):
        if batch.signal == "metrics":
            raise ValueError("no such number")
        return whole(self, batch)

    monkeypatch.setattr(Encoder, "encode", encode)
    box = made(exporter)
    box.export(metrics(1))
    box.export(event(1))
    assert box.settle(10)
    box.close(5)
    exporter.close(5)

    assert (exporter.stats.failed, exporter.stats.sent) == ({"metrics": 1}, {"logs": 1})
    assert "could not be encoded" in caplog.text
