"""TLS and mutual TLS over real sockets, with files that are renewed, broken and mended under a running exporter."""

import os
import shutil
import subprocess
import threading

import pytest

import needs
from certificates import Authority
from otlp_servers import NOTHING, GrpcBackend, tls_receiver
from pgsonar.config.schema import OtlpExporter, RetryOnFailure, TlsClient
from pgsonar.config.units import Duration
from pgsonar.demo.receiver import Answer
from pgsonar.errors import ConfigError
from pgsonar.exporters.delivery import Retryable
from pgsonar.exporters.otlp_grpc import GrpcTransport
from pgsonar.exporters.otlp_http import HttpTransport
from pgsonar.model import Resource
from pgsonar.signals.rows import Batch, EventRow
from sending import build
from waiting import until

KINDS = {"http": HttpTransport, "grpc": GrpcTransport}
both = pytest.mark.parametrize("protocol", ["http", "grpc"])


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder), Authority(folder, "other")


def backend(protocol, certificate, **options):
    return tls_receiver(certificate, **options) if protocol == "http" else GrpcBackend(certificate, **options)


def transport(protocol, port, tls, host="localhost"):
    config = OtlpExporter(endpoint=f"https://{host}:{port}", tls=tls, timeout=Duration(5))
    return KINDS[protocol](config, environ={})


def trouble(protocol, server, tls, host="localhost"):
    """What becomes of a request: its reason, and the hint."""
    sender = transport(protocol, server.port, tls, host)
    with pytest.raises(Retryable) as caught:
        sender.deliver(NOTHING)
    sender.close()
    return str(caught.value), caught.value.hint


@both
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_backend_is_trusted_by_its_authority_and_sees_who_we_are(protocol, host, authorities):
    ours, _ = authorities
    cert, key = ours.issue("agent")
    tls = TlsClient(ca_file=str(ours.file), cert_file=str(cert), key_file=str(key))
    with backend(protocol, ours.issue("backend"), clients_of=ours) as server:
        sender = transport(protocol, server.port, tls, host)
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


@both
def test_a_certificate_that_does_not_fit_is_told_in_a_few_words(protocol, authorities):
    ours, other = authorities
    trusting = TlsClient(ca_file=str(ours.file))
    with backend(protocol, ours.issue("old", days=-1)) as server:
        told = trouble(protocol, server, trusting)
        assert "its certificate has expired" in told[0]
    with backend(protocol, other.issue("stranger")) as server:
        told = trouble(protocol, server, trusting)
        assert "its certificate is not trusted" in told[0]
        assert "tls.ca_file" in told[1]
    with backend(protocol, ours.issue("elsewhere", names="DNS:elsewhere")) as server:
        told = trouble(protocol, server, trusting)
        assert "its certificate is for another name" in told[0]
        assert "server_name_override" in told[1]
        there = TlsClient(ca_file=str(ours.file), server_name_override="elsewhere")
        sender = transport(protocol, server.port, there)
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


@both
def test_a_backend_that_wants_a_client_certificate_and_gets_none_or_another(protocol, authorities):
    ours, other = authorities
    cert, key = other.issue("nobody")
    strange = TlsClient(ca_file=str(ours.file), cert_file=str(cert), key_file=str(key))
    with backend(protocol, ours.issue("backend"), clients_of=ours) as server:
        told = trouble(protocol, server, TlsClient(ca_file=str(ours.file)))
        assert "tls.cert_file and tls.key_file" in told[1]
        told = trouble(protocol, server, strange)
        assert "does not trust the issuer of our certificate" in told[0] or "the connection was closed" in told[0]


@both
def test_speaking_tls_to_a_port_without_it_is_told(protocol, authorities):
    plain = GrpcBackend()
    with plain:
        told = trouble(protocol, plain, TlsClient(ca_file=str(authorities[0].file)))

    assert "it does not speak TLS" in told[0]
    assert "http://" in told[1]


