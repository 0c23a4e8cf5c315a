"""What the schema knows and this version does not do."""

import msgspec
import pytest

from pgsonar.config import schema, unbuilt
from pgsonar.detectors import DETECTORS

REFUSED = {
    "processors: {owners: }": "processors.owners",
    "exporters: {prometheus: }": "exporters.prometheus",
    "extensions: {file_storage: }": "extensions.file_storage",
    "service: {extensions: [status_page]}": "service.extensions[0]",
    "processors: {leaks: {overrides: [{match: {user: x}}]}}": "processors.leaks.overrides",
    "processors: {leaks: {auth_stuck: {shadow: true}}}": "processors.leaks.auth_stuck.shadow",
    "processors: {leaks: {pool_exhausted: {shadow: true}}}": "processors.leaks.pool_exhausted.shadow",
    "exporters: {otlp_http: {temporality: delta}}": "exporters.otlp_http.temporality: delta",
    "exporters: {otlp_grpc/a: {preset: datadog}}": "exporters.otlp_grpc/a.preset",
    "exporters: {otlp_http: {profile: lean}}": "exporters.otlp_http.profile",
    "exporters: {otlp_http: {sending_queue: {storage: file_storage}}}": "exporters.otlp_http.sending_queue.storage",
    "service: {telemetry: {metrics: {endpoint: 'localhost:8888'}}}": "service.telemetry.metrics.endpoint",
}


@pytest.mark.parametrize(("text", "key"), REFUSED.items())
def test_what_is_not_built_yet_is_refused_by_its_key(refused, text, key):
    message = refused(text)

    assert message.startswith(key)
    assert "not in this version" in message
    assert "errors" not in message


def test_an_exporter_not_built_yet_is_told_as_such_in_a_pipeline_too(refused):
    message = refused("service: {pipelines: {metrics: {receivers: [sockets], exporters: [prometheus]}}}")

    assert "prometheus is not in this version" in message


def test_defaults_written_out_are_no_mistake(read):
    config = read(
        "receivers: {sockets: {source: auto, side: server, destroy_events: auto}}\n"
        "processors: {leaks: {overrides: [], auth_stuck: {shadow: false}}}\n"
        "exporters: {otlp_http: {temporality: cumulative, preset: , sending_queue: {storage: }}}"
    )

    assert config.warnings == []


def test_a_kind_not_built_yet_is_accepted_with_a_warning(read):
    config = read("processors: {leaks: {half_open: {after: 3s}, long_query: {}}}")

    assert config.warnings == [
        "processors.leaks.half_open: not in this version, ignored",
        "processors.leaks.long_query: not in this version, ignored",
    ]


def test_every_kind_is_either_detected_or_listed_as_not_built():
    kinds = {field.name for field in msgspec.structs.fields(schema.LeaksProcessor)} - {"overrides"}
    detected = {detector.kind for detector in DETECTORS}
    ignored = {name for section, name in unbuilt.IGNORED if section is schema.LeaksProcessor}

    assert detected | ignored == kinds
    assert not detected & ignored


def test_every_line_of_the_lists_names_something_the_schema_has():
    for section, name, *_ in (*unbuilt.REFUSED, *unbuilt.IGNORED):
        assert name in section.__struct_fields__
