"""What the schema knows and this version does not do."""

import pytest

from pgsonar.config import schema
from pgsonar.detectors import rules

REFUSED = {
    "processors: {owners: }": "processors.owners",
    "service: {extensions: [status_page]}": "service.extensions[0]",
}


@pytest.mark.parametrize(("text", "key"), REFUSED.items())
def test_what_is_not_built_yet_is_refused_by_its_key(refused, text, key):
    message = refused(text)

    assert message.startswith(key)
    assert "not in this version" in message
    assert "errors" not in message


def test_a_component_not_built_yet_is_told_as_such_in_a_pipeline_too(refused):
    message = refused(
        "exporters: {debug: }\n"
        "service: {pipelines: {metrics: {receivers: [sockets], processors: [owners], exporters: [debug]}}}"
    )

    assert "owners is not in this version" in message


def test_defaults_written_out_are_no_mistake(read):
    config = read(
        "receivers: {sockets: {source: auto, side: server, destroy_events: auto}}\n"
        "processors: {leaks: {overrides: [], auth_stuck: {shadow: false}}}\n"
        "exporters: {otlp_http: {temporality: cumulative, preset: , sending_queue: {storage: }}}"
    )

    assert config.warnings == []


def test_every_kind_that_can_be_configured_is_detected():
    kinds = [name for name in schema.LeaksProcessor.__struct_fields__ if name not in ("overrides", "max_duration")]

    assert sorted(rule.kind for rule in rules(schema.LeaksProcessor()).all) == sorted(kinds)
