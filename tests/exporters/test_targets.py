"""Delivery to endpoints as people write them: over a unix socket, to an address in brackets, with a zone, by dns:."""

import http.client
import threading

import pytest

from certificates import Authority
from otlp_servers import NOTHING, GrpcBackend, listening
from pgsonar.config.load import load
from pgsonar.config.schema import OtlpExporter, TlsClient
from pgsonar.config.units import Duration
from pgsonar.demo.receiver import Receiver
from pgsonar.exporters.delivery import Retryable
from pgsonar.exporters.otlp_grpc import GrpcTransport
from pgsonar.exporters.otlp_http import HttpTransport
from pgsonar.serving import Answer, LocalServer

PROXIES = {"HTTPS_PROXY": "http://192.0.2.1:1", "HTTP_PROXY": "http://192.0.2.1:1"}


def delivered(endpoint, environ=None, **settings):
    sender = GrpcTransport(OtlpExporter(endpoint=endpoint, timeout=Duration(5), **settings), environ=environ or {})
    try:
        return sender.deliver(NOTHING)
    finally:
        sender.close()


@pytest.mark.parametrize("spelled", ["unix://{}", "unix:{}"])
def test_grpc_goes_over_a_unix_socket_in_the_clear_and_past_every_proxy(tmp_path, spelled):
    path = tmp_path / "otel.sock"
    with GrpcBackend(place=f"unix:{path}") as backend:
        assert delivered(spelled.format(path), environ=PROXIES) == (0, "")

    assert len(backend.calls) == 1


def test_grpc_speaks_tls_over_a_unix_socket_where_it_is_configured(tmp_path):
    authority = Authority(tmp_path)
    with GrpcBackend(authority.issue("backend"), place=f"unix:{tmp_path}/otel.sock") as backend:
        tls = TlsClient(ca_file=str(authority.file), server_name_override="localhost")
        assert delivered(f"unix://{tmp_path}/otel.sock", tls=tls) == (0, "")

    assert backend.calls[0][2]["transport_security_type"] == [b"ssl"]


def test_a_unix_socket_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(Retryable, match=f"unix:{tmp_path}/none: there is no such socket") as caught:
        delivered(f"unix://{tmp_path}/none")
    assert "receiver" in caught.value.hint


@pytest.mark.parametrize(
    "spelled",
    ["dns:///localhost:{}", "dns:localhost:{}", "[127.0.0.1]:{}", "http://[127.0.0.1]:{}/", "HTTP://LOCALHOST:{}"],
)
def test_grpc_dials_what_was_written(spelled):
    with GrpcBackend() as backend:
        assert delivered(spelled.format(backend.port), environ=PROXIES) == (0, "")


@pytest.mark.parametrize("spelled", ["[::1]:{}", "dns:///[::1]:{}", "[::1%1]:{}", "http://[::1%251]:{}"])
def test_grpc_dials_ipv6_with_and_without_a_zone(spelled):
    with GrpcBackend(place="[::1]:0") as backend:
        assert delivered(spelled.format(backend.port), tls=TlsClient(insecure=True)) == (0, "")


@pytest.mark.parametrize("spelled", ["localhost:{}", "dns:///localhost:{}", "https://localhost:{}"])
def test_https_and_a_configured_authority_mean_tls(tmp_path, spelled):
    authority = Authority(tmp_path)
    with GrpcBackend(authority.issue("localhost")) as backend:
        assert delivered(spelled.format(backend.port), tls=TlsClient(ca_file=str(authority.file))) == (0, "")


def test_https_of_the_environment_means_tls_on_this_host_as_well():
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://localhost:4317"}
    exporter = load([], [], environ).exporters["otlp_grpc"]
    hellos = []
    with listening(lambda connection: hellos.append(connection.recv(3))) as port:
        endpoint = exporter.endpoint.replace("4317", str(port))
        sender = GrpcTransport(OtlpExporter(endpoint=endpoint, tls=exporter.tls, timeout=Duration(1)), environ={})
        with pytest.raises(Retryable):
            sender.deliver(NOTHING)
        sender.close()

    assert hellos[0][:2] == b"\x16\x03", "a handshake of TLS"


@pytest.mark.parametrize("spelled", ["unix:///run/otel.sock", "dns:///localhost:4317"])
@pytest.mark.parametrize("insecure", [None, "true", "false"])
def test_what_says_nothing_of_tls_in_the_environment_is_as_the_variable_says(spelled, insecure):
    variables = {"PROTOCOL": "grpc", "ENDPOINT": spelled} | ({"INSECURE": insecure} if insecure else {})
    config = load([], [], {f"OTEL_EXPORTER_OTLP_{name}": text for name, text in variables.items()})

    assert config.exporters["otlp_grpc"] == OtlpExporter(endpoint=spelled, tls=TlsClient(insecure=insecure == "true"))
    assert config.warnings == []


def test_http_goes_to_an_address_in_brackets():
    with Receiver() as receiver:
        sender = HttpTransport(OtlpExporter(endpoint=f"http://[127.0.0.1]:{receiver.port}"), environ={})
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()

    assert receiver.requests[0][1]["Host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("spelled", ["http://[::1]:{}", "http://[::1%251]:{}", "http://[::1%1]:{}"])
def test_http_goes_to_ipv6_with_and_without_a_zone(spelled):
    seen = []

    def answer(*asked):
        seen.append(asked)
        return Answer(200, "text/plain", b"")

    server, stop = LocalServer("x", "[::1]:0", answer), threading.Event()
    serving = threading.Thread(target=server.serve, args=(stop,))
    serving.start()
    sender = HttpTransport(OtlpExporter(endpoint=spelled.format(server.port), timeout=Duration(5)), environ={})
    try:
        with pytest.raises(Exception, match="501"):  # it answers GET alone: the request has come
            sender.deliver(NOTHING)
    finally:
        sender.close()
        stop.set()
        serving.join()


@pytest.mark.parametrize("host", ["[::1]", "[127.0.0.1]", "[::1%1]"])
def test_a_listener_listens_at_an_address_in_brackets(host):
    server, stop = LocalServer("x", f"{host}:0", lambda *_: Answer(200, "text/plain", b"well")), threading.Event()
    serving = threading.Thread(target=server.serve, args=(stop,))
    serving.start()
    try:
        asked = http.client.HTTPConnection(host.strip("[]"), server.port, timeout=5)
        asked.request("GET", "/", headers={"Host": "x"})
        assert asked.getresponse().read() == b"well"
        asked.close()
    finally:
        stop.set()
        serving.join()