def test_nothing_is_checked_where_that_is_asked_for(authorities):
    with tls_receiver(authorities[1].issue("x", names="DNS:elsewhere")) as server:
        sender = transport("http", server.port, TlsClient(insecure_skip_verify=True))
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


def test_grpc_to_this_host_is_secure_once_anything_of_tls_is_configured(authorities):
    ours, _ = authorities
    with GrpcBackend(ours.issue("backend")) as server:
        config = OtlpExporter(endpoint=f"localhost:{server.port}", tls=TlsClient(ca_file=str(ours.file)))
        sender = GrpcTransport(config, environ={})
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()


@pytest.fixture
def mounted(tmp_path):
    """A folder as Kubernetes mounts a secret: files that are links through `..data`, swapped as one."""

    def swap(number, files):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        for name, source in files.items():
            shutil.copy(source, folder / name)
        os.symlink(folder.name, tmp_path / "..new")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        for name in files:
            if not (tmp_path / name).is_symlink():
                os.symlink(f"..data/{name}", tmp_path / name)
        return tmp_path

    return swap


def issued(authority, name):
    cert, key = authority.issue(name)
    return {"ca.crt": authority.file, "tls.crt": cert, "tls.key": key}


def tls_of(folder):
    return TlsClient(
        ca_file=str(folder / "ca.crt"), cert_file=str(folder / "tls.crt"), key_file=str(folder / "tls.key")
    )


@both
def test_renewed_files_are_used_for_the_next_request_without_a_restart(protocol, authorities, mounted, caplog):
    caplog.set_level("INFO")
    ours, other = authorities
    folder = mounted(1, issued(ours, "first"))
    with backend(protocol, ours.issue("backend"), clients_of=ours) as old:
        if protocol == "http":  # grpc's server closes its connections at its end
            old.script.append(Answer(200, (("Connection", "close"),), keep=True))
        sender = transport(protocol, old.port, tls_of(folder))
        sender.deliver(NOTHING)
        port = old.port
    with backend(protocol, other.issue("backend-2"), clients_of=other, port=port):
        with pytest.raises(Retryable, match="its certificate is not trusted"):
            sender.deliver(NOTHING)
        mounted(2, issued(other, "second"))
        assert sender.deliver(NOTHING) == (0, "")
        sender.close()

    assert caplog.text.count("the TLS files have changed") == 1


def test_a_backend_sees_the_new_client_certificate_on_a_connection_of_its_own(authorities, mounted):
    ours, _ = authorities
    folder = mounted(1, issued(ours, "first"))
    with GrpcBackend(ours.issue("backend"), clients_of=ours) as server:
        sender = transport("grpc", server.port, tls_of(folder))
        sender.deliver(NOTHING)
        mounted(2, issued(ours, "second"))
        sender.deliver(NOTHING)
        sender.close()

    assert [auth["x509_common_name"] for _, _, auth in server.calls] == [[b"first"], [b"second"]]


@both
def test_half_a_renewal_keeps_the_old_files_and_is_said_once(protocol, authorities, tmp_path, caplog):
    ours, _ = authorities
    names = issued(ours, "first")
    for name, source in names.items():
        shutil.copy(source, tmp_path / name)
    renewed = issued(ours, "second")
    with backend(protocol, ours.issue("backend"), clients_of=ours) as server:
        sender = transport(protocol, server.port, tls_of(tmp_path))
        sender.deliver(NOTHING)

        (tmp_path / "tls.crt").write_bytes(renewed["tls.crt"].read_bytes()[:100])  # still being written
        for _ in range(3):
            sender.deliver(NOTHING)
        assert caplog.text.count("tls.cert_file") == 1
        assert "what was loaded before stays in use" in caplog.text

        shutil.copy(renewed["tls.crt"], tmp_path / "tls.crt")  # the key is still the old one
        for _ in range(3):
            sender.deliver(NOTHING)
        assert caplog.text.count("is not the key of tls.cert_file") == 1

        (tmp_path / "ca.crt").unlink()
        for _ in range(3):
            sender.deliver(NOTHING)
        assert caplog.text.count("No such file") == 1

        shutil.copy(names["ca.crt"], tmp_path / "ca.crt")
        shutil.copy(renewed["tls.key"], tmp_path / "tls.key")
        caplog.set_level("INFO")
        sender.deliver(NOTHING)
        sender.close()
    assert "the TLS files have changed and are in use" in caplog.text


