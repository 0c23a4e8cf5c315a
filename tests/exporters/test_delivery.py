"""Exporters over real OTLP: what is sent arrives whole; what cannot be sent is kept, tried again, counted and said."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pgsonar.config.schema import DebugExporter, FileExporter, OtlpExporter, RetryOnFailure, SendingQueue
from pgsonar.config.units import Duration
from pgsonar.demo.receiver import Answer, Receiver
from pgsonar.exporters import way_of
from pgsonar.exporters.delivery import Retryable
from pgsonar.exporters.durable import NAME, QueueFile
from pgsonar.exporters.encoding import Encoded, Encoder
from pgsonar.exporters.forms import form_of
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow, Exemplar, MetricRow, Point, SpanRow, Spread
from ports import free_port
from sending import build
from waiting import until

QUICK = RetryOnFailure(initial_interval=Duration(0.05), max_interval=Duration(0.1))
HERE = Resource((("server.address", "db-1"), ("server.port", 5432)))
TRACE, SPAN = 0x0123456789ABCDEF0123456789ABCDEF, 0x1122334455667788

EVENT = EventRow(
    "pgsonar.leak.opened",
    1_700_000_000_123_456_789,
    17,
    "high",
    "a sentence",
    {"pgsonar.leak.members": 3, "pgsonar.leak.member_list": ("1 a 2 3", "4 b 5 6"), "share": 0.25, "aborted": True},
    TRACE,
    SPAN,
)
LEAK_SPAN = SpanRow("pgsonar.leak", TRACE, SPAN, 11, 22, {"error.type": "auth_stuck"}, error=True, links=((7, 8),))
COUNTER = MetricRow(
    "pgsonar.leak.count",
    "counter",
    "{leak}",
    "Leaks.",
    [Point({"pgsonar.leak.kind": "auth_stuck"}, 41, 5, 9, (Exemplar(8, 1, TRACE, SPAN),))],
)
UPDOWN = MetricRow("pgsonar.slot.used", "updowncounter", "{slot}", "Slots.", [Point({"holder": "session"}, 42, 6, 10)])
GAUGE = MetricRow("pgsonar.slot.utilization", "gauge", "1", "Share.", [Point({}, 0.5, 7, 11)])


def events(*bodies):
    return Batch("logs", [(HERE, [EVENT._replace(body=body) for body in bodies])])


ALL = (
    Batch("metrics", [(HERE, [COUNTER, UPDOWN, GAUGE])]),
    events("a sentence"),
    Batch("traces", [(HERE, [LEAK_SPAN])]),
)


def http(endpoint, **changes):
    return build("otlp_http", OtlpExporter(endpoint=endpoint, retry_on_failure=QUICK, **changes))


def bodies(receiver):
    return [event["body"] for event in receiver.events]


@pytest.mark.parametrize("protocol", ["otlp_http", "otlp_grpc"])
def test_every_field_arrives_over_the_wire(protocol):
    with Receiver(grpc=True) as receiver:
        endpoint = receiver.endpoint if protocol == "otlp_http" else f"http://127.0.0.1:{receiver.grpc_port}"
        exporter = build(protocol, OtlpExporter(endpoint=endpoint, retry_on_failure=QUICK))
        for batch in ALL:
            exporter.export(batch)
        unsent = exporter.close(5)

    assert unsent == 0
    assert exporter.stats.sent == {"metrics": 3, "logs": 1, "traces": 1}
    resource = {"server.address": "db-1", "server.port": 5432}
    ids = {"trace_id": f"{TRACE:032x}", "span_id": f"{SPAN:016x}"}
    (event,) = receiver.events
    assert event == {
        "event_name": "pgsonar.leak.opened",
        "time": 1_700_000_000_123_456_789,
        "severity": 17,
        "severity_text": "high",
        "body": "a sentence",
        "attributes": {
            "pgsonar.leak.members": 3,
            "pgsonar.leak.member_list": ["1 a 2 3", "4 b 5 6"],
            "share": 0.25,
            "aborted": True,
            "event.name": "pgsonar.leak.opened",
        },
        "resource": event["resource"],
        **ids,
    }
    assert resource.items() <= event["resource"].items()
    (span,) = receiver.spans
    assert (span["name"], span["start"], span["end"], span["status"], span["kind"]) == ("pgsonar.leak", 11, 22, 2, 1)
    assert (span["trace_id"], span["span_id"], span["links"]) == (*ids.values(), [(f"{7:032x}", f"{8:016x}")])
    told = {
        p["name"]: (p["shape"], p["monotonic"], p["temporality"], p["value"], p["start"], p["time"], p["unit"])
        for p in receiver.points
    }
    assert told == {
        "pgsonar.leak.count": ("sum", True, 2, 41, 5, 9, "{leak}"),
        "pgsonar.slot.used": ("sum", False, 2, 42, 6, 10, "{slot}"),
        "pgsonar.slot.utilization": ("gauge", None, None, 0.5, 0, 11, "1"),
    }
    assert receiver.points[0]["exemplars"] == [tuple(ids.values())]


def test_requests_are_compressed_and_carry_the_headers():
    with Receiver() as receiver:
        exporter = http(receiver.endpoint + "/otlp", headers={"api-key": "secret-1"})
        exporter.export(events("x"))
        exporter.close(5)
    ((path, headers, _),) = receiver.requests

    assert path == "/otlp/v1/logs"
    assert (headers["Content-Encoding"], headers["Content-Type"]) == ("gzip", "application/x-protobuf")
    assert headers["api-key"] == "secret-1"
    assert headers["User-Agent"].startswith("OTel-OTLP-Exporter-pgsonar/")


def test_a_signals_own_endpoint_is_taken_as_it_is():
    with Receiver() as receiver:
        exporter = http("http://127.0.0.1:1", logs_endpoint=f"{receiver.endpoint}/my/logs", compression="none")
        exporter.export(events("x"))
        exporter.close(5)

    assert [(path, "Content-Encoding" in headers) for path, headers, _ in receiver.requests] == [("/my/logs", False)]


@pytest.mark.parametrize("status", [429, 502, 503, 504, 0])
def test_a_passing_trouble_is_tried_again_and_order_is_kept(status):
    with Receiver() as receiver:
        receiver.script.extend([Answer(status), Answer(status)])
        exporter = http(receiver.endpoint)
        for body in ("first", "second"):
            exporter.export(events(body))
        until(lambda: len(receiver.events) == 2)
        exporter.close(5)

    assert bodies(receiver) == ["first", "second"]
    assert exporter.stats.retries == 2
    assert exporter.stats.failing_since is None


def test_a_backend_asks_for_time_and_gets_it():
    with Receiver() as receiver:
        receiver.script.append(Answer(429, (("Retry-After", "1"),)))
        exporter = http(receiver.endpoint)
        began = time.monotonic()
        exporter.export(events("x"))
        until(lambda: receiver.events)
        exporter.close(5)

    assert time.monotonic() - began >= 1


def test_nothing_is_lost_while_nobody_listens():
    port = free_port()
    exporter = http(f"http://127.0.0.1:{port}")
    for body in ("a", "b", "c"):
        exporter.export(events(body))
    until(lambda: exporter.stats.failing_since is not None)
    assert exporter.stats.last_error == f"http://127.0.0.1:{port}/v1/logs: connection refused"

    with Receiver(port=port) as late:
        until(lambda: len(late.events) == 3)
        exporter.close(5)

    assert bodies(late) == ["a", "b", "c"]


@pytest.mark.parametrize(("status", "hint"), [(400, "temporality"), (401, "headers"), (404, "endpoint")])
def test_a_refusal_is_counted_and_explained_and_the_next_batch_goes_on(status, hint, caplog):
    with Receiver() as receiver:
        receiver.script.append(Answer(status, body=b"no such thing"))
        exporter = http(receiver.endpoint, headers={"api-key": "secret-2"})
        exporter.export(events("lost", "too"))
        exporter.export(events("kept"))
        until(lambda: receiver.events)
        exporter.close(5)

    assert exporter.stats.failed == {"logs": 2}
    assert exporter.stats.sent == {"logs": 1}
    assert f"HTTP {status} no such thing" in exporter.stats.last_error
    assert hint in caplog.text
    assert "secret-2" not in caplog.text + exporter.stats.last_error


def test_a_request_that_is_too_large_is_cut_until_it_is_taken(caplog):
    with Receiver() as receiver:
        receiver.script.extend([Answer(413), Answer(413)])
        exporter = http(receiver.endpoint)
        exporter.export(events("a", "b", "c", "d"))
        until(lambda: len(receiver.events) == 4)
        exporter.close(5)

    assert bodies(receiver) == ["a", "b", "c", "d"]
    assert exporter.stats.sent == {"logs": 4}
    assert exporter.stats.failed == {}


def test_one_item_that_is_too_large_is_lost_alone_and_said(caplog):
    with Receiver() as receiver:
        receiver.script.extend([Answer(413)] * 2)
        exporter = http(receiver.endpoint)
        exporter.export(events("large", "kept"))
        until(lambda: receiver.events)
        exporter.close(5)

    assert bodies(receiver) == ["kept"]
    assert (exporter.stats.sent, exporter.stats.failed) == ({"logs": 1}, {"logs": 1})
    assert "larger than is accepted" in caplog.text


def test_what_nobody_foresaw_is_tried_again():
    with Receiver() as receiver:
        exporter = http(receiver.endpoint)
        transport = exporter.exporter._transport
        whole, failures = transport.deliver, [RuntimeError("no such attribute"), KeyError("x")]

        def deliver(encoded):
            if failures:
                raise failures.pop()
            return whole(encoded)

        transport.deliver = deliver
        exporter.export(events("x"))
        until(lambda: receiver.events)
        exporter.close(5)

    assert bodies(receiver) == ["x"]
    assert exporter.stats.retries == 2


def test_a_request_nobody_can_deal_with_is_lost_alone(monkeypatch, caplog):
    with Receiver() as receiver:
        receiver.script.append(Answer(413))
        exporter = http(receiver.endpoint)
        exporter.exporter.put(Encoded("logs", b"\xff\xff no message", 2))  # it cannot be cut
        exporter.export(events("kept"))
        until(lambda: receiver.events)
        exporter.close(5)

    assert bodies(receiver) == ["kept"]
    assert exporter.stats.failed == {"logs": 2}
    assert "2 items of logs are lost: unexpected DecodeError" in caplog.text


@pytest.mark.parametrize("value", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_backend_that_asks_for_no_time_is_not_asked_again_at_once(value):
    slow = RetryOnFailure(initial_interval=Duration(60), max_interval=Duration(60))
    with Receiver() as receiver:
        receiver.script.extend([Answer(429, (("Retry-After", value),))] * 1000)
        exporter = build("otlp_http", OtlpExporter(endpoint=receiver.endpoint, retry_on_failure=slow))
        exporter.export(events("x"))
        until(lambda: exporter.stats.retries)
        time.sleep(1)
        asked = len(receiver.requests)
        exporter.close(0)

    assert asked == 1


def test_pauses_differ_so_that_a_fleet_does_not_come_back_at_once():
    slow = RetryOnFailure(initial_interval=Duration(60), max_interval=Duration(60))
    port = free_port()
    pauses = {"own": [], "asked": []}
    for asked in ("own", "asked"):
        for _ in range(20):
            exporter = build("debug", DebugExporter()).exporter
            exporter._retry = slow
            lane = exporter._lanes["logs"]
            exporter._put_off(lane, Retryable("no", None if asked == "own" else 100.0))
            pauses[asked].append(lane.resume_at - time.monotonic())
            exporter.close(1)

    assert port
    assert all(29 < pause <= 60 for pause in pauses["own"])
    assert all(99 < pause <= 120 for pause in pauses["asked"])
    assert all(max(drawn) - min(drawn) > 2 for drawn in pauses.values())


def test_one_refused_request_is_no_failure_once_another_has_arrived():
    with Receiver() as receiver:
        receiver.script.append(Answer(400))
        exporter = http(receiver.endpoint)
        exporter.export(ALL[2])
        until(lambda: exporter.stats.failed)
        refused_since = exporter.stats.failing_since
        exporter.export(ALL[0])
        until(lambda: exporter.stats.sent)
        until(lambda: exporter.stats.failing_since is None)
        exporter.close(5)

    assert refused_since is not None
    assert exporter.stats.failed == {"traces": 1}


def test_what_never_became_a_request_is_counted_and_no_failure_of_the_backend():
    exporter = build("debug", DebugExporter()).exporter
    exporter.lose("metrics", 7, "the agent has come near its memory limit")
    exporter.close(5)

    assert exporter.stats.failed == {"metrics": 7}
    assert exporter.stats.failing_since is None


def test_a_backend_that_was_too_strict_once_is_given_whole_requests_again():
    with Receiver() as receiver:
        receiver.script.extend([Answer(413)] * 3)
        exporter = http(receiver.endpoint)
        exporter.export(events("a", "b", "c", "d"))
        until(lambda: exporter.stats.sent["logs"] + exporter.stats.failed["logs"] == 4)
        before = len(receiver.requests)
        exporter.export(events("e", "f", "g", "h"))
        until(lambda: bodies(receiver)[-1] == "h")
        exporter.close(5)

        assert len(receiver.requests) == before + 1


def test_another_way_is_gone_at_once_whatever_becomes_of_the_one_before():
    slow = RetryOnFailure(initial_interval=Duration(60), max_interval=Duration(60))
    with Receiver() as hanging, Receiver() as receiver:
        hanging.script.append(Answer(200, delay=3.0))
        config = OtlpExporter(endpoint=hanging.endpoint, retry_on_failure=slow)
        exporter = build("otlp_http", config)
        exporter.export(events("x"))
        until(lambda: hanging.requests)
        exporter.exporter.configure(*way_of("otlp_http", OtlpExporter(endpoint=receiver.endpoint)))
        until(lambda: receiver.events, 10)
        exporter.close(5)

    assert exporter.stats.retries == 0


def test_what_waits_is_told_by_signal_and_the_account_adds_up():
    port = free_port()
    exporter = http(f"http://127.0.0.1:{port}")
    for batch in ALL:
        exporter.export(batch)
    until(lambda: exporter.stats.retries)
    waiting = dict(exporter.stats.waiting)
    exporter.close(0)

    assert waiting == {"metrics": 3, "logs": 1, "traces": 1}


def test_a_queue_that_had_grown_gives_its_room_back_once_all_is_sent(tmp_path):
    file = QueueFile(tmp_path)
    port = free_port()
    config = OtlpExporter(endpoint=f"http://127.0.0.1:{port}", retry_on_failure=QUICK)
    exporter = build("otlp_http", config, file.of("otlp_http"))
    for _ in range(40):
        exporter.exporter.put(Encoder(form_of(config)).encode(events(os.urandom(50_000).hex()))[0])

    def size():
        file.run(lambda database: database.execute("pragma wal_checkpoint(truncate)").fetchall(), [])
        return (tmp_path / NAME).stat().st_size

    full = size()
    with Receiver(port=port) as receiver:
        until(lambda: len(receiver.events) == 40, 20)
        until(lambda: size() < 100_000, 20)
        exporter.close(5)
    file.close()

    assert full > 2_000_000


def test_a_signal_that_is_refused_for_now_does_not_hold_up_another():
    port = free_port()
    with Receiver() as receiver:
        exporter = http(receiver.endpoint, logs_endpoint=f"http://127.0.0.1:{port}/v1/logs")
        exporter.export(events("waits"))
        until(lambda: exporter.stats.retries)
        exporter.export(ALL[0])
        until(lambda: receiver.points)

        assert exporter.stats.failing_since is not None
        assert exporter.close(0.2) == 1


def test_what_a_backend_rejects_of_a_request_is_counted(caplog):
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 1
    answer.partial_success.error_message = "too old"
    with Receiver() as receiver:
        receiver.script.append(Answer(200, body=answer.SerializeToString(), keep=True))
        exporter = http(receiver.endpoint)
        exporter.export(events("a", "b", "c"))
        until(lambda: exporter.stats.sent["logs"])
        exporter.close(5)

    assert (exporter.stats.sent["logs"], exporter.stats.failed["logs"]) == (2, 1)
    assert "too old" in caplog.text


def test_a_full_queue_drops_the_oldest_and_counts_it(caplog):
    with Receiver() as receiver:
        receiver.script.extend([Answer(503)] * 4)
        exporter = http(receiver.endpoint, sending_queue=SendingQueue(queue_size=2))
        for body in ("a", "b", "c", "d"):
            exporter.export(events(body))
        until(lambda: len(receiver.events) == 2)
        exporter.close(5)

    assert bodies(receiver) == ["c", "d"]
    assert exporter.stats.dropped == {"logs": 2}
    assert "the oldest data is dropped" in caplog.text


def test_giving_up_after_a_time_is_a_loss_that_is_counted():
    retry = RetryOnFailure(initial_interval=Duration(0.02), max_interval=Duration(0.02), max_elapsed_time=Duration(0.1))
    exporter = build("otlp_http", OtlpExporter(endpoint="http://127.0.0.1:1", retry_on_failure=retry))
    exporter.export(events("x"))
    until(lambda: exporter.stats.failed["logs"] == 1)
    exporter.close(1)


@pytest.mark.parametrize("hangs", [False, True])
def test_the_end_is_bounded_whatever_the_backend_does(hangs):
    with Receiver() as receiver:
        receiver.script.extend([Answer(503, delay=6.0 if hangs else 0.0)] * 100)
        exporter = http(receiver.endpoint)
        exporter.export(events("a", "b"))
        exporter.export(events("c"))
        began = time.monotonic()
        unsent = exporter.close(1.0)
        seconds = time.monotonic() - began

    assert unsent == 3
    assert seconds < 4


def test_the_end_waits_for_no_backend_where_the_next_start_finds_what_is_left(tmp_path):
    with Receiver() as receiver:
        receiver.script.extend([Answer(503)] * 100)
        file = QueueFile(tmp_path)
        endless = OtlpExporter(endpoint=receiver.endpoint, retry_on_failure=QUICK)
        exporter = build("otlp_http", endless, file.of("otlp_http"))
        exporter.export(events("a", "b"))
        until(lambda: exporter.stats.retries)
        before = len(receiver.requests)
        began = time.monotonic()
        unsent = exporter.close(60)
        seconds = time.monotonic() - began
        file.close()

    assert unsent == 0  # none is lost
    assert seconds < 30
    assert before < len(receiver.requests) <= before + 3  # it was tried once more


def test_a_backend_that_hangs_delays_neither_the_caller_nor_another_exporter():
    with Receiver() as slow, Receiver() as quick:
        slow.script.append(Answer(200, delay=6.0))
        exporters = [http(slow.endpoint), http(quick.endpoint)]
        began = time.monotonic()
        for exporter in exporters:
            exporter.export(events("x"))
        handed_over = time.monotonic() - began
        until(lambda: quick.events, 4.0)
        for exporter in exporters:
            exporter.close(1)

    assert handed_over < 3


def test_the_file_holds_a_line_of_json_for_each_request_as_the_collector_writes_it(tmp_path):
    path = tmp_path / "out.jsonl"
    exporter = build("file", FileExporter(path=str(path)))
    for batch in ALL:
        exporter.export(batch)
    exporter.close(5)
    told = {next(iter(line)): line for line in map(json.loads, path.read_text().splitlines())}
    metrics, logs, traces = (told[name] for name in ("resourceMetrics", "resourceLogs", "resourceSpans"))
    record = logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    span = traces["resourceSpans"][0]["scopeSpans"][0]["spans"][0]

    assert (
        (record["traceId"], record["spanId"]) == (span["traceId"], span["spanId"]) == (f"{TRACE:032x}", f"{SPAN:016x}")
    )
    assert (record["timeUnixNano"], record["severityNumber"], record["eventName"]) == (
        "1700000000123456789",
        17,
        "pgsonar.leak.opened",
    )
    assert span["links"][0]["traceId"] == f"{7:032x}"
    total = metrics["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["sum"]
    assert (total["aggregationTemporality"], total["isMonotonic"]) == (2, True)
    assert total["dataPoints"][0]["exemplars"][0]["spanId"] == f"{SPAN:016x}"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_histogram_without_buckets_has_a_count_and_a_sum_and_nothing_made_up(tmp_path, capsys):
    waits = MetricRow("m", "histogram", "s", "", [Point({"a": "b"}, Spread(7, 2.5), 1, 2)])
    path = tmp_path / "out.jsonl"
    for exporter in (build("file", FileExporter(path=str(path))), build("debug", DebugExporter())):
        exporter.export(Batch("metrics", [(Resource(()), [waits])]))
        exporter.close(5)
    (metric,) = json.loads(path.read_text())["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    (point,) = metric["histogram"]["dataPoints"]

    assert (point["count"], point["sum"], point["bucketCounts"]) == ("7", 2.5, ["7"])
    assert not {"min", "max", "explicitBounds"} & point.keys()
    assert metric["histogram"]["aggregationTemporality"] == 2
    assert "7x 2.5 s" in capsys.readouterr().err


def test_a_disk_that_refuses_is_tried_again(tmp_path):
    folder = tmp_path / "later"
    exporter = build("file", FileExporter(path=str(folder / "out.jsonl")))
    exporter.exporter._retry = QUICK
    exporter.export(events("x"))
    until(lambda: exporter.stats.failing_since is not None)
    assert "no such file or directory" in exporter.stats.last_error
    folder.mkdir()
    until(lambda: exporter.stats.sent["logs"] == 1, 8)
    exporter.close(5)

    assert "a sentence" not in (folder / "out.jsonl").read_text()
    assert '"x"' in (folder / "out.jsonl").read_text()


def test_debug_prints_a_line_for_each_series_event_and_span(capsys):
    exporter = build("debug", DebugExporter())
    for batch in ALL:
        exporter.export(batch)
    exporter.close(5)
    lines = capsys.readouterr().err.splitlines()

    assert sorted(lines, key=lambda line: "mes".index(line[0])) == [
        "metric pgsonar.leak.count{pgsonar.leak.kind=auth_stuck} 41 {leak}",
        "metric pgsonar.slot.used{holder=session} 42 {slot}",
        "metric pgsonar.slot.utilization 0.5 1",
        "event 22:13:20.123Z high pgsonar.leak.opened a sentence",
        f"span pgsonar.leak  0.000 s trace {TRACE:032x}",
    ]


def test_the_http_path_brings_in_neither_grpc_nor_requests_nor_a_database_client():
    program = (
        "import sys; from pgsonar.exporters import way_of; from pgsonar.config.schema import OtlpExporter; "
        "way_of('otlp_http', OtlpExporter(endpoint='http://127.0.0.1:1')); "
        "sys.exit(', '.join(sorted({'grpc', 'requests', 'psycopg', 'rich'} & sys.modules.keys())))"
    )
    source = str(Path(__file__).parents[2] / "agent")
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": source}, capture_output=True, text=True, check=False
    )

    assert done.stderr.strip() == ""


def test_a_backend_of_the_tests_says_nothing_of_who_left_before_its_answer(capsys):
    others = set(threading.enumerate())
    with Receiver() as receiver:
        receiver.script.append(Answer(200, delay=0.2))
        with socket.create_connection(("127.0.0.1", receiver.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
            client.sendall(b"POST /v1/logs HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            until(lambda: receiver.requests)
    until(lambda: set(threading.enumerate()) <= others)

    assert capsys.readouterr().err == ""
