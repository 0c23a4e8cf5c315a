"""Each vendor's documented rules, with its preset and without it."""

import time

import pytest

from pgsonar.config.load import load
from pgsonar.config.presets import PRESETS
from pgsonar.daemon.exporting import Exporting
from vendors import VENDORS
from workload import Host

KEYS = {
    "datadog": "dd-api-key: k",
    "honeycomb": "x-honeycomb-team: k",
    "grafana_cloud": "Authorization: Basic aTp0",
    "new_relic": "api-key: k",
    "dynatrace": "Authorization: Api-Token k",
    "prometheus": "",
    "elastic": "Authorization: ApiKey k",
}
PIPELINES = "".join(
    f"    {signal}: {{receivers: [sockets], processors: [leaks], exporters: [otlp_http]}}\n"
    for signal in ("metrics", "logs", "traces")
)
EVERYTHING = f"service:\n  pipelines:\n{PIPELINES}"


@pytest.fixture
def sent(tmp_path):
    """Sends what a host tells as an exporter is configured; gives the exporter's counts."""

    def send(settings, batches, rest=""):
        file = tmp_path / "c.yaml"
        file.write_text(f"exporters:\n  otlp_http: {{{settings}}}\n{rest}")
        config = load([str(file)], [], {})
        exporting = Exporting(config, None)
        for batch in batches:
            exporting.export(batch)
        assert exporting.settle(60)
        exporting.close(20)
        return exporting.exporters["otlp_http"].stats

    return send


@pytest.mark.parametrize("name", PRESETS)
def test_with_its_preset_a_vendor_takes_all_of_it(name, sent):
    host = Host(time.time_ns())
    with VENDORS[name]() as vendor:
        stats = sent(f"preset: {name}, endpoint: '{vendor.host}', headers: {{{KEYS[name]}}}", host.batches)

    assert vendor.complaints == []
    assert (stats.failed, stats.dropped) == ({}, {})
    assert vendor.accepted == {signal: stats.sent[signal] for signal in vendor.accepted}
    taken = {signal for signal, items in vendor.accepted.items() if items}
    assert taken == set(PRESETS[name].unasked)


def test_datadog_gets_spans_when_a_pipeline_says_so(sent):
    host = Host(time.time_ns())
    with VENDORS["datadog"]() as vendor:
        sent(f"preset: datadog, endpoint: '{vendor.host}', headers: {{dd-api-key: k}}", host.batches, EVERYTHING)

    assert vendor.complaints == []
    assert vendor.accepted["traces"] == 1


# What somebody writes who does not know the vendor, and what then goes wrong.
NAIVE = [
    ("datadog", "", "400 only delta metrics"),
    ("datadog", "temporality: delta", "overwritten: pgsonar.slot.used"),
    ("datadog", "headers: {}", "403 dd-api-key"),
    ("honeycomb", "", "unknown_metrics"),
    ("honeycomb", "headers: {}", "401 x-honeycomb-team"),
    ("grafana_cloud", "", "404 nothing is at /v1/metrics"),
    ("grafana_cloud", "endpoint: BASE, temporality: delta", "400 otlp parse error"),
    ("grafana_cloud", "endpoint: BASE", "stands in target_info only"),
    ("grafana_cloud", "endpoint: BASE, headers: {Authorization: Bearer t}", "401 Authorization"),
    ("new_relic", "", "more than 4095 characters"),
    ("new_relic", "headers: {}", "403 api-key"),
    ("dynatrace", "endpoint: BASE", "MONOTONIC_CUMULATIVE_SUM"),
    ("dynatrace", "endpoint: BASE, temporality: delta", "not told apart: pgsonar.slot.used"),
    ("dynatrace", "endpoint: BASE, headers: {Authorization: Bearer t}", "401 Authorization"),
    ("prometheus", "endpoint: BASE", "404 there is nothing but metrics"),
    ("prometheus", "endpoint: BASE, temporality: delta", "400 otlp parse error"),
    ("elastic", "", "a cumulative histogram is dropped"),
    ("elastic", "headers: {}", "401 Authorization"),
]


@pytest.mark.parametrize(("name", "written", "complaint"), NAIVE)
def test_without_its_preset_it_does_not(name, written, complaint, sent):
    host = Host(time.time_ns(), exports=2)
    with VENDORS[name]() as vendor:
        usual = {"endpoint": f"'{vendor.host}'", "headers": f"{{{KEYS[name]}}}"}
        settings = [f"{key}: {value}" for key, value in usual.items() if f"{key}:" not in written]
        settings += [written.replace("BASE", f"'{vendor.host}{vendor.base}'")] if written else []
        sent(", ".join(settings), host.batches)

    assert any(complaint in told for told in vendor.complaints), vendor.complaints[:3]


# Requests that are not compressed reach every limit sooner.
@pytest.mark.parametrize(("name", "compression"), [*((n, "gzip") for n in PRESETS), ("datadog", "none")])
def test_large_batches_are_cut_before_a_vendor_has_to_refuse_them(name, compression, sent):
    host = Host(time.time_ns(), exports=1, clients=900)
    with VENDORS[name]() as vendor:
        settings = f"preset: {name}, profile: full, compression: {compression}, endpoint: '{vendor.host}'"
        stats = sent(f"{settings}, headers: {{{KEYS[name]}}}", host.batches[:1])

    assert vendor.complaints == []
    assert vendor.accepted["metrics"] == stats.sent["metrics"] > 15_000


@pytest.mark.parametrize("name", ["datadog", "new_relic"])
def test_without_its_preset_a_vendor_refuses_large_batches_and_they_are_cut_then(name, sent):
    host = Host(time.time_ns(), exports=1, clients=900)
    with VENDORS[name]() as vendor:
        settings = f"temporality: delta, compression: none, endpoint: '{vendor.host}', headers: {{{KEYS[name]}}}"
        stats = sent(settings, host.batches[:1])

    assert vendor.complaints[0].startswith("413")
    assert stats.sent["metrics"] > 15_000


def test_a_span_that_dynatrace_would_not_take_any_more_is_counted_and_its_events_arrive(sent, caplog):
    late = Host(time.time_ns() - 3601 * 10**9).batches
    young = Host(time.time_ns()).batches
    told = [batch for batch in (*late, *young) if batch.signal != "metrics"]
    with VENDORS["dynatrace"]() as vendor:
        stats = sent(f"preset: dynatrace, endpoint: '{vendor.host}', headers: {{{KEYS['dynatrace']}}}", told)

    assert vendor.complaints == []
    assert vendor.accepted == {"metrics": 0, "logs": 4, "traces": 1}
    assert (stats.sent["traces"], stats.failed["traces"]) == (1, 1)
    assert "ended more than 60 min ago" in caplog.text


def test_without_the_preset_dynatrace_rejects_that_span_in_the_body_of_its_answer(sent):
    late = [batch for batch in Host(time.time_ns() - 3601 * 10**9).batches if batch.signal == "traces"]
    with VENDORS["dynatrace"]() as vendor:
        stats = sent(f"endpoint: '{vendor.host}{vendor.base}', headers: {{{KEYS['dynatrace']}}}", late)

    assert vendor.complaints == ["a span ended more than 60 minutes ago"]
    assert stats.failed["traces"] == 1
