"""Connections that are kept, lost and made anew; endpoints as people write them; an end that is bounded."""

import socket
import threading
import time

import pytest

from otlp_servers import NOTHING, GrpcBackend, listening
from pgsonar.config.schema import OtlpExporter, RetryOnFailure
from pgsonar.config.units import Duration
from pgsonar.demo.receiver import Receiver
from pgsonar.exporters.delivery import Retryable
from pgsonar.exporters.otlp_grpc import GrpcTransport
from pgsonar.exporters.otlp_http import HttpTransport
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow
from ports import free_port
from sending import build
from waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
KINDS = {"http": HttpTransport, "grpc": GrpcTransport}
both = pytest.mark.parametrize("protocol", ["http", "grpc"])


def transport(protocol, endpoint, **settings):
    return KINDS[protocol](OtlpExporter(endpoint=endpoint, **{"timeout": Duration(5), **settings}), environ={})


def read_request(connection):
    """The whole of one request; nothing where the other side is done."""
    text = b""
    while b"\r\n\r\n" not in text:
        if not (piece := connection.recv(65536)):
            return b""
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return head


def test_a_connection_is_kept():
    connections = []

    def talk(connection):
        connections.append(connection)
        while read_request(connection):
            connection.sendall(OK)

    with listening(talk) as port:
        sender = transport("http", f"http://127.0.0.1:{port}")
        for _ in range(5):
            sender.deliver(NOTHING)
        sender.close()

    assert len(connections) == 1


def test_a_kept_connection_that_is_closed_under_a_request_costs_nothing():
    requests = []

    def talk(connection):
        for _ in range(2):
            requests.append(read_request(connection))
            if len(requests) == 2:
                return  # read, and closed without an answer: what a restart of the backend looks like
            connection.sendall(OK)

    with listening(talk) as port:
        sender = transport("http", f"http://127.0.0.1:{port}")
        sender.deliver(NOTHING)
        sender.deliver(NOTHING)
        sender.close()

    assert len([request for request in requests if request]) == 3


def test_a_new_connection_that_is_closed_is_a_failure_at_once():
    requests = []
    with listening(lambda connection: requests.append(read_request(connection))) as port:
        sender = transport("http", f"http://127.0.0.1:{port}")
        with pytest.raises(Retryable, match="the connection was closed"):
            sender.deliver(NOTHING)
        sender.close()

    assert len(requests) == 1


@both
def test_a_restart_between_two_requests_is_no_failure(protocol):
    def start(port=0):
        return GrpcBackend(port=port) if protocol == "grpc" else Receiver(port=port)

    with start() as backend:
        port = backend.port
        sender = transport(protocol, f"http://127.0.0.1:{port}")
        sender.deliver(NOTHING)
    with start(port):
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


@both
def test_a_backend_that_comes_back_is_found_by_the_next_request(protocol):
    port = free_port()
    sender = transport(protocol, f"http://127.0.0.1:{port}")
    for _ in range(5):  # grpc would pause longer with each of them
        with pytest.raises(Retryable, match="connection refused"):
            sender.deliver(NOTHING)
    with GrpcBackend(port=port) if protocol == "grpc" else Receiver(port=port):
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


@both
def test_after_a_request_that_timed_out_the_next_one_has_a_connection_of_its_own(protocol):
    connections = []

    def talk(connection):
        connections.append(connection)
        time.sleep(5)

    with listening(talk) as port:
        sender = transport(protocol, f"http://127.0.0.1:{port}", timeout=Duration(0.3))
        for _ in range(2):
            with pytest.raises(Retryable, match="timed out"):
                sender.deliver(NOTHING)
        sender.close()

    assert len(connections) == 2


