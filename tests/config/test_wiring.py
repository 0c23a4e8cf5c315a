"""What feeds what."""

import pytest

from pgsonar.config.schema import FlightRecorder, HealthCheck

PIPELINE = "{receivers: [sockets], processors: [leaks], exporters: [debug]}"


def pipelines(text, declared="exporters: {debug: }"):
    return f"{declared}\nservice: {{pipelines: {{{text}}}}}"


def test_without_pipelines_every_signal_goes_through_everything_declared(read):
    config = read("receivers: {sockets/a: }\nexporters: {debug: , file: {path: out}}")

    for pipeline in (config.pipelines.metrics, config.pipelines.logs, config.pipelines.traces):
        assert (pipeline.receivers, pipeline.processors) == (["sockets/a"], ["leaks"])
        assert pipeline.exporters == ["debug", "file"]


def test_without_pipelines_a_scrape_endpoint_takes_metrics_alone(read):
    both = read("exporters: {debug: , prometheus/a: }").pipelines
    alone = read("exporters: {prometheus: }")

    assert (both.metrics.exporters, both.logs.exporters) == (["debug", "prometheus/a"], ["debug"])
    assert (alone.pipelines.metrics.exporters, alone.pipelines.logs, alone.pipelines.traces) == (
        ["prometheus"],
        None,
        None,
    )
    assert alone.leaks is not None
    assert alone.warnings == []


def test_sockets_and_leaks_need_no_declaration(read):
    config = read(pipelines(f"logs: {PIPELINE}"))

    assert config.leaks is not None
    assert config.warnings == []


def test_leaks_that_no_pipeline_uses_are_off(read):
    config = read(pipelines("metrics: {receivers: [sockets], exporters: [debug]}"))

    assert config.leaks is None


WRONG = {
    "an undeclared exporter": ("metrics: {receivers: [sockets], exporters: [debg]}", ["debg is not", "mean debug?"]),
    "an undeclared receiver": (
        "metrics: {receivers: [socket], exporters: [debug]}",
        ["socket is not", "mean sockets?"],
    ),
    "no receiver": ("metrics: {exporters: [debug]}", ["metrics.receivers: needs at least one receiver"]),
    "no exporter": ("metrics: {receivers: [sockets]}", ["metrics.exporters: needs at least one exporter"]),
    "an exporter twice": ("metrics: {receivers: [sockets], exporters: [debug, debug]}", ["named twice"]),
    "logs without leaks": ("logs: {receivers: [sockets], exporters: [debug]}", ["logs.processors", "leaks"]),
    "traces without leaks": ("traces: {receivers: [sockets], exporters: [debug]}", ["traces.processors", "leaks"]),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_pipeline_is_refused(refused, text, said):
    message = refused(pipelines(text))

    assert "errors" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize("signal", ["logs", "traces"])
def test_nothing_but_metrics_can_be_scraped(refused, signal):
    wired = f"{signal}: {{receivers: [sockets], processors: [leaks], exporters: [prometheus]}}"
    message = refused(pipelines(wired, "exporters: {prometheus: }"))

    assert message.startswith(f"service.pipelines.{signal}.exporters: prometheus takes metrics alone")


def test_declared_but_unused_components_are_warned_about_and_off(read):
    declared = "exporters: {debug: , file: {path: out}}\nextensions: {health_check: }"

    config = read(pipelines(f"logs: {PIPELINE}", declared))

    assert list(config.exporters) == ["debug"]
    assert config.health_check is None
    assert config.warnings == [
        "exporters.file: declared, but not used in service.pipelines",
        "extensions.health_check: declared, but not used in service.extensions",
    ]


def test_a_listed_extension_that_is_not_declared_has_its_defaults(read):
    assert read("service: {extensions: [health_check]}").health_check == HealthCheck()


def test_pipelines_of_a_file_may_name_the_default_exporter(read):
    config = read(pipelines("metrics: {receivers: [sockets], exporters: [otlp_http]}", ""))

    assert config.pipelines.metrics.exporters == ["otlp_http"]
    assert config.warnings == []


def test_the_flight_recorder_is_on_when_it_is_listed(read):
    assert read("service: {extensions: [flight_recorder]}").flight_recorder == FlightRecorder()
    declared = read(
        "extensions: {flight_recorder: {window: 1m}}\nservice: {extensions: [health_check, flight_recorder]}"
    )

    assert declared.flight_recorder.window == 60
    assert declared.health_check is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("directory: recordings", "expected an absolute path"),
        ("window: 1ms", "expected at least 1s"),
        ("max_bytes: 1KiB", "expected at least 1MiB"),
        ("keep: 0", "expected at least 1, got 0"),
    ],
)
def test_a_flight_recorder_that_could_not_work_is_refused(refused, text, said):
    assert said in refused(f"extensions: {{flight_recorder: {{{text}}}}}")
