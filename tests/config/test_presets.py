"""Presets: a name and a key are all that must be written; what is written wins, or is an error that says why not."""

from typing import get_args, get_type_hints

import pytest

from pgsonar.config.load import read as read_with_origins
from pgsonar.config.presets import PRESETS, supplied
from pgsonar.config.schema import OtlpExporter
from pgsonar.exporters.forms import form_of


def exporter(config, name="otlp_http"):
    return config.exporters[name]


def test_every_name_of_the_schema_is_a_preset():
    names = [arg for option in get_args(get_type_hints(OtlpExporter)["preset"]) for arg in get_args(option)]

    assert names == list(PRESETS)


def test_a_name_and_a_key_are_enough(read):
    config = read("exporters: {otlp_http: {preset: datadog, headers: {dd-api-key: k}}}")
    section = exporter(config)

    assert (section.endpoint, section.temporality, section.profile) == ("https://otlp.datadoghq.com", "delta", "lean")
    assert section.headers == {
        "dd-api-key": "k",
        "dd-otel-metric-config": '{"resource_attributes_as_tags": true}',
    }
    assert config.warnings == []


def test_what_is_written_wins(read):
    section = exporter(
        read(
            "exporters: {otlp_http: {preset: datadog, endpoint: 'https://otlp.datadoghq.eu', profile: full, "
            "headers: {DD-API-Key: k, DD-OTel-Metric-Config: '{}'}}}"
        )
    )

    assert (section.endpoint, section.profile) == ("https://otlp.datadoghq.eu", "full")
    assert section.headers == {"DD-API-Key": "k", "DD-OTel-Metric-Config": "{}"}


def test_what_it_supplies_can_be_told_apart():
    written = {"preset": "honeycomb", "headers": {"x-honeycomb-team": "k"}, "temporality": "delta", "profile": None}

    assert supplied("honeycomb", "otlp_grpc", written) == {
        "endpoint": "api.honeycomb.io:443",
        "headers": {"x-honeycomb-dataset": "pgsonar"},
        "profile": "standard",
    }
    assert supplied("honeycomb", "otlp_http", written | {"metrics_endpoint": "https://x"}) == {
        "headers": {"x-honeycomb-dataset": "pgsonar"},
        "profile": "standard",
    }


