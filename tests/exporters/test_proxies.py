"""Proxies over real sockets: who goes through which, with what login, and what their refusals mean."""

import pytest

from certificates import Authority
from otlp_servers import NOTHING, GrpcBackend, Proxy, tls_receiver
from pgsonar.config.schema import OtlpExporter, TlsClient
from pgsonar.config.units import Duration
from pgsonar.demo.receiver import Receiver
from pgsonar.errors import ConfigError
from pgsonar.exporters.delivery import Retryable
from pgsonar.exporters.otlp_grpc import GrpcTransport
from pgsonar.exporters.otlp_http import HttpTransport
from pgsonar.exporters.proxies import proxy_for

LOGIN = "us@er:p/w-of-the-proxy"
SPELLED = "us%40er:p%2Fw-of-the-proxy"


def http(endpoint, environ=None, **settings):
    return HttpTransport(OtlpExporter(endpoint=endpoint, timeout=Duration(5), **settings), environ=environ or {})


def grpc(endpoint, environ=None, **settings):
    return GrpcTransport(OtlpExporter(endpoint=endpoint, timeout=Duration(5), **settings), environ=environ or {})


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def test_http_is_forwarded_with_the_proxys_login_and_without_it_for_the_backend():
    with Receiver() as receiver, Proxy(LOGIN) as proxy:
        sender = http(receiver.endpoint, proxy_url=f"http://{SPELLED}@{proxy.place}")
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()

    assert proxy.seen == [f"POST {receiver.endpoint}/v1/logs HTTP/1.1"]
    ((_, headers, _),) = receiver.requests
    assert "Proxy-Authorization" not in headers


def test_https_goes_through_a_tunnel_and_the_backends_certificate_is_checked(authority):
    with tls_receiver(authority.issue("backend")) as receiver, Proxy(LOGIN) as proxy:
        endpoint = f"https://localhost:{receiver.port}"
        tls = TlsClient(ca_file=str(authority.file))
        sender = http(endpoint, proxy_url=f"http://{SPELLED}@{proxy.place}", tls=tls, headers={"api-key": "k"})
        for _ in range(3):
            assert sender.deliver(NOTHING) == (0, "")
        sender.close()
        untrusting = http(endpoint, proxy_url=f"http://{SPELLED}@{proxy.place}")
        with pytest.raises(Retryable, match="its certificate is not trusted"):
            untrusting.deliver(NOTHING)
        untrusting.close()

    assert [line.split()[:2] for line in proxy.seen] == [["CONNECT", f"localhost:{receiver.port}"]] * 2
    assert all("Proxy-Authorization" not in headers for _, headers, _ in receiver.requests)


def test_grpc_goes_through_a_tunnel(authority):
    with GrpcBackend() as plain, GrpcBackend(authority.issue("backend")) as secure, Proxy(LOGIN) as proxy:
        url = f"http://{SPELLED}@{proxy.place}"
        for sender in (
            grpc(f"http://localhost:{plain.port}", proxy_url=url),
            grpc(f"https://localhost:{secure.port}", proxy_url=url, tls=TlsClient(ca_file=str(authority.file))),
        ):
            assert sender.deliver(NOTHING) == (0, "")
            sender.close()

    assert [line.split()[1] for line in proxy.seen] == [f"localhost:{plain.port}", f"localhost:{secure.port}"]


@pytest.mark.parametrize("spelling", ["HTTP_PROXY", "http_proxy"])
def test_the_environments_proxy_is_used_and_never_for_this_host(spelling):
    with Receiver() as receiver, Proxy() as proxy:
        environ = {spelling: f"http://{proxy.place}"}
        sender = http(receiver.endpoint, environ)
        sender.deliver(NOTHING)
        sender.close()
        assert proxy.seen == []
        sender = http("http://backend.invalid:4318", environ)
        with pytest.raises(Retryable):  # the proxy does not find it either
            sender.deliver(NOTHING)
        sender.close()

    assert proxy.seen == ["POST http://backend.invalid:4318/v1/logs HTTP/1.1"]


def test_the_environments_proxy_is_used_by_grpc_and_never_for_this_host(monkeypatch):
    with GrpcBackend() as backend, Proxy(refuses=403) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.place}")  # grpc's core reads it itself, unless told not to
        environ = {"HTTPS_PROXY": f"http://{proxy.place}"}
        sender = grpc(f"127.0.0.1:{backend.port}", environ)
        sender.deliver(NOTHING)
        sender.close()
        assert proxy.seen == []
        sender = grpc("http://backend.invalid:4317", environ)
        with pytest.raises(Retryable, match="the proxy does not let us through"):
            sender.deliver(NOTHING)
        sender.close()

    assert proxy.seen == ["CONNECT backend.invalid:4317 HTTP/1.1"]


