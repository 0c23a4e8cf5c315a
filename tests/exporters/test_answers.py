"""What backends answer, over both protocols: what is tried again and when, what is cut, what is refused and why."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration as Seconds
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otlp_servers import NOTHING, GrpcBackend, listening
from pgsonar.config.schema import OtlpExporter
from pgsonar.config.units import Duration
from pgsonar.demo.receiver import Answer, Receiver
from pgsonar.exporters.delivery import Refused, Retryable, TooLarge
from pgsonar.exporters.otlp_grpc import GrpcTransport
from pgsonar.exporters.otlp_http import HttpTransport
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow
from ports import free_port
from sending import build
from waiting import until

KEY = "key-of-the-backend"


def http(endpoint, **settings):
    config = OtlpExporter(endpoint=endpoint, headers={"api-key": KEY}, timeout=Duration(5), **settings)
    return HttpTransport(config, environ={})


def answered(answer, wanted):
    """What becomes of a request that is answered so."""
    with Receiver() as receiver:
        receiver.script.append(answer)
        sender = http(receiver.endpoint)
        with pytest.raises(wanted) as caught:
            sender.deliver(NOTHING)
        sender.close()
    return caught.value


def called(script, wanted, **settings):
    """The same over gRPC."""
    with GrpcBackend() as backend:
        backend.script.append(script)
        config = OtlpExporter(endpoint=f"127.0.0.1:{backend.port}", headers={"Api-Key": KEY}, **settings)
        sender = GrpcTransport(config, environ={})
        with pytest.raises(wanted) as caught:
            sender.deliver(NOTHING)
        sender.close()
    return caught.value


def abort(code, details="", delay=None):
    """A call that ends with a status, and with a RetryInfo where there is a delay."""

    def script(context):
        if delay is not None:
            info = Any()
            info.Pack(RetryInfo(retry_delay=Seconds(seconds=int(delay), nanos=round(delay % 1 * 1e9))))
            status = Status(code=code.value[0], details=[info])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, details)

    return script


@pytest.mark.parametrize("status", [407, 429, 502, 503, 504])
def test_what_may_be_tried_again_over_http(status):
    error = answered(Answer(status, body=b"over quota"), Retryable)

    assert str(error).endswith(f"/v1/logs: HTTP {status} over quota")
    assert error.wait is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 415, 418, 500, 501, 505])
def test_what_may_not(status):
    error = answered(Answer(status), Refused)

    assert f"HTTP {status}" in str(error)
    assert bool(error.hint) == (status in {400, 401, 403, 404, 405, 415})


def test_what_is_too_large_is_told_apart():
    assert "HTTP 413" in str(answered(Answer(413), TooLarge))


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        (" 0 ", 0, 0),
        (timedelta(seconds=300), 200, 300),
        (timedelta(seconds=-300), 0, 0),
        ("86400", 3600, 3600),
        ("9" * 400, 3600, 3600),
        (timedelta(days=365), 3600, 3600),
    ],
    ids=["seconds", "none", "a date", "a date before", "a day", "absurd", "a date in a year"],
)
def test_the_time_a_backend_asks_for_is_given_within_an_hour(value, least, most):
    if isinstance(value, timedelta):  # from now on, which is long after tests were collected
        value = format_datetime(datetime.now(UTC) + value, usegmt=True)
    error = answered(Answer(429, (("Retry-After", value),)), Retryable)

    assert least <= error.wait <= most
    assert ("it asks to wait" in str(error)) == (most == 3600)


@pytest.mark.parametrize("value", ["soon", "-5", "1.5.2", "²", "Mon, 99 Foo 2026", "Mon, 01 Jan 99999 00:00:00 GMT"])
def test_a_time_that_is_none_is_not_followed(value):
    assert answered(Answer(503, (("Retry-After", value.encode().decode("latin-1")),)), Retryable).wait is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_host_is_shown(status):
    with Receiver() as elsewhere:
        headers = (("Location", f"{elsewhere.endpoint}/v1/logs?token=s3cret"),)
        error = answered(Answer(status, headers), Refused)

    assert elsewhere.requests == []
    assert error.hint.endswith(elsewhere.endpoint)


@pytest.mark.parametrize("location", ["/login", "", "http://[", "//"])
def test_a_redirect_to_nowhere_is_a_refusal_as_well(location):
    assert "endpoint" in answered(Answer(302, (("Location", location),)), Refused).hint


@pytest.mark.parametrize("status", [200, 202, 204, 299])
@pytest.mark.parametrize("body", [b"", b"OK", b'{"status":"ok"}', b"\x0a\xff\xff"])
def test_every_2xx_is_success_whatever_it_says(status, body):
    with Receiver() as receiver:
        receiver.script.append(Answer(status, body=b"" if status == 204 else body))
        sender = http(receiver.endpoint)
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


def partial(rejected, message):
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = message
    return answer.SerializeToString()


@pytest.mark.parametrize(("told", "counted"), [(0, 0), (2, 2), (99, 3), (-4, 0)])
def test_what_is_rejected_is_never_more_than_was_sent(told, counted):
    with Receiver() as receiver, GrpcBackend() as backend:
        receiver.script.append(Answer(200, body=partial(told, f"refused, {KEY}")))
        backend.script.append(lambda _context: partial(told, f"refused, {KEY}"))
        grpc_sender = GrpcTransport(OtlpExporter(endpoint=f"127.0.0.1:{backend.port}", headers={"k": KEY}), environ={})
        for sender in (http(receiver.endpoint), grpc_sender):
            assert sender.deliver(NOTHING) == (counted, "refused, [redacted]")
            sender.close()


def test_a_remark_without_a_rejection_is_said_once_and_nothing_is_lost(caplog):
    with Receiver() as receiver:
        receiver.script.extend([Answer(200, body=partial(0, "metric names are deprecated"), keep=True)] * 3)
        exporter = build("otlp_http", OtlpExporter(endpoint=receiver.endpoint))
        for number in range(3):
            exporter.export(Batch("logs", [(Resource(()), [EventRow("e", number, 9, "info", "t", {}, 1, 1)])]))
        until(lambda: exporter.stats.sent["logs"] == 3)
        exporter.close(5)

    assert exporter.stats.failed == {}
    assert caplog.text.count("metric names are deprecated") == 1


def test_the_specifications_form_of_an_error_is_read():
    body = Status(code=3, message="no such tenant").SerializeToString()

    assert "HTTP 400 no such tenant" in str(answered(Answer(400, body=body), Refused))


def test_a_page_for_browsers_and_an_endless_body_are_not_shown():
    page = b"<html><body>Bad gateway</body></html>"
    assert str(answered(Answer(502, body=page), Retryable)).endswith("HTTP 502")
    assert len(str(answered(Answer(500, body=b"x" * 1_000_000), Refused))) < 300


@pytest.mark.parametrize(
    "code", ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]
)
def test_what_may_be_tried_again_over_grpc(code):
    error = called(abort(grpc.StatusCode[code], "overloaded"), Retryable)

    assert str(error).endswith(f"{code.lower()}: overloaded")
    assert error.wait is None


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("UNKNOWN", ""),
        ("INTERNAL", ""),
        ("INVALID_ARGUMENT", "temporality"),
        ("UNAUTHENTICATED", "headers"),
        ("PERMISSION_DENIED", "headers"),
        ("UNIMPLEMENTED", "endpoint"),
        ("RESOURCE_EXHAUSTED", "quota"),
    ],
)
def test_what_may_not_over_grpc(code, hint):
    error = called(abort(grpc.StatusCode[code], "no"), Refused)

    assert str(error).endswith(f"{code.lower()}: no")
    assert hint in error.hint


@pytest.mark.parametrize(("delay", "wait"), [(0, 0), (2.5, 2.5), (86400, 3600)])
@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
def test_a_backend_says_when_to_come_again_over_grpc(code, delay, wait):
    assert called(abort(grpc.StatusCode[code], "later", delay), Retryable).wait == wait


def test_details_that_cannot_be_read_are_no_time_to_come_again():
    def script(context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "")

    called(script, Refused)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (5000000 vs. 4194304)"),
        ("RESOURCE_EXHAUSTED", "grpc: received message after decompression larger than max 4194304"),
        ("OUT_OF_RANGE", "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes"),
    ],
)
def test_what_is_too_large_over_grpc_is_known_by_its_text(code, text):
    called(abort(grpc.StatusCode[code], text), TooLarge)


def test_the_limit_of_a_real_server_of_grpc_is_met():
    with GrpcBackend() as backend:
        sender = GrpcTransport(OtlpExporter(endpoint=f"127.0.0.1:{backend.port}", compression="none"), environ={})
        with pytest.raises(TooLarge):
            sender.deliver(NOTHING._replace(body=b"x" * (5 << 20)))
        sender.close()


def test_http_to_a_port_of_grpc_and_the_reverse_are_told():
    with GrpcBackend() as backend, Receiver() as receiver:
        sender = http(f"http://127.0.0.1:{backend.port}")
        with pytest.raises(Retryable, match=r"does not speak HTTP/1\.1") as caught:
            sender.deliver(NOTHING)
        assert "otlp_grpc" in caught.value.hint
        sender.close()
        sender = GrpcTransport(OtlpExporter(endpoint=f"127.0.0.1:{receiver.port}"), environ={})
        with pytest.raises(Retryable, match="does not speak gRPC") as caught:
            sender.deliver(NOTHING)
        assert "otlp_http" in caught.value.hint
        sender.close()


def test_a_name_that_is_not_known_and_a_port_on_which_nobody_listens():
    port = free_port()
    for sender in (
        http(f"http://127.0.0.1:{port}"),
        GrpcTransport(OtlpExporter(endpoint=f"127.0.0.1:{port}"), "x", {}),
    ):
        with pytest.raises(Retryable, match="connection refused"):
            sender.deliver(NOTHING)
        sender.close()
    for sender in (http("http://no-such.invalid"), GrpcTransport(OtlpExporter(endpoint="no-such.invalid:1"), "x", {})):
        with pytest.raises(Retryable, match="the name of the host"):
            sender.deliver(NOTHING)
        sender.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"\x15\x03\x01", b"HTTP/9\r\n\r\n"]
)
def test_an_answer_that_breaks_off_never_ends_the_sender(answer):
    def talk(connection):
        connection.recv(65536)
        connection.sendall(answer)

    with listening(talk) as port:
        sender = http(f"http://127.0.0.1:{port}")
        if b"200 OK" in answer:  # accepted, whatever is missing of its body
            assert sender.deliver(NOTHING) == (0, "")
        else:
            with pytest.raises(Retryable):
                sender.deliver(NOTHING)
        sender.close()