def test_where_a_value_came_from_is_known(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("exporters: {otlp_http: {preset: datadog, profile: full, headers: {dd-api-key: k}}}")
    origins = read_with_origins([str(file)], [], {}).origins

    supplied_by_it = ("endpoint", "temporality", "headers.dd-otel-metric-config")
    assert {origins.of(f"exporters.otlp_http.{key}") for key in supplied_by_it} == {"preset datadog"}
    assert {origins.of(f"exporters.otlp_http.{key}") for key in ("profile", "headers.dd-api-key")} == {f"{file}:1"}


@pytest.mark.parametrize(
    ("name", "written", "taken"),
    [
        ("grafana_cloud", "https://otlp-gateway-x.grafana.net", "https://otlp-gateway-x.grafana.net/otlp"),
        ("grafana_cloud", "https://otlp-gateway-x.grafana.net/otlp", "https://otlp-gateway-x.grafana.net/otlp"),
        ("dynatrace", "https://abc.live.dynatrace.com/", "https://abc.live.dynatrace.com/api/v2/otlp"),
        ("prometheus", "http://localhost:9090", "http://localhost:9090/api/v1/otlp"),
        ("prometheus", "http://gateway/prometheus/api/v1/otlp", "http://gateway/prometheus/api/v1/otlp"),
    ],
)
def test_the_path_of_an_endpoint_need_not_be_known(read, name, written, taken):
    section = exporter(
        read(f"exporters: {{otlp_http: {{preset: {name}, endpoint: '{written}', headers: {{authorization: x}}}}}}")
    )

    assert section.endpoint == taken


REFUSED = {
    "otlp_grpc: {preset: datadog, headers: {dd-api-key: k}}": (
        "exporters.otlp_grpc.preset: Datadog takes OTLP over HTTP only",
        "otlp_http",
    ),
    "otlp_http: {preset: datadog}": ("exporters.otlp_http.headers: Datadog needs dd-api-key", "DD_API_KEY"),
    "otlp_http: {preset: elastic, headers: {Authorization: ApiKey k}}": (
        "exporters.otlp_http.endpoint: is required for Elastic",
        "https://",
    ),
    "otlp_http: {preset: datadog, headers: {dd-api-key: k}, temporality: cumulative}": (
        "exporters.otlp_http.temporality: Datadog refuses cumulative metrics",
        "the preset sets delta",
    ),
    "otlp_http: {preset: grafana_cloud, endpoint: 'https://x/otlp', headers: {authorization: k}, temporality: delta}": (
        "exporters.otlp_http.temporality: Grafana Cloud refuses delta metrics",
        "the preset sets cumulative",
    ),
    "otlp_http: {preset: prometheus, endpoint: 'http://x/api/v1/otlp/v1/metrics'}": (
        "exporters.otlp_http.endpoint: ends with /v1/metrics",
        "leave that out",
    ),
    "otlp_http: {preset: datadgo}": ("exporters.otlp_http.preset: expected one of datadog", "did you mean datadog?"),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.items())
def test_what_cannot_work_is_an_error_with_a_hint(refused, text, told):
    what, hint = told
    message = refused(f"exporters: {{{text}}}")

    assert message.startswith(what)
    assert hint in message


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("preset: prometheus, endpoint: 'http://x', temporality: delta", "otlp-deltatocumulative"),
        ("preset: elastic, endpoint: 'http://x', headers: {Authorization: k}, temporality: cumulative", "histograms"),
    ],
)
def test_what_loses_a_part_is_a_warning(read, text, warning):
    config = read(f"exporters: {{otlp_http: {{{text}}}}}")

    assert [warning in told for told in config.warnings] == [True]


def test_a_preset_with_an_endpoint_lies_above_the_variables_and_one_without_below(read):
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4318", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=k"}

    config = read("exporters: {otlp_http: {preset: datadog, headers: {dd-api-key: k}}}", environ=environ)
    assert exporter(config).endpoint == "https://otlp.datadoghq.com"
    assert "authorization" not in exporter(config).headers
    config = read("exporters: {otlp_http: {preset: elastic}}", environ=environ)
    assert (exporter(config).endpoint, exporter(config).headers) == ("http://here:4318", {"authorization": "k"})


def test_without_pipelines_each_signal_goes_where_it_is_taken(read):
    config = read(
        "exporters:\n"
        "  otlp_http/dd: {preset: datadog, headers: {dd-api-key: k}}\n"
        "  otlp_http/prom: {preset: prometheus, endpoint: 'http://x'}\n"
    )

    assert config.pipelines.metrics.exporters == ["otlp_http/dd", "otlp_http/prom"]
    assert config.pipelines.logs.exporters == ["otlp_http/dd"]
    assert config.pipelines.traces is None


def test_a_signal_that_a_backend_does_not_take_is_refused_in_its_pipeline(refused):
    message = refused(
        "exporters: {otlp_http: {preset: prometheus, endpoint: 'http://x'}}\n"
        "service: {pipelines: {logs: {receivers: [sockets], processors: [leaks], exporters: [otlp_http]}}}"
    )

    assert message.startswith("service.pipelines.logs.exporters: otlp_http sends to Prometheus, which takes no logs")


def test_the_limits_are_those_of_what_goes_over_the_wire(read):
    text = "exporters: {otlp_http: {preset: datadog, headers: {dd-api-key: k}, compression: %s}}"
    packed, unpacked = (form_of(exporter(read(text % how))).sizes.metrics for how in ("gzip", "none"))

    assert (packed, unpacked) == ((5_000_000, 500_000), (500_000, None))