DRIPS = {
    "a status line that never ends": b"",
    "headers that never end": b"HTTP/1.1 200 OK\r\nX: ",
    "an answer before the final one": b"HTTP/1.1 103 Early Hints\r\nLink: ",
}
BODIES = {
    "of a known length": b"HTTP/1.1 503 Wait\r\nContent-Length: 60000\r\n\r\n",
    "in chunks": b"HTTP/1.1 503 Wait\r\nTransfer-Encoding: chunked\r\n\r\n9999\r\n",
    "to the end of the connection": b"HTTP/1.1 503 Wait\r\nConnection: close\r\n\r\n",
}


def dripping(start, ended):
    """Sends its answer a byte at a time, which no wait for the next one is too long for."""

    def talk(connection):
        connection.recv(65536)
        connection.sendall(start)
        try:
            for _ in range(200):
                time.sleep(0.1)
                connection.sendall(b"x")
        finally:
            ended.append(time.monotonic())

    return talk


@pytest.mark.parametrize("start", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_comes_in_drips_is_given_up_in_time(start):
    begun, ended = time.monotonic(), []
    with listening(dripping(start, ended)) as port:
        sender = transport("http", f"http://127.0.0.1:{port}", timeout=Duration(0.5))
        for _ in range(2):
            with pytest.raises(Retryable, match="timed out"):
                sender.deliver(NOTHING)
        until(lambda: len(ended) == 2)  # each had a connection of its own, which is closed
        sender.close()

    assert max(ended) - begun < 5


@pytest.mark.parametrize("start", BODIES.values(), ids=BODIES)
def test_a_text_that_comes_in_drips_is_given_up_in_time_and_the_status_counts(start):
    begun, ended = time.monotonic(), []
    with listening(dripping(start, ended)) as port:
        sender = transport("http", f"http://127.0.0.1:{port}", timeout=Duration(0.5))
        for _ in range(2):
            with pytest.raises(Retryable, match="503"):
                sender.deliver(NOTHING)
        until(lambda: len(ended) == 2)
        sender.close()

    assert max(ended) - begun < 5


def test_a_kept_connection_on_which_nothing_more_comes_is_given_up_once():
    requests = []

    def talk(connection):
        while requests.append(read_request(connection)) or requests[-1]:
            if len(requests) == 1:
                connection.sendall(OK)

    with listening(talk) as port:
        sender = transport("http", f"http://127.0.0.1:{port}", timeout=Duration(0.5))
        sender.deliver(NOTHING)
        with pytest.raises(Retryable, match="timed out"):
            sender.deliver(NOTHING)
        sender.close()

    assert len([request for request in requests if request]) == 2


def test_a_deadline_is_that_of_one_request():
    def talk(connection):
        while read_request(connection):
            time.sleep(0.2)
            connection.sendall(OK)

    with listening(talk) as port:
        sender = transport("http", f"http://127.0.0.1:{port}", timeout=Duration(0.5))
        for _ in range(5):
            assert sender.deliver(NOTHING) == (0, "")
        sender.close()


@both
def test_a_host_may_be_an_address_of_ipv6(protocol):
    received = []

    def talk(connection):
        received.append(connection.recv(65536))

    with listening(talk, socket.AF_INET6) as port:
        sender = transport(protocol, f"http://[::1]:{port}")
        with pytest.raises(Retryable) as caught:
            sender.deliver(NOTHING)
        sender.close()

    assert received
    assert f"[::1]:{port}" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("", "/v1/logs"),
        ("/", "/v1/logs"),
        ("//", "/v1/logs"),
        ("/otlp", "/otlp/v1/logs"),
        ("/otlp/", "/otlp/v1/logs"),
        ("/otlp/v1/logs", "/otlp/v1/logs"),
        ("/otlp/v1/metrics", "/otlp/v1/logs"),
        ("/v1/traces/", "/v1/logs"),
        ("/otlp?tenant=a%20b", "/otlp/v1/logs?tenant=a%20b"),
    ],
)
def test_an_endpoint_of_http_may_be_written_like_this(written, path):
    paths = []

    def talk(connection):
        paths.append(read_request(connection).split()[1].decode())
        connection.sendall(OK)

    with listening(talk) as port:
        sender = transport("http", f"http://127.0.0.1:{port}{written}")
        sender.deliver(NOTHING)
        sender.close()

    assert paths == [path]


