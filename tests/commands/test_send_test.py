"""`pgsonar doctor --send-test`: what backends answer to one metric, one event and one span."""

import json
import os

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from pgsonar.commands import main
from pgsonar.demo.receiver import Answer, Receiver

METRICS_ONLY = "{receivers: [sockets], exporters: [otlp_http]}"


@pytest.fixture(autouse=True)
def _no_otel(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def send_test(capsys, tmp_path):
    """Runs it with these settings: its exit code and what it printed, in one line, and without what wraps it."""

    def run(*settings):
        code = main(["doctor", "--send-test", *(word for setting in settings for word in ("--set", setting))])
        printed = capsys.readouterr()
        # A path is not broken, however long the one of the test is.
        assert max(map(len, printed.out.replace(str(tmp_path), "FOLDER").splitlines())) <= 80
        return code, " ".join(printed.out.split()), printed.err

    return run


@pytest.mark.parametrize("protocol", ["otlp_http", "otlp_grpc"])
def test_all_three_arrive_and_carry_the_mark_that_is_told(send_test, protocol):
    with Receiver(grpc=True) as receiver:
        port = receiver.port if protocol == "otlp_http" else receiver.grpc_port
        code, text, _ = send_test(
            f"exporters.{protocol}.endpoint=http://127.0.0.1:{port}", "service.telemetry.resource.team=shop"
        )

    assert code == 0, text
    (point,), (event,), (span,) = receiver.points, receiver.events, receiver.spans
    assert (point["name"], point["value"], point["shape"]) == ("pgsonar.test", 1, "gauge")
    assert (event["event_name"], event["severity"]) == ("pgsonar.test", 9)
    assert span["name"] == "pgsonar.test"
    assert span["end"] > span["start"]
    assert span["trace_id"] == event["trace_id"] == event["attributes"]["pgsonar.test.id"]
    assert f"pgsonar.test.id = {span['trace_id']}" in text
    for row in (point, event, span):
        assert (row["resource"]["service.name"], row["resource"]["team"]) == ("pgsonar", "shop")
    for signal in ("metrics", "logs", "traces"):
        assert f"ok {signal}: accepted" in text


def test_a_refusal_is_told_with_its_hint_and_is_an_exit_code(send_test):
    with Receiver() as receiver:
        receiver.script.append(Answer(401, body=b"no such key"))
        code, text, _ = send_test(f"exporters.otlp_http.endpoint={receiver.endpoint}")

    assert code == 1
    assert f"BROKEN metrics: refused: {receiver.endpoint}/v1/metrics: HTTP 401 no such key" in text
    assert "what helps: check the headers of the exporter" in text
    assert "ok logs: accepted" in text
    assert "1 of what is configured does not work." in text


def test_what_is_rejected_within_a_success_is_a_failure(send_test):
    partial = ExportLogsServiceResponse()
    partial.partial_success.rejected_log_records = 1
    partial.partial_success.error_message = "too\x1b[31m old"
    with Receiver() as receiver:
        receiver.script += [Answer(200, keep=True), Answer(200, body=partial.SerializeToString())]
        code, text, _ = send_test(f"exporters.otlp_http.endpoint={receiver.endpoint}")

    assert code == 1
    assert "BROKEN logs: answered with success, and rejected 1 of 1: too [31m old" in text


@pytest.mark.parametrize("status", [429, 503])
def test_it_is_tried_once_also_where_the_agent_would_try_again(send_test, status):
    with Receiver() as receiver:
        receiver.script.append(Answer(status, headers=(("Retry-After", "3600"),)))
        code, text, _ = send_test(f"exporters.otlp_http.endpoint={receiver.endpoint}")

    assert code == 1
    assert f"BROKEN metrics: {receiver.endpoint}/v1/metrics: HTTP {status}" in text
    assert "try again" in text
    assert len(receiver.requests) == 3, "one for each signal"


def test_one_that_is_out_of_reach_does_not_keep_the_next_from_being_tried(send_test):
    with Receiver() as gone:
        endpoint = gone.endpoint
    with Receiver() as receiver:
        code, text, _ = send_test(
            f"exporters.otlp_http/gone.endpoint={endpoint}", f"exporters.otlp_http/there.endpoint={receiver.endpoint}"
        )

    assert code == 1
    assert f"EXPORTER otlp_http/gone BROKEN metrics: {endpoint}/v1/metrics: connection refused" in text
    assert "EXPORTER otlp_http/there ok metrics: accepted" in text


def test_only_what_the_pipelines_send_there_is_tried(send_test):
    with Receiver() as receiver:
        code, text, _ = send_test(
            f"exporters.otlp_http.endpoint={receiver.endpoint}", f"service.pipelines.metrics={METRICS_ONLY}"
        )

    assert code == 0
    assert [path for path, _, _ in receiver.requests] == ["/v1/metrics"]
    assert "logs" not in text


def test_no_secret_is_told_whatever_the_backend_repeats(send_test):
    with Receiver() as receiver:
        answer = Answer(403, body=b"the key hunter2-hunter2 may not write; got Basic c2VjcmV0OnNlY3JldA==")
        receiver.script += [answer, Answer(0), Answer(503)]
        endpoint = receiver.endpoint.replace("http://", "http://someone:pass-word@")
        code, text, log = send_test(
            f"exporters.otlp_http.endpoint={endpoint}/",
            "exporters.otlp_http.headers.api-key=hunter2-hunter2",
            "exporters.otlp_http.headers.Authorization=Basic c2VjcmV0OnNlY3JldA==",
        )

    assert code == 1
    assert f"refused: {receiver.endpoint}/v1/metrics: HTTP 403 the key [redacted] may not write" in text
    for secret in ("hunter2", "c2VjcmV0", "pass-word", "someone"):
        assert secret not in text + log


def test_files_get_their_lines_debug_prints_and_nobody_needs_a_backend(send_test, tmp_path):
    code, text, log = send_test(f"exporters.file.path={tmp_path}/out", "exporters.debug=")

    assert code == 0
    assert f"metrics: written to {tmp_path}/out" in text
    assert len((tmp_path / "out").read_text().splitlines()) == 3
    assert "EXPORTER debug ok metrics: printed" in text
    assert "event " in log
    assert "pgsonar.test" in log


def test_a_certificate_that_is_none_is_an_answer(send_test, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    code, text, _ = send_test(
        "exporters.otlp_http.endpoint=https://127.0.0.1:1", f"exporters.otlp_http.tls.ca_file={tmp_path}/ca.pem"
    )

    assert code == 1
    assert "BROKEN metrics: " in text


def test_nothing_to_send_to_is_a_failure(monkeypatch, send_test):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    code, text, _ = send_test()

    assert code == 1
    assert "nothing is sent anywhere" in text


def test_machines_are_told_the_same(capsys):
    with Receiver() as receiver:
        receiver.script.append(Answer(400))
        code = main(
            ["doctor", "--send-test", "--format", "json", "--set", f"exporters.otlp_http.endpoint={receiver.endpoint}"]
        )
    checks = [check for check in json.loads(capsys.readouterr().out) if check["area"] == "EXPORTER otlp_http"]

    assert code == 1
    assert [check["state"] for check in checks] == ["broken", "ok", "ok"]
