"""Endpoints as people write them: what is accepted leads where it says, what is refused says what to write instead."""

import re
from functools import partial

import pytest
import urllib3
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pgsonar.config.addresses import Place, display, host_port, login_place, problem_of, url
from pgsonar.config.grpc_targets import grpc_target
from pgsonar.config.load import load
from pgsonar.errors import ConfigError
from pgsonar.exporters.otlp_http import HttpTransport
from pgsonar.exporters.proxies import proxy_for
from pgsonar.sources.login import endpoint_of

PARSERS = {
    "exporters.otlp_http.endpoint": url,
    "exporters.otlp_http.metrics_endpoint": url,
    "exporters.otlp_http.logs_endpoint": url,
    "exporters.otlp_http.traces_endpoint": url,
    "exporters.otlp_http.proxy_url": partial(url, example="http://proxy:3128"),
    "exporters.otlp_grpc.endpoint": grpc_target,
    "exporters.prometheus.endpoint": partial(host_port, listens=True),
    "extensions.health_check.endpoint": partial(host_port, listens=True),
    "service.telemetry.metrics.endpoint": partial(host_port, listens=True),
    "receivers.postgresql.endpoint": partial(login_place, usual=5432),
    "receivers.pgbouncer.endpoint": partial(login_place, usual=6432),
}
PORTS = st.integers(1, 65535)
NAMES = st.sampled_from(
    ["localhost", "otel-collector", "a_b.example.com", "dns", "unix", "http", "ipv4", "XN--a", "7.x"]
)
ZONES = st.sampled_from(["eth0", "lo", "1", "br-1a2b.7"])
FAR = st.ip_addresses(v=6).map(str)
ADDRESSES = st.ip_addresses(v=4).map(str) | FAR | st.builds("{}%{}".format, FAR, ZONES)


@st.composite
def places(draw):
    """A host, a port, and how a person may write the two."""
    host, port = draw(NAMES | ADDRESSES), draw(PORTS)
    is_bare = ":" not in host and (not host[0].isdigit() or draw(st.booleans()) or host == "7.x")
    return Place(host, port), f"{host if is_bare else f'[{host}]'}:{port}"


def accepts(key, text):
    """What a whole configuration makes of an endpoint: None, or the error and its hint."""
    try:
        load([], [], {}) if text is None else load([], [setting(key, text)], {})
    except ConfigError as error:
        return f"{error}\n{error.hint}"
    return None


def setting(key, text):
    return f"{key}='{text.replace(chr(39), chr(39) * 2)}'"


@given(places())
def test_host_and_port_arrive_however_they_are_written(given_place):
    place, written = given_place

    assert host_port(written) == host_port(written, listens=True) == login_place(written, 5432) == place
    assert endpoint_of(written) == place
    assert grpc_target(written).place == grpc_target(f"https://{written}/").place == place
    assert grpc_target(f"dns:///{written}").place == grpc_target(f"dns:{written}").place == place


@given(places(), st.sampled_from(["http", "https", "HTTP"]), st.sampled_from(["", "/", "/otlp"]), st.booleans())
def test_a_url_leads_every_library_to_the_same_place(given_place, scheme, path, has_login):
    place, written = given_place
    text = f"{scheme}://{'me:secret@' if has_login else ''}{written.replace('%', '%25')}{path}"

    def led_to(made):
        parts = urllib3.util.parse_url(made)
        assert parts.scheme == scheme.lower()
        return parts.host.strip("[]").lower(), parts.port

    expected = place.host.lower(), place.port
    assert led_to(url(text).geturl()) == expected
    assert led_to(proxy_for("http", "x", 1, text, {}).url) == expected
    if scheme == "http":
        transport = HttpTransport(load([], [setting("exporters.otlp_http.endpoint", text)], {}).exporters["otlp_http"])
        assert {led_to(target.url) for target in transport._targets.values()} == {expected}