@pytest.mark.parametrize("written", ["localhost:{}", "http://localhost:{}", "127.0.0.1:{}", "http://127.0.0.1:{}/"])
def test_an_endpoint_of_grpc_may_be_written_like_this(written):
    with GrpcBackend() as backend:
        sender = transport("grpc", written.format(backend.port))
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain", "X-Key": "v"}, {"content-type": "application/json", "x-key": "v"}]
)
def test_headers_are_sent_once_and_ours_are_ours(headers):
    heads = []

    def talk(connection):
        heads.append(read_request(connection).decode().lower())
        connection.sendall(OK)

    with listening(talk) as port, GrpcBackend() as backend:
        for sender in (
            transport("http", f"http://127.0.0.1:{port}", headers=headers),
            transport("grpc", f"127.0.0.1:{backend.port}", headers=headers),
        ):
            sender.deliver(NOTHING)
            sender.close()

    assert heads[0].count("content-type:") == 1
    assert "content-type: application/x-protobuf" in heads[0]
    assert "x-key: v" in heads[0]
    ((metadata, _, _),) = backend.calls
    assert metadata["x-key"] == "v"
    assert metadata["user-agent"].startswith("OTel-OTLP-Exporter-pgsonar/")


def test_user_and_password_of_an_endpoint_become_a_header():
    heads = []

    def talk(connection):
        heads.append(read_request(connection).decode())
        connection.sendall(OK)

    with listening(talk) as port:
        sender = transport("http", f"http://us%40er:s3cret@127.0.0.1:{port}/otlp")
        sender.deliver(NOTHING)
        sender.close()

    assert "Authorization: Basic dXNAZXI6czNjcmV0" in heads[0]  # us@er:s3cret
    assert f"Host: 127.0.0.1:{port}" in heads[0]


@both
@pytest.mark.parametrize("at", ["silence", "answer"])
def test_closing_interrupts_a_request_that_hangs(protocol, at):
    met = threading.Event()

    def talk(connection):
        connection.recv(65536)
        if at == "answer":
            connection.sendall(b"HTTP/1.1 503 Wait\r\nContent-Length: 9\r\n\r\nx")
        met.set()
        time.sleep(20)

    with listening(talk) as port:
        sender = transport(protocol, f"http://127.0.0.1:{port}", timeout=Duration(20))
        ended = []

        def deliver():
            try:
                sender.deliver(NOTHING)
            except Retryable as error:
                ended.append(str(error))

        thread = threading.Thread(target=deliver)
        thread.start()
        assert met.wait(5)
        sender.close()
        thread.join(5)

    assert not thread.is_alive()
    assert len(ended) == 1


@both
def test_nothing_is_sent_after_the_end(protocol):
    with GrpcBackend() if protocol == "grpc" else Receiver() as backend:
        sender = transport(protocol, f"http://127.0.0.1:{backend.port}")
        sender.deliver(NOTHING)
        sender.close()
        for _ in range(2):
            with pytest.raises(Retryable, match="being closed"):
                sender.deliver(NOTHING)
        sender.close()


@both
def test_the_sender_is_gone_soon_after_the_end_and_what_hung_is_still_counted(protocol, caplog):
    def talk(connection):
        connection.recv(65536)
        time.sleep(20)

    with listening(talk) as port:
        retry = RetryOnFailure(initial_interval=Duration(0.05), max_interval=Duration(0.1))
        config = OtlpExporter(endpoint=f"http://127.0.0.1:{port}", timeout=Duration(20), retry_on_failure=retry)
        exporter = build(f"otlp_{protocol}", config)
        exporter.export(Batch("logs", [(Resource(()), [EventRow("e", 1, 9, "info", "text", {}, 1, 1)])]))
        unsent = exporter.close(0.5)
        until(lambda: not exporter.exporter._thread.is_alive())

    assert unsent == 1
    assert "it is tried again" not in caplog.text
