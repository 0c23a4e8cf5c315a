"""YAML, --set and ${env:...}."""

import pytest

from pgsonar.config.load import load
from pgsonar.config.reading import merge, read_setting
from pgsonar.errors import ConfigError

UNREADABLE = {
    "a key written twice": ("exporters:\n  debug:\n  file: {path: a}\n  debug: {}\n", ":4:3: debug is written twice"),
    "a syntax error": ("receivers:\n  sockets: [\n", ":3:1: "),
    "a tab": ("receivers:\n\tsockets:\n", ":2:1: "),
    "a list": ("- a\n", ": expected a mapping, got a list"),
    "a word": ("sockets\n", ": expected a mapping, got a single value"),
    "a key that is no text": ("receivers:\n  on: 1\n", ":2:3: keys are text"),
    "two documents": ("a: 1\n---\nb: 1\n", ":2:1: "),
    "an object": ("a: !!python/object/apply:os.getcwd []\n", ":1:4: "),
    "a date that is none": ("a: 2024-13-45\n", "takes for a date"),
    "a control character": ("a: \x07\n", "special characters"),
    "itself": ("service: &a {pipelines: *a}\n", "contains itself"),
    "no end of brackets": ("a: " + "[" * 5000 + "\n", "nested too deeply"),
}


@pytest.mark.parametrize(("text", "said"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_file_that_cannot_be_understood_is_refused(refused, text, said):
    assert said in refused(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=f"{path}: cannot be read"):
        load([str(path)], [], {})


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xe4\n")

    with pytest.raises(ConfigError, match="not UTF-8"):
        load([str(path)], [], {})


def test_anchors_and_merge_keys_are_not_keys_written_twice(read):
    config = read("exporters:\n  file/a: &a {path: a}\n  file/b: {<<: *a, path: b}\n")

    assert config.exporters["file/b"].path == "b"


def test_mappings_merge_and_everything_else_replaces():
    below = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": 1}

    assert merge(below, {"a": {"c": [3]}, "d": None, "f": {"g": 1}}) == {
        "a": {"b": 1, "c": [3]},
        "d": None,
        "f": {"g": 1},
    }
    assert below == {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": 1}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("a::b.c=x=y", {"a": {"b.c": "x=y"}}),
        ("exporters.otlp_http/b.endpoint=http://x", {"exporters": {"otlp_http/b": {"endpoint": "http://x"}}}),
        ("a=[x, {y: 2}]", {"a": ["x", {"y": 2}]}),
        ("a.b=", {"a": {"b": None}}),
        ("service.telemetry.resource.service.name=x", {"service": {"telemetry": {"resource": {"service.name": "x"}}}}),
        ("exporters.otlp_http.headers.x-a.b=c", {"exporters": {"otlp_http": {"headers": {"x-a.b": "c"}}}}),
    ],
)
def test_a_setting_is_a_path_and_a_yaml_value(setting, expected):
    assert read_setting(setting) == expected


@pytest.mark.parametrize("setting", ["a.b", "=1", "a..b=1", ".=1", "a=[hunter2"])
def test_a_setting_that_is_none_is_refused_without_its_value(setting):
    with pytest.raises(ConfigError, match="--set") as caught:
        read_setting(setting)

    assert "hunter2" not in str(caught.value)


def test_references_are_replaced_within_and_as_values(read):
    config = read(
        """
        receivers: {sockets: {interval: "${env:EVERY:-300ms}", targets: [{port: "${env:PORT}", name: "${env:PORT}"}]}}
        processors: {leaks: {auth_stuck: {enabled: "${env:ON}"}}}
        exporters: {otlp_http: {headers: {a: "x ${env:PORT}-${env:NONE:-}", b: "$${env:PORT} $5", c: "${env:ON}"}}}
        service: {extensions: "${env:LIST}"}
        """,
        environ={"PORT": "5432", "ON": "false", "LIST": "[health_check]"},
    )

    assert config.sockets.interval == 0.3
    assert (config.sockets.targets[0].port, config.sockets.targets[0].name) == (5432, "5432")
    assert config.leaks.auth_stuck.enabled is False
    assert config.exporters["otlp_http"].headers == {"a": "x 5432-", "b": "${env:PORT} $5", "c": "false"}
    assert config.health_check is not None


def test_a_variable_that_is_not_set_is_named_with_the_key(refused):
    message = refused("exporters: {otlp_http: {headers: {k: '${env:API_KEY}'}}}")

    assert message.startswith("exporters.otlp_http.headers.k: the environment variable API_KEY is not set")


@pytest.mark.parametrize("text", ["${API_KEY}", "${env:}", "${env:1}", "${file:x}", "a ${env:X", "${env:X:-${env:Y}}"])
def test_a_reference_that_is_none_is_refused(refused, text):
    message = refused(f"exporters: {{otlp_http: {{headers: {{k: '{text}'}}}}}}", environ={"X": "1", "Y": "1"})

    assert message.startswith("exporters.otlp_http.headers.k: ")
    assert "${env:NAME}" in message


def test_what_a_variable_holds_is_not_quoted_when_it_is_no_yaml(refused):
    message = refused("exporters: {otlp_http: {headers: '${env:H}'}}", environ={"H": "{hunter2"})

    assert message.startswith("exporters.otlp_http.headers: ")
    assert "hunter2" not in message


def test_a_reference_under_a_setting_is_not_looked_at(read):
    config = read("exporters: {file: {path: '${env:NONE}'}}", settings=["exporters.file.path=out"])

    assert config.exporters["file"].path == "out"
