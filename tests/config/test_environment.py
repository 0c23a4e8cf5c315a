"""The OTEL_* variables, without and with exporters of a file."""

import pytest

from pgsonar.config.load import load
from pgsonar.config.schema import OtlpExporter, TlsClient
from pgsonar.errors import ConfigError

OTLP = "OTEL_EXPORTER_OTLP_"


def of(**variables):
    """The configuration these variables make; names without OTEL_."""
    return load([], [], {f"OTEL_{name}": text for name, text in variables.items()})


def only(config):
    (exporter,) = config.exporters.items()
    return exporter


def test_nothing_set_sends_all_signals_over_http():
    config = of()

    assert only(config) == ("otlp_http", OtlpExporter())
    for pipeline in (config.pipelines.metrics, config.pipelines.logs, config.pipelines.traces):
        assert (pipeline.receivers, pipeline.processors) == (["sockets"], ["leaks"])
        assert pipeline.exporters == ["otlp_http"]
    assert config.warnings == []


def test_the_variables_of_the_http_exporter(tmp_path):
    file = tmp_path / "pem"
    file.write_text("")
    config = of(
        EXPORTER_OTLP_ENDPOINT="https://x/otlp",
        EXPORTER_OTLP_LOGS_ENDPOINT="http://y:1/l",
        EXPORTER_OTLP_HEADERS="api-key=a%20b",
        EXPORTER_OTLP_COMPRESSION="none",
        EXPORTER_OTLP_TIMEOUT="2500",
        EXPORTER_OTLP_CERTIFICATE=str(file),
        EXPORTER_OTLP_CLIENT_KEY=str(file),
        EXPORTER_OTLP_CLIENT_CERTIFICATE=str(file),
    )

    assert only(config) == (
        "otlp_http",
        OtlpExporter(
            endpoint="https://x/otlp",
            logs_endpoint="http://y:1/l",
            headers={"api-key": "a b"},
            compression="none",
            timeout=2.5,
            tls=TlsClient(ca_file=str(file), key_file=str(file), cert_file=str(file)),
        ),
    )


@pytest.mark.parametrize(
    ("endpoint", "insecure", "expected"),
    [
        (None, None, ("localhost:4317", True)),
        ("http://x:1", None, ("x:1", True)),
        ("https://x:1/", "true", ("x:1", False)),
        ("x:1", None, ("x:1", False)),
        ("[::1]:1", "true", ("[::1]:1", True)),
    ],
)
def test_grpc_is_without_tls_where_scheme_or_variable_say_so(endpoint, insecure, expected):
    given = {"EXPORTER_OTLP_ENDPOINT": endpoint, "EXPORTER_OTLP_INSECURE": insecure}
    config = of(EXPORTER_OTLP_PROTOCOL="grpc", **{name: text for name, text in given.items() if text})

    name, exporter = only(config)
    assert name == "otlp_grpc"
    assert (exporter.endpoint, exporter.tls.insecure) == expected


def test_signals_that_differ_in_more_than_the_endpoint_have_an_exporter_each():
    config = of(
        EXPORTER_OTLP_ENDPOINT="http://x",
        EXPORTER_OTLP_TRACES_HEADERS="k=v",
        EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
        EXPORTER_OTLP_METRICS_ENDPOINT="https://m:1",
    )

    assert config.exporters == {
        "otlp_grpc/metrics": OtlpExporter(endpoint="m:1"),
        "otlp_http/logs": OtlpExporter(endpoint="http://x"),
        "otlp_http/traces": OtlpExporter(endpoint="http://x", headers={"k": "v"}),
    }
    assert config.pipelines.metrics.exporters == ["otlp_grpc/metrics"]
    assert config.pipelines.logs.exporters == ["otlp_http/logs"]
    assert config.pipelines.traces.exporters == ["otlp_http/traces"]
    assert config.warnings == []


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=1,b=2", {"a": "1", "b": "2"}),
        (" a = 1 , ,b=", {"a": "1", "b": ""}),
        ('"a=1,b=2"', {"a": "1", "b": "2"}),
        ('a="x,y",b=z', {"a": "x,y", "b": "z"}),
        ("authorization=Basic%20YTpi==", {"authorization": "Basic YTpi=="}),
    ],
)
def test_header_values_are_quoted_or_percent_encoded(text, pairs):
    assert only(of(EXPORTER_OTLP_HEADERS=text))[1].headers == pairs


