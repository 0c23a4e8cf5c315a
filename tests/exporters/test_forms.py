"""One batch in several forms: what has grown adds up to what was counted, and a profile's sums are sums."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsonar.exporters import encoding
from pgsonar.exporters.deltas import FORGET_AFTER, Deltas
from pgsonar.exporters.encoding import Encoder, parse
from pgsonar.exporters.forms import Form
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, Exemplar, MetricRow, Point, Spread

START = 1_000
CUMULATIVE, DELTA, LEAN, LEAN_DELTA = (
    Form(),
    Form("delta"),
    Form(profile="lean"),
    Form("delta", "lean"),
)


def of(instance, **changes):
    return Resource((("service.instance.id", instance), *changes.items()))


def counter(values, time, *, start=START, name="c", kind="counter", folded=("client",)):
    points = [Point({"client": client}, value, start, time) for client, value in values.items()]
    return MetricRow(name, kind, "1", "", points, folded)


def batch(*rows, resource=None):
    return Batch("metrics", [(resource or of("a"), list(rows))])


def told(requests):
    """(name, client): (value, start, time, temporality) of every point."""
    points = {}
    for request in requests:
        for of_resource in parse(request).resource_metrics:
            for metric in (metric for scope in of_resource.scope_metrics for metric in scope.metrics):
                holder = getattr(metric, metric.WhichOneof("data"))
                for point in holder.data_points:
                    client = next((a.value.string_value for a in point.attributes if a.key == "client"), None)
                    value = point.as_int if hasattr(point, "as_int") else (point.count, point.sum)
                    temporality = getattr(holder, "aggregation_temporality", None)
                    assert (metric.name, client) not in points
                    points[metric.name, client] = (
                        value,
                        point.start_time_unix_nano,
                        point.time_unix_nano,
                        temporality,
                    )
    return points


def value_of(encoder, row, client="x"):
    return told(encoder.encode(batch(row))).get((row.name, client), (None,))[0]


# A step of a series: it grows by so much, begins anew with so much, or is away.
STEP = st.one_of(
    st.tuples(st.just("grows"), st.integers(0, 1000)),
    st.tuples(st.just("anew"), st.integers(0, 1000)),
    st.tuples(st.just("away"), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys("xyz", STEP)), min_size=1, max_size=25))
def test_what_a_series_has_grown_by_adds_up_to_what_it_has_counted(steps):
    encoders = {form: Encoder(form) for form in (CUMULATIVE, DELTA, LEAN, LEAN_DELTA)}
    value, began, ever = Counter(), dict.fromkeys("xyz", START), Counter()
    received, ends = defaultdict(int), {}
    for number, step in enumerate(steps):
        now = START + 10 * (number + 1)
        here = {}
        for client, (what, by) in step.items():
            if what == "anew":
                value[client], began[client] = by, now - 5
            elif what == "grows":
                value[client] += by
            if what != "away":
                ever[client] += by
                here[client] = value[client]
        points = [Point({"client": c}, v, began[c], now) for c, v in here.items()]
        rows = batch(MetricRow("c", "counter", "1", "", points, ("client",)))
        answers = {form: told(encoder.encode(rows)) for form, encoder in encoders.items()}

        assert {client: point[0] for (_, client), point in answers[CUMULATIVE].items()} == here
        for (_, client), (grown, start, end, temporality) in answers[DELTA].items():
            received[client] += grown
            assert (temporality, end) == (1, now)
            assert ends.get(client, 0) <= start <= end  # the times of a series' points do not overlap
            ends[client] = end
        assert {client: received[client] for client in here} == {client: ever[client] for client in here}
        for grown, start, end, _ in answers[LEAN_DELTA].values():
            received["in all"] += grown
            assert ends.get("in all", 0) <= start <= end
            ends["in all"] = end
        assert received["in all"] == sum(ever.values())
        for total, _, _, temporality in answers[LEAN].values():
            assert (total, temporality) == (sum(ever.values()), 2)
        assert set(answers[LEAN]) == set(answers[LEAN_DELTA]) == ({("c", None)} if here else set())


def test_a_value_that_falls_began_anew():
    encoder = Encoder(DELTA)
    values = [told(encoder.encode(batch(counter({"x": v}, t))))["c", "x"][:2] for v, t in ((7, 2000), (3, 3000))]

    assert values == [(7, START), (3, 2000)]


def test_what_others_counted_before_is_not_told_as_growth():
    encoder = Encoder(DELTA)

    assert encoder.encode(batch(counter({"x": 1_000_000}, 2000, start=0))) == []
    assert told(encoder.encode(batch(counter({"x": 1_000_007}, 3000, start=0))))["c", "x"][:2] == (7, 2000)
    assert told(encoder.encode(batch(counter({"x": 2}, 4000, start=0))))["c", "x"][:2] == (2, 3000)


def test_only_what_counts_becomes_delta():
    waits = MetricRow("h", "histogram", "s", "", [Point({"client": "x"}, Spread(4, 2.0), START, 2000)])
    later = waits._replace(points=[Point({"client": "x"}, Spread(7, 3.5), START, 3000)])
    others = [counter({"x": 5}, 2000, name=kind, kind=kind) for kind in ("updowncounter", "gauge")]

    kinds = {}
    for temporality in ("cumulative", "delta", "lowmemory"):
        encoder = Encoder(Form(temporality))
        encoder.encode(batch(waits, counter({"x": 1}, 2000), *others))
        points = told(encoder.encode(batch(later, counter({"x": 3}, 3000), *others)))
        kinds[temporality] = {name: (point[0], point[3]) for (name, _), point in points.items()}

    same = {"updowncounter": (5, 2), "gauge": (5, None)}
    assert kinds == {
        "cumulative": {"h": ((7, 3.5), 2), "c": (3, 2), **same},
        "delta": {"h": ((3, 1.5), 1), "c": (2, 1), **same},
        "lowmemory": {"h": ((3, 1.5), 1), "c": (3, 2), **same},
    }


def test_a_server_that_becomes_the_primary_counts_on():
    encoder = Encoder(DELTA)
    encoder.encode(batch(counter({"x": 10}, 2000), resource=of("a", role="standby")))
    encoder.encode(batch(counter({"x": 100}, 2000), resource=of("b")))

    requests = encoder.encode(batch(counter({"x": 13}, 3000), resource=of("a", role="primary")))

    assert told(requests)["c", "x"][0] == 3


def test_what_could_not_be_encoded_is_told_the_next_time(monkeypatch):
    encoder = Encoder(DELTA)
    encoder.encode(batch(counter({"x": 1}, 2000)))
    with monkeypatch.context() as broken:
        broken.setattr(encoding, "encode_metrics", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encoder.encode(batch(counter({"x": 5}, 3000)))

    assert told(encoder.encode(batch(counter({"x": 6}, 4000))))["c", "x"][:2] == (5, 2000)


def test_a_series_that_stays_away_is_forgotten():
    deltas = Deltas()
    for number in range(3 * FORGET_AFTER + 1):
        deltas.of(of("a"), counter({f"client {number}": 1, "x": number}, 2000 + number))
        deltas.commit()

    assert FORGET_AFTER < len(deltas) < 1.5 * FORGET_AFTER
    (point,) = deltas.of(of("a"), counter({"x": 3 * FORGET_AFTER + 1}, 9000))
    assert point.value == 1


def test_a_lean_form_leaves_out_what_has_no_place_and_sums_the_rest():
    exemplars = [(Exemplar(1, 1, 2, number),) for number in range(2)]
    rows = [
        MetricRow("no place", "gauge", "1", "", [Point({}, 1, START, 2000)]),
        MetricRow("share", "gauge", "1", "", [Point({}, 0.5, START, 2000)], ()),
        MetricRow(
            "held",
            "updowncounter",
            "1",
            "",
            [Point({"client": c, "of": "s"}, 2, START, 2000) for c in "xy"],
            ("client",),
        ),
        MetricRow(
            "c",
            "counter",
            "1",
            "",
            [Point({"client": c}, 3, START, 2000, e) for c, e in zip("xy", exemplars, strict=True)],
            ("client",),
        ),
    ]
    (request,) = Encoder(LEAN).encode(batch(*rows))
    metrics = {m.name: m for m in parse(request).resource_metrics[0].scope_metrics[0].metrics}

    assert set(metrics) == {"share", "held", "c"}
    assert [point.as_int for point in metrics["held"].sum.data_points] == [4]
    assert [a.key for a in metrics["held"].sum.data_points[0].attributes] == ["of"]
    (point,) = metrics["c"].sum.data_points
    assert (point.as_int, len(point.exemplars)) == (6, 2)


def test_only_the_full_profile_has_what_is_for_others_dashboards():
    row = counter({"x": 1}, 2000)._replace(only_full=True, folded=None)

    told_by = {profile: Encoder(Form(profile=profile)).encode(batch(row)) for profile in ("lean", "standard", "full")}

    assert [profile for profile, requests in told_by.items() if requests] == ["full"]


def test_points_repeat_what_would_be_lost_of_their_resource_and_keep_their_own():
    encoder = Encoder(Form(on_points=("host.name", "client")))
    resource = of("a", **{"host.name": "h1", "client": "of the resource", "other": "o"})
    (request,) = encoder.encode(batch(counter({"x": 1}, 2000), resource=resource))
    (point,) = parse(request).resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points

    assert {a.key: a.value.string_value for a in point.attributes} == {"host.name": "h1", "client": "x"}


def test_encoding_leaves_the_rows_as_they_are_for_the_next_form():
    row = counter({"x": 4, "y": 5}, 2000)
    before = [point._replace(attributes=dict(point.attributes)) for point in row.points]
    for form in (LEAN_DELTA, Form("delta", on_points=("service.instance.id",)), LEAN, CUMULATIVE):
        Encoder(form).encode(batch(row))

    assert row.points == before
