"""Requests that are too large: all of it in smaller ones, each within its limit."""

import os
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsonar.config.presets import Size, Sizes
from pgsonar.exporters import splitting
from pgsonar.exporters.encoding import Encoder, halves, parse
from pgsonar.exporters.forms import Form
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow, MetricRow, Point, SpanRow, Spread

MOST = 2_000


def form(most=MOST, packed=None):
    size = Size(most, packed)
    return Form(sizes=Sizes(size, size, size))


def metrics(resources):
    """By resource: for each metric how many points it has, of which kind."""
    told = []
    for r, sizes in enumerate(resources):
        rows = []
        for m, (kind, points) in enumerate(sizes):
            value = Spread(2, 0.5) if kind == "histogram" else 7
            rows.append(
                MetricRow(
                    f"m{m}",
                    kind,
                    "1",
                    "A sentence.",
                    [Point({"n": f"{r}.{m}.{p}"}, value, 5, 9) for p in range(points)],
                )
            )
        told.append((Resource((("service.instance.id", f"r{r}"),)), rows))
    return Batch("metrics", told)


def flat(requests):
    """Every point with all that is around it."""
    points = []
    for message in map(parse, requests):
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    holder = getattr(metric, kind)
                    around = (
                        str(resource.resource),
                        resource.schema_url,
                        str(scope.scope),
                        (metric.name, metric.unit, metric.description, kind),
                        getattr(holder, "aggregation_temporality", None),
                        getattr(holder, "is_monotonic", None),
                    )
                    assert holder.data_points
                    points += [(*around, str(point)) for point in holder.data_points]
    return points


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["gauge", "counter", "updowncounter", "histogram"]), st.integers(0, 30)),
            max_size=4,
        ),
        max_size=4,
    ),
    st.integers(400, 6_000),
)
def test_all_of_it_arrives_in_order_within_the_limit(resources, most):
    batch = metrics(resources)

    whole, pieces = Encoder(Form()).encode(batch), Encoder(form(most)).encode(batch)

    assert flat(pieces) == flat(whole)
    assert all(len(piece.body) <= most for piece in pieces)
    assert [piece.items for piece in pieces] == [len(flat([piece])) for piece in pieces]
    for piece in pieces:
        if piece.items > 1:
            assert flat(halves(piece)) == flat([piece])


def test_requests_are_as_few_as_they_can_be():
    batch = metrics([[("gauge", 3_000)]])
    (whole,) = Encoder(Form()).encode(batch)
    pieces = Encoder(form(20_000)).encode(batch)

    assert len(pieces) <= 1.15 * len(whole.body) / 20_000 + 1


@pytest.mark.parametrize("signal", ["logs", "traces"])
def test_events_and_spans_keep_their_resource(signal):
    event = EventRow("pgsonar.leak.opened", 1, 9, "info", "a sentence", {"a": "x" * 100}, 1, 2)
    span = SpanRow("pgsonar.leak", 1, 2, 3, 4, {"a": "x" * 100}, error=True)
    row = event if signal == "logs" else span
    resources = [(Resource((("server.address", f"db-{n}"),)), [row] * 20) for n in range(3)]

    pieces = Encoder(form()).encode(Batch(signal, resources))

    told = []
    for message in map(parse, pieces):
        for resource in message.resource_logs if signal == "logs" else message.resource_spans:
            for scope in resource.scope_logs if signal == "logs" else resource.scope_spans:
                items = scope.log_records if signal == "logs" else scope.spans
                told += [(resource.resource.attributes[0].value.string_value, scope.scope.name)] * len(items)
    assert told == [(f"db-{n}", "pgsonar") for n in range(3) for _ in range(20)]
    assert len(pieces) > 3
    assert all(len(piece.body) <= MOST for piece in pieces)


def test_the_compressed_size_is_kept_to_also_where_pieces_are_packed_worse_than_the_whole():
    alike = EventRow("e", 1, 9, "info", "the same " * 200, {}, 1, 2)
    unlike = [alike._replace(body=os.urandom(900).hex()) for _ in range(100)]
    here = Resource((("server.address", "db-1"),))
    limited = Form(sizes=Sizes(logs=Size(10_000_000, 20_000)))

    pieces = Encoder(limited).encode(Batch("logs", [(here, [alike] * 2_000 + unlike)]))

    assert sum(piece.items for piece in pieces) == 2_100
    assert all(len(zlib.compress(piece.body, 1)) <= 20_000 for piece in pieces)


def test_an_item_that_is_too_large_is_sent_alone():
    event = EventRow("e", 1, 9, "info", "short", {}, 1, 2)
    rows = [event, event._replace(body="x" * 3 * MOST), event]

    pieces = Encoder(form()).encode(Batch("logs", [(Resource(()), rows)]))

    assert [(piece.items, len(piece.body) > MOST) for piece in pieces] == [(1, False), (1, True), (1, False)]
    assert halves(pieces[1]) is None


def test_each_item_is_copied_once(monkeypatch):
    copied = []
    enter = splitting._Around.enter

    def counted(around, piece, shells):
        copied.append(1)
        return enter(around, piece, shells)

    monkeypatch.setattr(splitting._Around, "enter", counted)

    assert len(Encoder(form()).encode(metrics([[("gauge", 200)] * 10]))) > 20
    assert len(copied) == 2_000
