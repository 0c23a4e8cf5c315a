"""What each profile carries of a busy host."""

import time
from collections import defaultdict

import pytest

from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import rules
from pgsonar.exporters.encoding import Encoder, parse
from pgsonar.exporters.forms import Form
from pgsonar.signals.catalog import METRICS
from vendors import flat_points, frozen
from workload import Host

EVERY_KIND = tuple(rule.kind for rule in rules(LeaksProcessor()).all)
PER_IDENTITY = {"client.address", "user.name", "db.namespace", "postgresql.application_name"}


@pytest.fixture(scope="module")
def crowded():
    """Two exports of a host where each of 200 clients is another user of another database, and all kinds leak."""
    return [b for b in Host(time.time_ns(), exports=2, clients=200, kinds=EVERY_KIND).batches if b.signal == "metrics"]


def told(batches, profile, temporality="cumulative"):
    """The points of the last batch in a profile."""
    encoder = Encoder(Form(temporality, profile))
    requests = [encoder.encode(batch) for batch in batches][-1]
    return [point for request in requests for point in flat_points(parse(request))]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_lean_is_at_most_forty_series_a_server_whoever_uses_it(crowded, temporality):
    series = defaultdict(set)
    for point in told(crowded, "lean", temporality):
        series[point.resource["service.instance.id"]].add((point.name, frozen(point.attributes)))

    assert len(series) == 5  # three servers, a pooler and the agent
    assert max(map(len, series.values())) <= 40
    assert max(map(len, series.values())) >= 35  # the host is as crowded as it can be
    standard = told(crowded, "standard")
    assert len(standard) > 10 * sum(map(len, series.values()))


def test_lean_has_no_histogram_and_names_no_client(crowded):
    points = told(crowded, "lean")

    assert [point.name for point in points if "histogram" in point.shape] == []
    assert [point.name for point in points if PER_IDENTITY & set(point.attributes)] == []


def test_the_sums_of_lean_are_those_of_standard(crowded):
    def sums(profile, temporality):
        total = defaultdict(int)
        for point in told(crowded, profile, temporality):
            if point.shape == "sum":
                total[point.resource["service.instance.id"], point.name] += point.value
        return total

    for temporality in ("cumulative", "delta"):
        lean, standard = sums("lean", temporality), sums("standard", temporality)
        # What others count is a sum from where it was first seen.
        known = {key: value for key, value in lean.items() if key[1] != "pgsonar.pool.waited"}
        assert known == pytest.approx({key: standard[key] for key in known})
        assert len(known) > 30


def test_only_sums_are_summed():
    assert [m.name for m in METRICS if m.folded and m.kind not in ("counter", "updowncounter")] == []
    assert [m.name for m in METRICS if m.lean is not None and not set(m.lean) <= set(m.attributes)] == []


def test_full_is_standard_and_what_dashboards_of_the_receiver_look_for(crowded):
    names = {profile: {point.name for point in told(crowded, profile)} for profile in ("standard", "full")}

    assert names["full"] - names["standard"] == {"postgresql.backends", "postgresql.connection.max"}
    assert names["standard"] < names["full"]
