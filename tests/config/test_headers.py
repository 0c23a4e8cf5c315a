"""Headers in the spellings they are copied from, and what of an exporter's way to its backend is refused at once."""

import pytest
from hypothesis import example, given
from hypothesis.strategies import text as texts

from pgsonar.config.headers import text_of, value


def headers(config):
    return config.exporters["otlp_http"].headers


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("Basic dXM6cHc=", "Basic dXM6cHc="),
        ("'Basic dXM6cHc='", "Basic dXM6cHc="),
        ('"Basic dXM6cHc="', "Basic dXM6cHc="),
        ("Basic%20dXM6cHc=", "Basic dXM6cHc="),
        ("'Basic%20dXM6cHc%3D'", "Basic dXM6cHc="),
        ("'\"Basic dXM6cHc=\"'", "Basic dXM6cHc="),
        ("a%2520b", "a%20b"),
        ("100%", "100%"),
        ("50%25 of a%20b", "50%25 of a%20b"),
        ("0123", "0123"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("yes", "yes"),
        ("1e3", "1e3"),
        ("2024-01-02", "2024-01-02"),
        ("''", ""),
        ("'\"'", '"'),
    ],
)
def test_a_value_is_the_same_in_every_spelling(read, written, sent):
    config = read(f"exporters: {{otlp_http: {{endpoint: 'http://x', headers: {{Authorization: {written}}}}}}}")

    assert headers(config) == {"Authorization": sent}


@pytest.mark.parametrize(
    ("held", "sent"), [("Basic%20dXM6", "Basic dXM6"), ('"quoted"', "quoted"), ("a b", "a b"), ("0123", "0123")]
)
def test_a_value_of_the_environment_too(read, held, sent):
    text = "exporters: {otlp_http: {endpoint: 'http://x', headers: {k: '${env:KEY}'}}}"

    assert headers(read(text, environ={"KEY": held})) == {"k": sent}


def test_what_the_environments_own_variable_holds_is_decoded_once(read):
    config = read("exporters: {otlp_http: }", environ={"OTEL_EXPORTER_OTLP_HEADERS": "a=Basic%20x,b=%2520"})

    assert headers(config) == {"a": "Basic x", "b": "%20"}


def test_the_collectors_list_of_names_and_values_is_taken(read):
    config = read("exporters: {otlp_http: {endpoint: 'http://x', headers: [{name: a, value: b%20c}]}}")

    assert headers(config) == {"a": "b c"}


@given(texts(alphabet='%25aZ0" ', max_size=8))
@example('"a%20b"')
@example("%25")
def test_every_value_can_be_written(sent):
    assert value(text_of(sent)) == sent


WRONG = {
    "line break": ('otlp_http: {headers: {api-key: "hunter2\\n"}}', ["headers.api-key", "ends in a line break"]),
    "control": ('otlp_http: {headers: {api-key: "hun\\x07ter2"}}', ["headers.api-key", "cannot carry"]),
    "encoded break": ("otlp_http: {headers: {api-key: hunter2%0A}}", ["headers.api-key", "cannot carry"]),
    "twice": ("otlp_http: {headers: {api-key: hunter2, API-Key: hunter2}}", ["headers.API-Key", "twice"]),
    "tab in grpc": ('otlp_grpc: {headers: {k: "hun\\tter2"}}', ["headers.k", "cannot carry"]),
    "name in grpc": ("otlp_grpc: {headers: {'a!b': hunter2}}", ["otlp_grpc.headers", "'a!b'"]),
    "binary in grpc": ("otlp_grpc: {headers: {trace-bin: hunter2}}", ["headers.trace-bin", "-bin"]),
    "grpc's own": ("otlp_grpc: {headers: {grpc-timeout: hunter2}}", ["headers.grpc-timeout", "grpc-"]),
    "proxy without scheme": ("otlp_http: {proxy_url: 'u:hunter2@p:1'}", ["proxy_url", "http://proxy:3128"]),
    "proxy of another": ("otlp_http: {proxy_url: 'socks5://u:hunter2@p:1'}", ["proxy_url", "http://"]),
    "proxy of gRPC": ("otlp_grpc: {proxy_url: 'https://u:hunter2@p:1'}", ["proxy_url", "http://"]),
    "no text": ("otlp_http: {proxy_url: [hunter2]}", ["proxy_url", "expected text"]),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_sent_is_refused_at_once_and_not_shown(refused, text, said):
    message = refused(f"exporters: {{{text}}}")

    assert "errors" not in message
    assert "hunter2" not in message
    for part in said:
        assert part in message


def test_what_is_accepted_with_a_remark(read):
    config = read(
        "exporters: {otlp_http: {endpoint: 'https://x:443/otlp/v1/metrics', headers: {Content-Type: text/plain}}}"
    )

    assert config.warnings == [
        "exporters.otlp_http.endpoint: /v1/metrics at its end is left out: it is appended for each signal",
        "exporters.otlp_http.headers.Content-Type: without effect: the exporter sets it",
    ]