@pytest.mark.parametrize(
    ("text", "temporality"), [("Delta", "delta"), ("LOWMEMORY", "lowmemory"), ("cumulative", "cumulative")]
)
def test_the_temporality_preference_is_taken_in_any_case_of_letters(text, temporality):
    assert only(of(EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=text))[1].temporality == temporality


def test_the_temporality_preference_does_not_touch_an_exporter_of_a_file(read):
    config = read("exporters: {otlp_http: }", environ={"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"})

    assert config.exporters["otlp_http"].temporality == "cumulative"
    assert any("TEMPORALITY_PREFERENCE: without effect" in warning for warning in config.warnings)


WRONG = {
    "EXPORTER_OTLP_PROTOCOL": ("http/json", "http/protobuf, grpc"),
    "EXPORTER_OTLP_LOGS_PROTOCOL": ("udp", "http/protobuf, grpc"),
    "EXPORTER_OTLP_ENDPOINT": ("localhost:4318", "http://"),
    "EXPORTER_OTLP_TRACES_ENDPOINT": ("localhost", "http://"),
    "EXPORTER_OTLP_HEADERS": ("hunter2", "key=value"),
    "EXPORTER_OTLP_METRICS_HEADERS": ('a="hunter2', "not closed"),
    "EXPORTER_OTLP_COMPRESSION": ("zstd", "gzip, none"),
    "EXPORTER_OTLP_TIMEOUT": ("10s", "milliseconds"),
    "METRIC_EXPORT_INTERVAL": ("0", "milliseconds"),
    "RESOURCE_ATTRIBUTES": ("a=b,c", "item 2"),
    "EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("sums", "cumulative, delta, lowmemory"),
}


@pytest.mark.parametrize(("name", "wrong"), WRONG.items())
def test_a_wrong_variable_is_named_once_and_secrets_are_not(name, wrong):
    text, said = wrong

    with pytest.raises(ConfigError) as caught:
        of(**{name: text})

    message = f"{caught.value}\n{caught.value.hint}"
    assert message.startswith(f"OTEL_{name}: ")
    assert said in message
    assert "hunter2" not in message


def test_resource_attributes_and_service_name_stand_below_those_of_a_file(read):
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,region=eu,zone=1%2C2", "OTEL_SERVICE_NAME": "b"}

    assert load([], [], environ).telemetry.resource == {"service.name": "b", "region": "eu", "zone": "1,2"}
    config = read("service: {telemetry: {resource: {region: us}}}", environ=environ)
    assert config.telemetry.resource == {"service.name": "b", "region": "us", "zone": "1,2"}


def test_the_metric_interval_holds_without_a_file_and_below_settings():
    environ = {"OTEL_METRIC_EXPORT_INTERVAL": "1500"}

    assert load([], [], environ).telemetry.metrics.interval == 1.5
    assert load([], ["service.telemetry.metrics.interval=3s"], environ).telemetry.metrics.interval == 3


def test_a_disabled_sdk_sends_nothing_and_says_so():
    config = of(SDK_DISABLED="true")

    assert config.exporters == {}
    assert config.pipelines.metrics is config.pipelines.logs is config.pipelines.traces is None
    assert config.warnings == ["OTEL_SDK_DISABLED: is true: nothing is sent anywhere"]


def test_an_exporter_without_endpoint_takes_it_and_the_headers_from_the_environment(read):
    environ = {f"{OTLP}ENDPOINT": "http://x:1", f"{OTLP}METRICS_ENDPOINT": "http://m:1", f"{OTLP}HEADERS": "k=v"}

    config = read("exporters: {otlp_http: {timeout: 1s}}", environ=environ)

    expected = OtlpExporter(
        endpoint="http://x:1",
        metrics_endpoint="http://m:1",
        headers={"k": "v"},
        timeout=config.exporters["otlp_http"].timeout,
    )
    assert config.exporters == {"otlp_http": expected}
    assert config.warnings == []


