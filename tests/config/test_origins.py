"""Where each value came from."""

import pytest

from pgsonar.config.effective import trace, values
from pgsonar.config.load import read
from pgsonar.config.origins import PRESET, Origins
from pgsonar.config.secrets import REDACTED

OTLP = "OTEL_EXPORTER_OTLP_"


@pytest.fixture
def origins(tmp_path, monkeypatch):
    """The origins of files a.yaml, b.yaml, ..., whose names stand for them without a directory."""
    monkeypatch.chdir(tmp_path)

    def read_texts(*texts, settings=(), environ=None):
        paths = []
        for name, text in zip("abc", texts, strict=False):
            (tmp_path / f"{name}.yaml").write_text(text)
            paths.append(f"{name}.yaml")
        return read(paths, list(settings), environ or {}).origins

    return read_texts


def test_what_lies_above_wins(origins):
    found = origins(
        "receivers:\n  sockets:\n    interval: 1s\n    source: procfs\n    side: both\n",
        "receivers:\n  sockets:\n\n    source: auto\n",
        settings=["receivers.sockets.side=server"],
    )

    assert found.of("receivers.sockets.interval") == "a.yaml:3"
    assert found.of("receivers.sockets.source") == "b.yaml:4"
    assert found.of("receivers.sockets.side") == "--set"
    assert found.of("receivers.sockets.max_cpu") == "default"


def test_what_was_replaced_is_forgotten(origins):
    found = origins(
        "exporters:\n  otlp_http: {tls: {insecure: true}, timeout: 1s, headers: {a: b}}\n"
        "receivers: {sockets: {targets: [{port: 1, name: x}]}}\n",
        "exporters:\n  otlp_http: {tls: , timeout: }\nreceivers: {sockets: {targets: [{port: 2}]}}\n",
    )

    assert found.of("exporters.otlp_http.tls.insecure") == "default"
    assert found.of("exporters.otlp_http.timeout") == "default"
    assert found.of("exporters.otlp_http.headers.a") == "a.yaml:2"
    assert found.of("receivers.sockets.targets[0].port") == "b.yaml:3"
    assert found.of("receivers.sockets.targets[0].name") == "default"


def test_anchors_and_merge_keys_stand_where_they_were_written(origins):
    found = origins("exporters:\n  file/a: &a\n    path: a\n  file/b:\n    <<: *a\n  file/c: *a\n")

    assert found.of("exporters.file/b.path") == "a.yaml:3"
    assert found.of("exporters.file/c.path") == "a.yaml:3"


def test_variables_in_a_file_are_named(origins):
    found = origins(
        "exporters:\n  otlp_http:\n    endpoint: ${env:URL}\n    timeout: ${env:NONE:-3s}\n"
        "    headers: ${env:HEADERS}\n    compression: gzip\n  file: {path: '${env:A}/${env:B}$$'}\n",
        environ={"URL": "http://x", "HEADERS": "{a: b}", "A": "/", "B": ""},
        settings=["service.telemetry.resource.x=${env:A}"],
    )

    assert found.of("exporters.otlp_http.endpoint") == "${env:URL} in a.yaml:3"
    assert found.of("exporters.otlp_http.timeout") == "default of ${env:NONE} in a.yaml:4"
    assert found.of("exporters.otlp_http.headers.a") == "${env:HEADERS} in a.yaml:5"
    assert found.of("exporters.otlp_http.compression") == "a.yaml:6"
    assert found.of("exporters.file.path") == "${env:A}, ${env:B} in a.yaml:7"
    assert found.of("service.telemetry.resource.x") == "${env:A} in --set"


def test_an_alias_is_found_under_its_real_name(origins):
    found = origins("exporters:\n  otlp/x:\n    endpoint: ${env:E}\n", environ={"E": "x:1"})

    assert found.of("exporters.otlp_grpc/x.endpoint") == "${env:E} in a.yaml:3"
    assert found.written("exporters.otlp_grpc/x.endpoint") == "${env:E}"


