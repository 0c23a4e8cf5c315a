"""Whatever is written, the answer is a configuration or an error of ours."""

import json
from contextlib import suppress

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsonar.config import schema
from pgsonar.config.effective import effective, trace
from pgsonar.config.load import read
from pgsonar.config.schema import Config
from pgsonar.config.writing import yaml_lines
from pgsonar.errors import ConfigError

SECTIONS = [one for one in vars(schema).values() if isinstance(one, type) and issubclass(one, schema.Section)]
NAMES = {field.name for section in SECTIONS for field in msgspec.structs.fields(section)}
NAMES |= {"receivers", "processors", "exporters", "extensions", "service", "sockets", "leaks", "otlp_http", "otlp_grpc"}
NAMES |= {"file", "debug", "health_check", "otlp", "debug/x", "file_storage", ""}
WORDS = [
    "auto",
    "1s",
    "0s",
    "90%",
    "a:1",
    "http://[::1",
    "http://x:1",
    "datadog",
    "grafana_cloud",
    "${env:X}",
    "${env:LIST}",
    "$$",
    "${",
    "\0",
    "é",
]
ENVIRON = {"X": "\x01", "LIST": "[a, {b: c}]"}
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*WORDS, *sorted(NAMES)])
KEYS = st.sampled_from(sorted(NAMES))
DOCUMENTS = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5))


def within(section):
    """Something for each key of a section, mostly of the right shape."""
    names = [field.name for field in msgspec.structs.fields(section)]
    return st.dictionaries(st.sampled_from(names), DOCUMENTS, max_size=4) if names else st.none()


COMPONENTS = {
    "receivers": st.fixed_dictionaries({"sockets": within(schema.SocketsReceiver)}),
    "processors": st.fixed_dictionaries({"leaks": within(schema.LeaksProcessor)}),
    "exporters": st.fixed_dictionaries({"otlp_http": within(schema.OtlpExporter), "file": within(schema.FileExporter)}),
    "extensions": st.fixed_dictionaries({"health_check": within(schema.HealthCheck)}),
    "service": within(schema.Service),
}


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({}, optional=COMPONENTS) | DOCUMENTS)
def test_any_document_is_read_or_refused(document):
    if not isinstance(document, dict):
        return
    written = [f"{key}={json.dumps(value)}" for key, value in document.items()]
    loaded = None
    with suppress(ConfigError):
        loaded = read([], written, ENVIRON)
    assert loaded is None or isinstance(loaded.config, Config)
    if loaded is not None:
        assert_prints_as_itself(loaded)


def assert_prints_as_itself(loaded):
    """What print-config makes of it with --show-secrets is read back as the same."""
    document = effective(loaded.config, loaded.components)
    lines = yaml_lines(trace(document, loaded.origins, shows_secrets=True))
    again = read([], [f"{key}={json.dumps(value)}" for key, value in yaml.safe_load("\n".join(lines)).items()], ENVIRON)
    assert effective(again.config, again.components) == document