def test_headers_of_the_environment_never_go_to_an_endpoint_of_a_file(read):
    environ = {f"{OTLP}ENDPOINT": "http://x:1", f"{OTLP}HEADERS": "k=v", f"{OTLP}COMPRESSION": "none"}

    config = read("exporters: {otlp_http: {endpoint: 'http://y:1'}}", environ=environ)

    assert config.exporters == {"otlp_http": OtlpExporter(endpoint="http://y:1")}
    assert config.warnings == [f"{OTLP}COMPRESSION, {OTLP}ENDPOINT, {OTLP}HEADERS: without effect here"]


def test_an_endpoint_of_another_protocol_fills_nothing(read):
    environ = {f"{OTLP}ENDPOINT": "http://x:4317", f"{OTLP}PROTOCOL": "grpc"}

    config = read("exporters: {otlp_http: , otlp_grpc: }", environ=environ)

    assert config.exporters["otlp_http"] == OtlpExporter()
    assert config.exporters["otlp_grpc"] == OtlpExporter(endpoint="x:4317", tls=TlsClient(insecure=True))


def test_dollars_of_a_variable_are_not_looked_into():
    assert of(EXPORTER_OTLP_HEADERS="k=${env:HOME}$$").exporters["otlp_http"].headers == {"k": "${env:HOME}$$"}


@pytest.mark.parametrize("name", ["EXPORTER_OTLP_TIMEOUT", "EXPORTER_OTLP_LOGS_TIMEOUT", "METRIC_EXPORT_INTERVAL"])
def test_so_few_milliseconds_are_obeyed_with_a_warning_that_names_both_readings(name):
    config = of(**{name: "10"})

    given = [exporter.timeout for exporter in config.exporters.values()] + [config.telemetry.metrics.interval]
    assert 0.01 in given
    (warning,) = config.warnings
    assert warning.startswith(f"OTEL_{name}: ")
    assert "10 milliseconds" in warning
    assert "if 10 seconds are meant, write 10000" in warning


@pytest.mark.parametrize("text", ["200", "2500", "10000"])
def test_milliseconds_that_are_likely_have_no_warning(text):
    assert of(EXPORTER_OTLP_TIMEOUT=text, METRIC_EXPORT_INTERVAL=text).warnings == []


def test_an_ipv6_endpoint_without_brackets_is_answered_with_what_to_write():
    with pytest.raises(
        ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT: an address of IPv6 stands in brackets"
    ) as caught:
        of(EXPORTER_OTLP_ENDPOINT="http://fd00:1::5:4318")

    assert caught.value.hint == "write http://[fd00:1::5]:4318"


@pytest.mark.parametrize("name", ["EXPORTER_OTLP_ENDPOINT", "EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_a_grpc_endpoint_with_https_needs_no_port(name):
    config = of(EXPORTER_OTLP_PROTOCOL="grpc", **{name: "https://otlp.example.com"})

    endpoints = {exporter.endpoint: exporter.tls.insecure for exporter in config.exporters.values()}
    assert endpoints["otlp.example.com:443"] is False


def test_what_tells_servers_apart_is_left_out_of_the_variables_with_one_warning(read):
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=x,server.address=y,server.port=1,region=eu,host.name=n"}

    names = "service.instance.id, server.address, server.port"
    for config in (load([], [], environ), read("exporters: {debug: }", environ=environ)):
        assert config.telemetry.resource == {"region": "eu", "host.name": "n"}
        assert config.warnings == [f"OTEL_RESOURCE_ATTRIBUTES: {names} are pgsonar's own to say: left out"]


def test_what_tells_servers_apart_is_left_out_of_a_file_as_well(read):
    resource = "{service.version: '2', deployment.environment.name: production}"
    config = read(f"exporters: {{debug: }}\nservice: {{telemetry: {{resource: {resource}}}}}")

    assert config.telemetry.resource == {"deployment.environment.name": "production"}
    assert config.warnings == ["service.telemetry.resource: service.version is pgsonar's own to say: left out"]