@pytest.mark.parametrize(
    ("kind", "endpoint"), [(http, "http://x.invalid"), (http, "https://x.invalid"), (grpc, "http://x.invalid:1")]
)
@pytest.mark.parametrize("login", ["", "somebody:wrong-password@"])
def test_a_proxy_that_wants_a_login_is_told_and_nothing_is_lost(kind, endpoint, login):
    with Proxy(LOGIN) as proxy:
        sender = kind(endpoint, proxy_url=f"http://{login}{proxy.place}")
        with pytest.raises(Retryable, match="407") as caught:
            sender.deliver(NOTHING)
        sender.close()

    assert "user and password" in caught.value.hint
    assert "wrong-password" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("kind", [http, grpc])
def test_a_proxy_that_is_not_there_is_named(kind):
    with Proxy() as proxy:
        place = proxy.place
    endpoint = "https://x.invalid:1"
    sender = kind(endpoint, proxy_url=f"http://somebody:hunter2@{place}")
    with pytest.raises(Retryable, match="connection refused") as caught:
        sender.deliver(NOTHING)
    sender.close()

    assert "hunter2" not in str(caught.value)
    assert f"proxy http://{place}" in str(caught.value)


def test_each_signal_takes_its_own_way():
    with Receiver() as receiver, Proxy() as proxy:
        environ = {"HTTP_PROXY": proxy.place}
        sender = http(receiver.endpoint, environ, metrics_endpoint="http://backend.invalid/v1/metrics")
        sender.deliver(NOTHING)
        with pytest.raises(Retryable):
            sender.deliver(NOTHING._replace(signal="metrics"))
        sender.close()

    assert len(receiver.requests) == len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "direct"),
    [
        ("localhost", 80, "", True),
        ("LOCALHOST", 80, "", True),
        ("127.0.0.1", 80, "", True),
        ("127.9.9.9", 80, "", True),
        ("::1", 80, "", True),
        ("10.1.2.3", 80, "", False),
        ("x.example.com", 80, "*", True),
        ("x.example.com", 80, "example.com", True),
        ("example.com", 80, "example.com", True),
        ("example.com", 80, ".example.com", False),
        ("x.example.com", 80, ".example.com", True),
        ("x.example.com", 80, "*.example.com", True),
        ("notexample.com", 80, "example.com", False),
        ("x.example.com", 80, " other.com , EXAMPLE.com ", True),
        ("x.example.com", 443, "example.com:443", True),
        ("x.example.com", 80, "example.com:443", False),
        ("10.1.2.3", 80, "10.0.0.0/8", True),
        ("11.1.2.3", 80, "10.0.0.0/8", False),
        ("10.1.2.3", 80, "10.1.2.3", True),
        ("10.1.2.3", 80, "10.1.2.3:81", False),
        ("fd00::1", 80, "fd00::/8", True),
        ("fd00::1", 80, "[fd00::1]:80", True),
        ("fd00::1", 80, "fd00::1", True),
        ("example.com", 80, "10.0.0.0/99,,", False),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_is_read_as_go_reads_it(host, port, no_proxy, direct, variable):
    found = proxy_for("http", host, port, None, {"HTTP_PROXY": "http://p:1", variable: no_proxy})

    assert (found is None) == direct


def test_the_exporters_own_proxy_wins_and_holds_for_every_host():
    environ = {"HTTP_PROXY": "http://other:1", "NO_PROXY": "*"}

    assert proxy_for("http", "localhost", 80, "http://own:1", environ).url == "http://own:1"


@pytest.mark.parametrize(
    ("protocol", "environ", "url"),
    [
        ("http", {"HTTPS_PROXY": "http://s:1"}, None),
        ("https", {"HTTP_PROXY": "http://p:1"}, None),
        ("https", {"HTTPS_PROXY": "s:1"}, "http://s:1"),
        ("https", {"HTTPS_PROXY": "", "https_proxy": "http://s:1"}, "http://s:1"),
        ("grpc", {"HTTP_PROXY": "http://p:1", "https_proxy": "http://s:1"}, "http://s:1"),
        ("grpc", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("grpc", {"grpc_proxy": "http://g:1", "https_proxy": "http://s:1"}, "http://g:1"),
        ("http", {"ALL_PROXY": "http://p:1"}, None),
    ],
)
def test_each_protocol_has_its_variables(protocol, environ, url):
    found = proxy_for(protocol, "example.com", 80, None, environ)

    assert (found and found.url) == url


@pytest.mark.parametrize(
    ("protocol", "text"),
    [("http", "socks5://u:hunter2@p:1"), ("grpc", "https://u:hunter2@p:1"), ("http", "http://u:hunter2@p:x")],
)
def test_a_proxy_that_cannot_be_used_is_a_mistake_that_names_the_variable(protocol, text):
    with pytest.raises(ConfigError) as caught:
        proxy_for(protocol, "example.com", 80, None, {"http_proxy": text})

    assert str(caught.value).startswith("http_proxy: ")
    assert "hunter2" not in f"{caught.value}{caught.value.hint}"
