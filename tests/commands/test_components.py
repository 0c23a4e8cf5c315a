"""`pgsonar components`: everything a configuration can name, and nothing else."""

import json
from typing import get_args

import msgspec
import pytest

from pgsonar.commands import main
from pgsonar.config import schema, unbuilt
from pgsonar.config.components import TYPES
from pgsonar.config.load import load
from pgsonar.errors import ConfigError

# Without which a type is refused.
NEEDED = {
    "memory_limiter": ["processors.memory_limiter.limit_mib=100"],
    "file": ["exporters.file.path=x"],
    "serverlog": ["receivers.serverlog.include=[x]"],
}


@pytest.fixture
def listed(capsys):
    assert main(["components", "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_type_that_is_built_has_a_sentence_and_no_other_is_there(listed):
    for kind, sections in TYPES.items():
        assert [one["type"] for one in listed[kind]] == [one for one in sections if one not in unbuilt.COMPONENTS[kind]]
        for one in listed[kind]:
            assert one["summary"].endswith(".")
            assert len(one["summary"]) > 10


def test_the_default_that_is_told_is_the_one_that_holds(listed):
    for kind, types in listed.items():
        for one in types:
            for key in one["keys"]:
                if key["default"] in (None, [], {}):
                    continue
                written = json.dumps(key["default"])
                before = NEEDED.get(one["type"], [])
                on = [f"service.extensions=[{one['type']}]"] if kind == "extensions" else []
                without = load([], [*before, *on, f"{kind}.{one['type']}.{key['key']}="], {})
                assert load([], [*before, *on, f"{kind}.{one['type']}.{key['key']}={written}"], {}) == without or (
                    key["key"] == "endpoint" and one["type"].startswith("otlp_")
                ), key


def refusal(key, value, component_type=""):
    """What is said against this value of a key itself; empty where it is accepted, whatever else it may ask for."""
    try:
        load([], [*NEEDED.get(component_type, []), f"{key}={value}"], {})
    except ConfigError as error:
        return next((text for text in ("expected", "not in this version", "only otlp_http") if text in str(error)), "")
    return ""


def test_every_word_that_is_told_is_accepted_and_keys_that_are_refused_are_not_told(listed):
    for kind, types in listed.items():
        for one in types if kind != "presets" else ():
            for key in one["keys"]:
                for word in key["allowed"]:
                    assert refusal(f"{kind}.{one['type']}.{key['key']}", word, one["type"]) == ""
    (grpc,) = [one for one in listed["exporters"] if one["type"] == "otlp_grpc"]
    told = {key["key"] for key in grpc["keys"]}
    for field in msgspec.structs.fields(schema.OtlpExporter):
        if field.name not in told:
            assert refusal(f"exporters.otlp_grpc.{field.name}", "datadog") != "", field.name


def test_presets_are_those_that_the_schema_accepts(listed):
    (preset,) = [field for field in msgspec.structs.fields(schema.OtlpExporter) if field.name == "preset"]
    every = [name for option in get_args(preset.type) for name in get_args(option)]

    assert "honeycomb" in every
    accepted = [name for name in every if not refusal("exporters.otlp_http.preset", name)]
    assert [one["type"] for one in listed["presets"]] == accepted


def test_the_list_fits_80_columns_and_names_what_the_json_names(listed, capsys):
    assert main(["components"]) == 0
    text = capsys.readouterr().out

    assert max(map(len, text.splitlines())) <= 80
    assert "\t" not in text
    for kind, types in listed.items():
        assert (kind.upper() in text) == bool(types)
        for one in types:
            assert f"\n  {one['type']} " in text
            for key in one["keys"]:
                assert key["key"] in text