def test_the_variables_of_the_default_exporter():
    environ = {
        f"{OTLP}ENDPOINT": "http://x",
        f"{OTLP}LOGS_ENDPOINT": "http://y",
        f"{OTLP}HEADERS": "a=b",
        f"{OTLP}TIMEOUT": "1000",
        f"{OTLP}CERTIFICATE": "/dev/null",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "team=x,service.name=y",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }
    found = read([], [], environ).origins
    key = "exporters.otlp_http"

    assert found.of(f"{key}.endpoint") == f"{OTLP}ENDPOINT"
    assert found.of(f"{key}.logs_endpoint") == f"{OTLP}LOGS_ENDPOINT"
    assert found.of(f"{key}.headers.a") == f"{OTLP}HEADERS"
    assert found.of(f"{key}.timeout") == f"{OTLP}TIMEOUT"
    assert found.of(f"{key}.tls.ca_file") == f"{OTLP}CERTIFICATE"
    assert found.of(f"{key}.compression") == "default"
    assert found.of("service.telemetry.resource.service.name") == "OTEL_SERVICE_NAME"
    assert found.of("service.telemetry.resource.team") == "OTEL_RESOURCE_ATTRIBUTES"
    assert found.of("service.telemetry.metrics.interval") == "OTEL_METRIC_EXPORT_INTERVAL"


def test_the_variables_of_exporters_for_each_signal():
    environ = {
        f"{OTLP}PROTOCOL": "grpc",
        f"{OTLP}ENDPOINT": "http://x:1",
        f"{OTLP}TRACES_ENDPOINT": "y:1",
        f"{OTLP}TRACES_INSECURE": "true",
        f"{OTLP}LOGS_TIMEOUT": "1000",
        f"{OTLP}TIMEOUT": "2000",
    }
    found = read([], [], environ).origins

    assert found.of("exporters.otlp_grpc/metrics.endpoint") == f"{OTLP}ENDPOINT"
    assert found.of("exporters.otlp_grpc/metrics.tls.insecure") == f"{OTLP}ENDPOINT", "its scheme says so"
    assert found.of("exporters.otlp_grpc/metrics.timeout") == f"{OTLP}TIMEOUT"
    assert found.of("exporters.otlp_grpc/logs.timeout") == f"{OTLP}LOGS_TIMEOUT"
    assert found.of("exporters.otlp_grpc/traces.endpoint") == f"{OTLP}TRACES_ENDPOINT"
    assert found.of("exporters.otlp_grpc/traces.tls.insecure") == f"{OTLP}TRACES_INSECURE"


def test_variables_fill_what_a_file_leaves_open_and_lie_below_it(origins):
    environ = {
        f"{OTLP}ENDPOINT": "http://x",
        f"{OTLP}HEADERS": "a=b",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "team=x",
    }
    found = origins(
        "exporters:\n  otlp_http:\n    timeout: 1s\nservice: {telemetry: {resource: {service.name: mine}}}\n",
        environ=environ,
    )

    assert found.of("exporters.otlp_http.endpoint") == f"{OTLP}ENDPOINT"
    assert found.of("exporters.otlp_http.headers.a") == f"{OTLP}HEADERS"
    assert found.of("exporters.otlp_http.timeout") == "a.yaml:3"
    assert found.of("service.telemetry.resource.service.name") == "a.yaml:4"
    assert found.of("service.telemetry.resource.team") == "OTEL_RESOURCE_ATTRIBUTES"


def test_what_is_noted_below_adds_to_a_mapping_and_overrides_nothing():
    found = Origins()
    found.note("e", {"headers": {"a": "1"}, "timeout": None}, "file:1")
    found.note_below("e", {"headers": {"a": "2", "b": "2"}, "timeout": "5s"}, f"{PRESET}x")

    assert [found.of(f"e.{key}") for key in ("headers.a", "headers.b", "timeout")] == ["file:1", "preset x", "preset x"]


def test_what_a_preset_supplies_is_no_secret():
    found = Origins()
    found.note("e", {"headers": {"a": "mine"}}, "file:1")
    found.note_below("e", {"headers": {"b": "theirs"}}, f"{PRESET}x")
    tree = trace({"headers": {"a": "mine", "b": "theirs"}}, found, shows_secrets=False, key="e")

    assert [(one.value, one.origin) for one in values(tree)] == [
        (REDACTED, "file:1, redacted"),
        ("theirs", "preset x"),
    ]
