"""Headers, and logins in URLs: in no error, hint or log line, whatever goes wrong and whatever a backend repeats."""

import grpc
import pytest

from otlp_servers import GrpcBackend, Proxy
from pgsonar.config.schema import OtlpExporter, RetryOnFailure
from pgsonar.config.units import Duration
from pgsonar.demo.receiver import Answer, Receiver
from pgsonar.exporters.troubles import Secrets
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow
from sending import build
from waiting import until

TOKEN, LOGIN, QUERY = "t0ken-of-us", "us:passw0rd-of-us", "query-s3cret"
ENCODED = "dXM6cGFzc3cwcmQtb2YtdXM="  # LOGIN in base64
SECRETS = (TOKEN, "passw0rd", QUERY, ENCODED)
HEADERS = {"api-key": TOKEN, "Authorization": f"Basic {ENCODED}"}
REPEATED = f"no such key: {TOKEN}, nor {LOGIN} in Basic {ENCODED}".encode()
QUICK = RetryOnFailure(initial_interval=Duration(0.02), max_interval=Duration(0.05))


def told(exporter, caplog, capfd, failed):
    """All that comes out while a request fails."""
    exporter.export(Batch("logs", [(Resource(()), [EventRow("e", 1, 9, "info", "text", {}, 1, 1)])]))
    until(lambda: failed(exporter.stats))
    exporter.close(0.3)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name == "pgsonar")
    return f"{ours}{exporter.stats.last_error}{''.join(capfd.readouterr())}"


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    caplog.set_level("DEBUG")


def is_clean(text):
    assert text
    return not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("status", [400, 401, 429, 503])
def test_a_backend_that_repeats_what_it_was_sent(status, caplog, capfd):
    with Receiver() as receiver:
        receiver.script.extend([Answer(status, body=REPEATED)] * 99)
        endpoint = f"{receiver.endpoint.replace('//', f'//{LOGIN}@')}/otlp?key={QUERY}"
        exporter = build("otlp_http", OtlpExporter(endpoint=endpoint, headers=HEADERS, retry_on_failure=QUICK))
        text = told(exporter, caplog, capfd, lambda stats: stats.failed or stats.retries)
    path, headers, _ = receiver.requests[0]

    assert is_clean(text)
    assert "no such key: [redacted]" in text
    assert QUERY in path
    assert headers["api-key"] == TOKEN


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE])
def test_a_backend_of_grpc_that_repeats_what_it_was_sent(code, caplog, capfd):
    with GrpcBackend() as backend:
        backend.script.extend([lambda context: context.abort(code, REPEATED.decode())] * 99)
        config = OtlpExporter(endpoint=f"127.0.0.1:{backend.port}", headers=HEADERS, retry_on_failure=QUICK)
        text = told(build("otlp_grpc", config), caplog, capfd, lambda stats: stats.failed or stats.retries)

    assert is_clean(text)
    assert "no such key: [redacted]" in text


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("refuses", [407, 403, None])
def test_a_proxy_that_fails(protocol, refuses, caplog, capfd):
    with Proxy(refuses=refuses) as proxy:
        endpoint = "https://backend.invalid:443"
        config = OtlpExporter(
            endpoint=endpoint, headers=HEADERS, proxy_url=f"http://{LOGIN}@{proxy.place}", retry_on_failure=QUICK
        )
        text = told(build(f"otlp_{protocol}", config), caplog, capfd, lambda stats: stats.retries)

    assert proxy.seen
    assert is_clean(text)


@pytest.mark.parametrize("endpoint", ["http://us:passw0rd-of-us@127.0.0.1:1", "https://us:passw0rd-of-us@x.invalid"])
def test_a_backend_that_is_not_there(endpoint, caplog, capfd):
    config = OtlpExporter(endpoint=f"{endpoint}?key={QUERY}", headers=HEADERS, retry_on_failure=QUICK)
    assert is_clean(told(build("otlp_http", config), caplog, capfd, lambda stats: stats.retries))


def test_what_is_struck_out_and_what_is_not():
    secrets = Secrets(["Bearer abcdef123", f"Basic {ENCODED}", None, "short", "pgsonar"])

    assert secrets.hide("Bearer abcdef123 or abcdef123") == "[redacted] or [redacted]"
    assert secrets.hide("Bearer and Basic are schemes, short texts stay") == (
        "Bearer and Basic are schemes, short texts stay"
    )
    assert secrets.hide(f"{LOGIN} has passw0rd-of-us") == "[redacted] has [redacted]"
