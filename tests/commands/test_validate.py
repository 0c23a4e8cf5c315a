"""`pgsonar validate`: what it prints, and how it ends."""

import os
import subprocess
import sys

import pytest

from pgsonar.commands import main


@pytest.fixture(autouse=True)
def _no_otel(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def test_without_a_file_the_defaults_are_shown(capsys):
    assert main(["validate"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "The configuration is valid.",
        "  metrics: sockets -> leaks",
        "           -> otlp_http (http://localhost:4318/v1/metrics)",
        "  logs:    sockets -> leaks",
        "           -> otlp_http (http://localhost:4318/v1/logs)",
        "  traces:  sockets -> leaks",
        "           -> otlp_http (http://localhost:4318/v1/traces)",
        "  health:  http://localhost:13133",
    ]


def test_pipelines_destinations_and_warnings_of_a_file_are_shown(capsys, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "exporters: {otlp_http: {endpoint: 'https://u:hunter2@x/otlp/?key=hunter2', metrics_endpoint: 'http://m/in'},"
        " otlp: , file: {path: out}, debug: }\n"
        "processors: {leaks: {half_open: {after: 3s}}}\n"
        "service: {pipelines: {metrics: {receivers: [sockets], exporters: [otlp_http, debug]},"
        " logs: {receivers: [sockets], processors: [leaks], exporters: [otlp_http, otlp_grpc, file]}}}\n"
    )

    assert main(["validate", "--config", str(file), "--set", "exporters.otlp.endpoint=g:1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "The configuration is valid.",
        "  metrics: sockets",
        "           -> otlp_http (http://m/in)",
        "           -> debug",
        "  logs:    sockets -> leaks",
        "           -> otlp_http (https://x/otlp/v1/logs)",
        "           -> otlp_grpc (g:1)",
        "           -> file (out)",
        "  traces:  goes nowhere",
        "  health:  off",
        "warning: exporters.otlp: otlp is an alias, write otlp_grpc",
    ]


def test_a_wrong_configuration_ends_with_2(capsys):
    assert main(["validate", "--set", "receivers.sockets.intervall=1s"]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(
        "pgsonar: receivers.sockets.intervall: unknown key (--set)\n  hint: did you mean interval?"
    )


def test_nothing_but_the_configuration_is_imported():
    program = (
        "import sys; from pgsonar.commands import main; main(['validate'])\n"
        "heavy = {'pgsonar._native', 'pgsonar.pipeline.pipeline', 'urllib3', 'grpc', 'psycopg', 'opentelemetry'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    ended = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_endpoints_are_shown_as_they_were_written(capsys, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[10.0.0.5]:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")

    assert main(["validate", "--set", "extensions.health_check.endpoint='[::1]:13133'"]) == 0
    printed = capsys.readouterr().out
    assert "-> otlp_http (http://[10.0.0.5]:4318/v1/metrics)" in printed
    assert "health:  http://[::1]:13133" in printed
    assert "OTEL_EXPORTER_OTLP_TIMEOUT: 10 is taken for 10 milliseconds" in " ".join(printed.split())


@pytest.mark.parametrize("endpoint", ["https://otlp.example.com", "unix:///run/otel.sock", "dns:///localhost:4317"])
def test_what_grpc_dials_is_shown(capsys, endpoint):
    assert main(["validate", "--set", f"exporters.otlp_grpc.endpoint={endpoint}"]) == 0
    assert f"-> otlp_grpc ({endpoint})" in capsys.readouterr().out


def test_what_is_refused_names_key_file_and_line_and_what_to_write(capsys, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("exporters:\n  otlp_http:\n    endpoint: http://fd00:1::5:4318\n")

    assert main(["validate", "--config", str(file)]) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert what.startswith("pgsonar: exporters.otlp_http.endpoint: an address of IPv6 stands in brackets; got 'http://")
    assert what.endswith(f" ({file}:3)")
    assert hint == "  hint: write http://[fd00:1::5]:4318"


def test_attributes_that_are_pgsonars_own_are_named_once(capsys, monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=x,server.port=1,team=shop")

    assert main(["validate"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("OTEL_RESOURCE_ATTRIBUTES: service.instance.id, server.port are pgsonar's own") == 1
