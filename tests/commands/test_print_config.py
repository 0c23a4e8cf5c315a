"""`pgsonar print-config`: what is in force, where it came from, without secrets, and as a configuration again."""

import json
import os

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsonar.commands import main
from pgsonar.config.effective import Value, effective
from pgsonar.config.load import read
from pgsonar.config.units import ByteSize, Duration, Percent
from pgsonar.config.writing import yaml_lines

CONFIG = """\
receivers:
  sockets: {interval: 200ms, targets: [{port: 5432, name: main}, {port: 1}]}
  postgresql/one:
    password: hunter2
    passfile: /etc/pgpass
  pgbouncer: {endpoint: "/run/postgresql:6432", password_command: "echo hunter2"}
processors:
  leaks:
    idle_in_transaction: {after: 1m30s, severity: high}
    pool_exhausted: {warning: 33.3333333%}
    overrides:
      - {match: {user: etl, client: "10.4.*"}, kinds: [long_query], after: 2h}
      - match: {application: checkout}
        silence_until: 2036-12-01T08:00:00Z
exporters:
  otlp/back:
    endpoint: ${env:BACK}
    headers:
      api-key: ${env:KEY}
      authorization: "Basic ${env:KEY}"
      literal: hunter2
      with-default: "${env:NONE:-hunter2}"
      "on": "a$$b"
  otlp_http: {endpoint: "https://me:hunter2@host/otlp?key=hunter2", retry_on_failure: {multiplier: 2}}
  file: {path: "out $${x}.jsonl"}
extensions:
  file_storage: {directory: /var/lib/pgsonar}
  health_check/x: {endpoint: ":8080"}
service:
  extensions: [file_storage, health_check/x]
  telemetry:
    metrics: {interval: 1500us}
    resource: {service.name: "shop: #1", "on": "5", quoted: 'say "hi"', tab: "a\\tb", emoji: "\\U0001F600"}
    redaction: {addresses: hash, key: "${env:KEY}-hunter2-and-more"}
"""
ENVIRON = {"KEY": "s3cret-s3cret", "BACK": "x:4317", "OTEL_RESOURCE_ATTRIBUTES": "team=shop"}