PIECES = ["http://", "https://", "unix:", "dns:", "grpc://", "//", "/", "fd00::5", "::1", "10.0.0.5", "[", "]", ":"]
PIECES += ["4318", "localhost", "münchen", "@", "?key=hunter2", "%25eth0", "%", "0", "70000", "*", "#", "/v1/logs"]
LOGINS = st.sampled_from(
    ["", "", "me:hunter2@", "http://me:hunter2@", "HTTPS://me:hunter2@", "postgresql://me:hunter2@"]
)
TEXTS = st.builds("{}{}".format, LOGINS, st.lists(st.sampled_from([*PIECES, " ", "\t"]), max_size=7).map("".join))


@pytest.mark.parametrize("key", PARSERS)
@given(text=TEXTS)
@example(text="http://user:hunter2/x@h:1")
@example(text="http://user:hunter2?x@h:1")
def test_whatever_is_refused_has_a_suggestion_that_is_accepted_and_no_secret(key, text):
    problem = problem_of(PARSERS[key], text)

    if problem is None:
        return
    assert problem_of(PARSERS[key], problem.write) is None, f"{text!r}: {problem}; {problem.hint}"
    assert "hunter2" not in f"{problem} {problem.hint} {display(text)}"


@pytest.mark.parametrize("key", PARSERS)
@given(text=TEXTS)
def test_a_refusal_names_the_key_and_where_it_stands(tmp_path_factory, key, text):
    assume(text and problem_of(PARSERS[key], text) is not None)
    *sections, name = key.split(".")
    file = tmp_path_factory.getbasetemp() / "pgsonar.yaml"
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    value = "'" + text.replace("'", "''").replace("\t", " ") + "'"
    file.write_text("\n".join([*lines, f"{'  ' * len(sections)}{name}: {value}"]), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load([str(file)], [], {})

    assert str(caught.value).startswith(f"{key}: ")
    assert f"({file}:{len(lines) + 1})" in str(caught.value)
    assert caught.value.hint.startswith("write ")


# As people write them -> what to write instead; None where it is accepted.
WRITTEN = [
    ("exporters.otlp_http.endpoint", "http://[10.0.0.5]:4318", None),
    ("exporters.otlp_http.logs_endpoint", "http://[127.0.0.1]:4318/v1/logs", None),
    ("exporters.otlp_http.endpoint", "http://fd00:1::5:4318", "http://[fd00:1::5]:4318"),
    ("exporters.otlp_http.traces_endpoint", "http://fd00:1::5:4318/t", "http://[fd00:1::5]:4318/t"),
    ("exporters.otlp_http.endpoint", "http://me:secret@fd00:1::5:4318", "http://[fd00:1::5]:4318"),
    ("exporters.otlp_http.endpoint", "fd00:1::5:4318", "http://[fd00:1::5]:4318"),
    ("exporters.otlp_http.endpoint", "collector:4318", "http://collector:4318"),
    ("exporters.otlp_http.endpoint", "grpc://collector:4318", "http://collector:4318"),
    ("exporters.otlp_http.endpoint", "http://[collector]:4318", "http://collector:4318"),
    ("exporters.otlp_http.endpoint", "http://münchen.example:4318", "http://xn--mnchen-3ya.example:4318"),
    ("exporters.otlp_http.endpoint", "http://[fe80::1%eth0]:4318", None),
    ("exporters.otlp_http.endpoint", "http://[fe80::1%25eth0]:4318", None),
    ("exporters.otlp_http.endpoint", "http://fe80::1%eth0:4318", "http://[fe80::1%eth0]:4318"),
    ("exporters.otlp_http.proxy_url", "http://[10.0.0.5]:3128", None),
    ("exporters.otlp_http.proxy_url", "http://fd00::5:3128", "http://[fd00::5]:3128"),
    ("exporters.otlp_http.proxy_url", "proxy:3128", "http://proxy:3128"),
    ("exporters.otlp_grpc.endpoint", "https://otlp.example.com", None),
    ("exporters.otlp_grpc.endpoint", "HTTPS://otlp.example.com/", None),
    ("exporters.otlp_grpc.endpoint", "http://collector", "http://collector:4317"),
    ("exporters.otlp_grpc.endpoint", "collector", "collector:4317"),
    ("exporters.otlp_grpc.endpoint", "https://x:4317/v1/traces", "https://x:4317"),
    ("exporters.otlp_grpc.endpoint", "dns:///localhost:4317", None),
    ("exporters.otlp_grpc.endpoint", "dns://10.0.0.1/localhost:4317", "dns:///localhost:4317"),
    ("exporters.otlp_grpc.endpoint", "unix:///run/otel.sock", None),
    ("exporters.otlp_grpc.endpoint", "unix:/run/otel.sock", None),
    ("exporters.otlp_grpc.endpoint", "unix://run/otel.sock", "unix:///run/otel.sock"),
    ("exporters.otlp_grpc.endpoint", "unix:///" + "x" * 107, "unix:///run/otel.sock"),
    ("exporters.otlp_grpc.endpoint", "[10.0.0.5]:4317", None),
    ("exporters.otlp_grpc.endpoint", "fd00:1::5:4317", "[fd00:1::5]:4317"),
    ("exporters.otlp_grpc.endpoint", "ipv6:[::1]:4317", "[::1]:4317"),
    ("exporters.otlp_grpc.endpoint", "passthrough:///x:4317", "x:4317"),
    ("extensions.health_check.endpoint", "[::1]:13133", None),
    ("extensions.health_check.endpoint", "[127.0.0.1]:13133", None),
    ("extensions.health_check.endpoint", "::1:13133", "[::1]:13133"),
    ("extensions.health_check.endpoint", ":::13133", "[::]:13133"),
    ("extensions.health_check.endpoint", "*:13133", ":13133"),
    ("extensions.health_check.endpoint", "13133", "localhost:13133"),
    ("service.telemetry.metrics.endpoint", "[::1]:8888", None),
    ("service.telemetry.metrics.endpoint", "http://[::1]:8888", "[::1]:8888"),
    ("exporters.prometheus.endpoint", "[127.0.0.1]:9187", None),
    ("receivers.postgresql.endpoint", "[127.0.0.1]:5432", None),
    ("receivers.postgresql.endpoint", "fd00::5:5432", "[fd00::5]:5432"),
    ("receivers.postgresql.endpoint", "db", "db:5432"),
    ("receivers.postgresql.endpoint", "postgresql://me:secret@db/shop", "db:5432"),
    ("receivers.postgresql.endpoint", "/var/run/postgresql", "/var/run/postgresql:5432"),
    ("receivers.postgresql.endpoint", "/run/postgresql/.s.PGSQL.5433", "/run/postgresql:5433"),
    ("receivers.pgbouncer.endpoint", "unix:///run/pgbouncer", "/run/pgbouncer:6432"),
    ("receivers.pgbouncer.endpoint", "fd00::5", "[fd00::5]:6432"),
]


@pytest.mark.parametrize(("key", "text", "write"), WRITTEN)
def test_what_people_write_is_accepted_or_answered_with_what_to_write(key, text, write):
    said = accepts(key, text)

    if write is None:
        assert said is None
    else:
        assert said.startswith(f"{key}: ")
        assert re.search(rf"\nwrite {re.escape(write)}(,|$)", said), said
        assert "secret" not in said


def test_a_name_behind_https_or_dns_has_grpcs_port():
    assert grpc_target("https://otlp.example.com").place == ("otlp.example.com", 443)
    assert grpc_target("dns:///otlp.example.com").place == ("otlp.example.com", 443)


def test_no_proxy_leads_to_a_unix_socket():
    settings = [setting("exporters.otlp_grpc.endpoint", "unix:///run/x"), "exporters.otlp_grpc.proxy_url='http://p:1'"]
    with pytest.raises(ConfigError, match="no proxy leads to a unix socket"):
        load([], settings, {})