@both
def test_the_queue_survives_a_change_of_authority(protocol, authorities, mounted):
    ours, other = authorities
    folder = mounted(1, issued(ours, "first"))
    with backend(protocol, other.issue("backend")) as server:
        quick = RetryOnFailure(initial_interval=Duration(0.05), max_interval=Duration(0.1))
        endpoint = f"https://localhost:{server.port}"
        config = OtlpExporter(endpoint=endpoint, tls=tls_of(folder), retry_on_failure=quick)
        exporter = build(f"otlp_{protocol}", config)
        for number in range(5):
            row = EventRow("e", number, 9, "info", "text", {}, 1, 1)
            exporter.export(Batch("logs", [(Resource(()), [row])]))
        until(lambda: exporter.stats.retries)
        mounted(2, issued(other, "second"))
        until(lambda: exporter.stats.sent["logs"] == 5)
        assert exporter.close(5) == 0

    assert (exporter.stats.failed, exporter.stats.dropped) == ({}, {})


@both
@pytest.mark.parametrize(
    ("wrong", "key"), [("missing", "tls.ca_file"), ("garbage", "tls.ca_file"), ("locked", "tls.cert_file")]
)
def test_files_that_cannot_be_used_at_the_start_are_a_mistake_that_names_the_key(
    protocol, wrong, key, authorities, tmp_path
):
    cert, private = authorities[0].issue("x")
    locked = tmp_path / "locked.key"
    needs.programs("openssl")
    subprocess.run(
        ["openssl", "pkey", "-in", private, "-aes256", "-passout", "pass:hunter2", "-out", locked], check=True
    )
    garbage = tmp_path / "garbage"
    garbage.write_text("hunter2")
    tls = {
        "missing": TlsClient(ca_file=str(tmp_path / "none")),
        "garbage": TlsClient(ca_file=str(garbage)),
        "locked": TlsClient(cert_file=str(cert), key_file=str(locked)),
    }[wrong]
    with pytest.raises(ConfigError) as caught:
        build(f"otlp_{protocol}/x", OtlpExporter(endpoint="https://localhost:1", tls=tls))

    assert str(caught.value).startswith(f"exporters.otlp_{protocol}/x.{key}: ")
    assert "openssl" in caught.value.hint
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.exit_code == 2


def test_closing_interrupts_a_request_over_tls(authorities):
    ours, _ = authorities
    ended = []
    with tls_receiver(ours.issue("backend")) as server:
        server.script.append(Answer(200, delay=20))
        sender = transport("http", server.port, TlsClient(ca_file=str(ours.file)))

        def deliver():
            with pytest.raises(Retryable, match="being closed"):
                sender.deliver(NOTHING)
            ended.append(True)

        thread = threading.Thread(target=deliver)
        thread.start()
        until(lambda: server.requests)
        sender.close()
        thread.join(3)

    assert ended


def test_a_kept_connection_is_not_used_with_files_that_have_been_replaced(authorities, mounted):
    ours, other = authorities
    folder = mounted(1, issued(ours, "first"))
    with tls_receiver(ours.issue("backend"), clients_of=ours) as server:
        sender = transport("http", server.port, tls_of(folder))
        sender.deliver(NOTHING)
        mounted(2, issued(other, "second"))
        with pytest.raises(Retryable, match="its certificate is not trusted"):
            sender.deliver(NOTHING)
        sender.close()