@pytest.fixture
def printed(capsys, monkeypatch, tmp_path):
    """What the command prints for a text, in a directory where the file is called agent.yaml."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(text, *words, environ=None):
        for name, value in (environ or {}).items():
            monkeypatch.setenv(name, value)
        given = []
        if text is not None:
            (tmp_path / "agent.yaml").write_text(text)
            given = ["--config", "agent.yaml"]
        code = main(["print-config", *given, *words])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, "")
        return captured.out

    return run


def in_force(path, environ):
    loaded = read([path], [], environ, is_for_here=False)
    document = effective(loaded.config, loaded.components)
    for section in document["processors"].values():
        for kind in section.values():
            if isinstance(kind, dict):
                kind.setdefault("after", "its own")
    return document


def test_each_value_stands_with_its_origin(printed):
    lines = printed(CONFIG, "--set", "service.telemetry.logs.level=warn", environ=ENVIRON).splitlines()
    told = {tuple(part.strip() for part in line.split("  # ", 1)) for line in lines if "  # " in line}

    assert ("interval: 200ms", "agent.yaml:2") in told
    assert ("source: auto", "default") in told
    assert ("targets: [{name: main, port: 5432}, {port: 1}]", "agent.yaml:2") in told
    assert ("endpoint: x:4317", "${env:BACK} in agent.yaml:17") in told
    assert ("level: warn", "--set") in told
    assert ("team: shop", "OTEL_RESOURCE_ATTRIBUTES") in told
    assert ("auth_stuck: {enabled: true, after: 5s, shadow: false}", "default") in told, "a kind's own time"
    assert ("receivers: [sockets, postgresql/one, pgbouncer]", "default") in told
    assert "# file: agent.yaml" in lines


def test_lines_fit_80_columns_and_hold_no_tab(printed):
    text = printed(CONFIG, environ=ENVIRON)

    assert max(map(len, text.splitlines())) <= 80
    assert "\t" not in text


def test_an_origin_without_room_stands_above_its_value(printed, tmp_path):
    directory = tmp_path / ("d" * 60)
    directory.mkdir()
    (directory / "a.yaml").write_text("exporters:\n  otlp_http: {endpoint: 'https://otlp.example.com/otlp'}\n")
    lines = printed(None, "--config", f"{directory.name}/a.yaml").splitlines()

    at = lines.index("    endpoint: https://otlp.example.com/otlp")
    assert lines[at - 1] == f"    # {directory.name}/a.yaml:2"


@pytest.mark.parametrize("format_", ["yaml", "json"])
def test_no_secret_is_printed_unless_asked_for(printed, format_):
    text = printed(CONFIG, "--format", format_, environ=ENVIRON)

    assert "hunter2" not in text
    assert "s3cret" not in text
    assert "a$$b" not in text
    assert "https://host/otlp" in text
    asked = printed(CONFIG, "--show-secrets", "--format", format_)
    for secret in ("hunter2", "Basic s3cret-s3cret", "s3cret-s3cret-hunter2-and-more", "me:hunter2@host"):
        assert secret in asked


def test_a_secret_that_lies_in_a_variable_is_shown_as_its_reference(printed):
    exporter = yaml.safe_load(printed(CONFIG, environ=ENVIRON))["exporters"]["otlp_grpc/back"]

    assert exporter["headers"]["api-key"] == "${env:KEY}"
    assert exporter["headers"]["authorization"] == "Basic ${env:KEY}"
    assert exporter["headers"]["with-default"] == "[redacted: --show-secrets]", "the default may be the secret"


def test_headers_of_the_environment_are_secrets(printed):
    text = printed(None, environ={"OTEL_EXPORTER_OTLP_HEADERS": "api-key=hunter2"})

    assert "hunter2" not in text
    assert 'api-key: "[redacted: --show-secrets]"' in text
    assert "OTEL_EXPORTER_OTLP_HEADERS, redacted" in text


@pytest.mark.parametrize("text", [None, "", CONFIG, "exporters: {debug: }\nservice: {extensions: [flight_recorder]}"])
def test_what_is_printed_is_the_same_configuration(printed, tmp_path, text):
    environ = ENVIRON if text == CONFIG else {}
    (tmp_path / "again.yaml").write_text(printed(text, "--show-secrets", environ=environ))
    if text is None:
        (tmp_path / "agent.yaml").write_text("service: {extensions: [health_check]}")  # which is on without a file

    before, after = (read([name], [], environ, is_for_here=False) for name in ("agent.yaml", "again.yaml"))
    assert after.config.sockets == before.config.sockets
    assert after.config.pipelines == before.config.pipelines
    assert after.config.telemetry == before.config.telemetry
    assert (after.config.postgresql, after.config.pgbouncer) == (before.config.postgresql, before.config.pgbouncer)
    assert after.config.leaks.overrides == before.config.leaks.overrides
    first, second = in_force("agent.yaml", environ), in_force("again.yaml", environ)
    del first["processors"], second["processors"]
    assert second == first


def test_redacted_it_is_still_a_configuration_and_with_its_variables_the_same_exporters(printed, tmp_path):
    only_variables = CONFIG.replace("literal: hunter2", "").replace('with-default: "${env:NONE:-hunter2}"', "")
    only_variables = only_variables.replace('"on": "a$$b"', "").replace("me:hunter2@host/otlp?key=hunter2", "host/otlp")
    (tmp_path / "again.yaml").write_text(printed(only_variables, environ=ENVIRON))

    before, after = (read([name], [], ENVIRON, is_for_here=False).config for name in ("agent.yaml", "again.yaml"))
    assert after.exporters == before.exporters
    assert after.telemetry.redaction.key == "[redacted: --show-secrets]"


def test_machines_are_told_key_value_and_origin(printed):
    told = {one["key"]: one for one in json.loads(printed(CONFIG, "--format", "json", environ=ENVIRON))}

    assert told["receivers.sockets.interval"] == {
        "key": "receivers.sockets.interval",
        "value": "200ms",
        "origin": "agent.yaml:2",
    }
    assert told["receivers.sockets.targets[1].port"]["value"] == 1
    assert told["service.telemetry.resource.service.name"]["value"] == "shop: #1"
    assert told["exporters.file.path"]["value"] == "out ${x}.jsonl"


def test_nothing_is_read_from_the_host(printed):
    text = printed("exporters: {otlp_http: {tls: {ca_file: /no/such}}, file: {path: /no/such/file}}")

    assert "ca_file: /no/such " in text


@given(st.text(), st.text(min_size=1))
@settings(max_examples=300, deadline=None)
def test_any_text_is_written_so_that_it_reads_back(text, origin):
    lines = yaml_lines({"section": {text: Value("section", text, origin)}})

    assert yaml.safe_load("\n".join(lines)) == {"section": {text: text.replace("$", "$$")}}


@given(st.floats(min_value=0, max_value=1e8), st.integers(min_value=0, max_value=2**53))
@settings(max_examples=300, deadline=None)
def test_units_are_printed_so_that_they_read_back(number, size):
    duration = Duration.parse(f"{number:.9f}s")
    percent = Percent.parse(f"{number:.7f}%")

    assert Duration.parse(str(duration)) == duration
    assert Percent.parse(str(percent)) == pytest.approx(percent, rel=1e-14)
    assert ByteSize.parse(str(ByteSize(size))) == size
