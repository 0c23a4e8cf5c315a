"""A file that is right, a file with one mistake each, and files over one another."""

import pytest

from pgsonar.config.load import load
from pgsonar.config.schema import (
    DebugExporter,
    FileExporter,
    HealthCheck,
    LeaksProcessor,
    OtlpExporter,
    Redaction,
    Target,
)

WHOLE = """
receivers:
  sockets: {interval: 50ms, source: procfs, targets: [{name: main, port: 5432, max_connections: 100}]}
processors:
  leaks: {idle_in_transaction: {after: 1m30s, severity: high}, pool_exhausted: {warning: 70%}, auth_stuck: }
exporters:
  otlp_http: {endpoint: "https://otlp.example.com", headers: {api-key: "${env:API_KEY}"}, compression: none}
  file/all: {path: out.jsonl}
extensions:
  health_check: {endpoint: "0.0.0.0:13134"}
service:
  extensions: [health_check]
  telemetry:
    metrics: {interval: 2s, clients: 5}
    logs: {level: warn}
    resource: {service.name: shop}
    redaction: {addresses: hash, users: redact, key: "${env:API_KEY}-and-more-of-it"}
  pipelines:
    metrics: {receivers: [sockets], exporters: [otlp_http]}
    logs:    {receivers: [sockets], processors: [leaks], exporters: [otlp_http, file/all]}
"""


def test_every_value_of_a_file_arrives(read):
    config = read(WHOLE, environ={"API_KEY": "s3cret"})

    assert (config.sockets.interval, config.sockets.source) == (0.05, "procfs")
    assert config.sockets.targets == [Target(name="main", port=5432, max_connections=100)]
    assert config.leaks.idle_in_transaction.after == 90
    assert config.leaks.idle_in_transaction.severity == "high"
    assert config.leaks.pool_exhausted.warning == 0.7
    assert config.leaks.auth_stuck == LeaksProcessor().auth_stuck
    assert config.exporters["otlp_http"].headers == {"api-key": "s3cret"}
    assert config.exporters["file/all"] == FileExporter(path="out.jsonl")
    assert config.health_check == HealthCheck(endpoint="0.0.0.0:13134")
    assert config.telemetry.metrics.interval == 2
    assert config.telemetry.logs.level == "warn"
    assert config.telemetry.metrics.clients == 5
    assert config.telemetry.redaction == Redaction(addresses="hash", users="redact", key="s3cret-and-more-of-it")
    assert config.telemetry.resource == {"service.name": "shop"}
    assert config.pipelines.metrics.exporters == ["otlp_http"]
    assert config.pipelines.logs.exporters == ["otlp_http", "file/all"]
    assert config.pipelines.traces is None
    assert config.warnings == []


# text of the file -> what the error must say
MISTAKES = {
    "unknown key": (
        "receivers: {sockets: {intervall: 1s}}",
        ["receivers.sockets.intervall: unknown", "mean interval?"],
    ),
    "unknown key at the top": ("recievers: {}", ["recievers: unknown key", "mean receivers?"]),
    "unknown kind": ("processors: {leaks: {auth_stock: {}}}", ["processors.leaks.auth_stock", "mean auth_stuck?"]),
    "unknown signal": ("service: {pipelines: {metric: {}}}", ["service.pipelines.metric", "mean metrics?"]),
    "unknown exporter": ("exporters: {otlp_htp: {}}", ["exporters.otlp_htp: unknown exporter", "mean otlp_http?"]),
    "id without a name": ("exporters: {debug/: }", ["exporters.debug/", "name behind the /"]),
    "duration without unit": ("receivers: {sockets: {interval: 5}}", ["sockets.interval", "100ms", "got 5"]),
    "empty duration": ("processors: {leaks: {auth_stuck: {after: ''}}}", ["leaks.auth_stuck.after", "100ms"]),
    "too many names": (
        "service: {telemetry: {metrics: {clients: 5000}}}",
        ["service.telemetry.metrics.clients", "1 to 1000", "series"],
    ),
    "hashes anybody could undo": (
        "service: {telemetry: {redaction: {addresses: hash, key: short}}}",
        ["service.telemetry.redaction.key", "16 to 64", "env:"],
    ),
    "a word that is none": (
        "service: {telemetry: {redaction: {users: remove}}}",
        ["service.telemetry.redaction.users", "redact"],
    ),
    "interval too short": ("receivers: {sockets: {interval: 10us}}", ["sockets.interval", "at least 1ms"]),
    "word not allowed": ("receivers: {sockets: {source: procfz}}", ["sockets.source", "procfs, sock_diag", "'procfz'"]),
    "text for a number": ("receivers: {sockets: {targets: [{port: x}]}}", ["targets[0].port", "whole number", "'x'"]),
    "number for text": ("exporters: {file: {path: 5}}", ["exporters.file.path", "expected text", "5"]),
    "text for a switch": ("processors: {leaks: {auth_stuck: {enabled: maybe}}}", ["enabled", "true or false", "maybe"]),
    "list for a mapping": ("receivers: {sockets: []}", ["receivers.sockets: expected a mapping", "a list"]),
    "mapping for a list": ("service: {extensions: {}}", ["service.extensions", "a list"]),
    "wrong targets": ("receivers: {sockets: {targets: all}}", ["sockets.targets", "auto or a list"]),
    "port too large": ("receivers: {sockets: {targets: [{port: 65536}]}}", ["targets[0].port", "65535"]),
    "no slots": ("receivers: {sockets: {targets: [{port: 1, max_connections: 0}]}}", ["targets[0].max_connections"]),
    "target of nothing": ("receivers: {sockets: {targets: [{}]}}", ["targets[0]", "names nothing"]),
    "percentage": ("processors: {leaks: {pool_exhausted: {high: 0.9}}}", ["pool_exhausted.high", "such as 80%"]),
    "order of shares": ("processors: {leaks: {pool_exhausted: {warning: 92%}}}", ["warning < high < critical", "92%"]),
    "size": ("exporters: {otlp_http: {sending_queue: {max_bytes: 3 apples}}}", ["sending_queue.max_bytes", "256MiB"]),
    "empty queue": ("exporters: {otlp_http: {sending_queue: {queue_size: 0}}}", ["sending_queue.queue_size"]),
    "retry": ("exporters: {otlp_http: {retry_on_failure: {multiplier: 0.5}}}", ["retry_on_failure.multiplier", "0.5"]),
    "retry bounds": ("exporters: {otlp_http: {retry_on_failure: {max_interval: 1s}}}", ["max_interval", "5s"]),
    "endpoint without scheme": ("exporters: {otlp_http: {endpoint: 'x:4318'}}", ["otlp_http.endpoint", "http://"]),
    "endpoint with another": ("exporters: {otlp_http: {endpoint: 'ftp://x'}}", ["otlp_http.endpoint", "http://"]),
    "port of a URL": ("exporters: {otlp_http: {endpoint: 'http://x:99999'}}", ["otlp_http.endpoint", "65535"]),
    "endpoint of gRPC": ("exporters: {otlp_grpc: {endpoint: x}}", ["otlp_grpc.endpoint", "host:port"]),
    "one endpoint for gRPC": ("exporters: {otlp_grpc: {logs_endpoint: 'x:1'}}", ["logs_endpoint", "otlp_grpc/logs"]),
    "health endpoint": ("extensions: {health_check: {endpoint: localhost}}", ["health_check.endpoint", "host:port"]),
    "scrape endpoint": ("exporters: {prometheus: {endpoint: '9187'}}", ["exporters.prometheus.endpoint", "host:port"]),
    "own metrics": (
        "service: {telemetry: {metrics: {endpoint: off}}}",
        ["service.telemetry.metrics.endpoint", "expected text"],
    ),
    "own metrics nowhere": (
        "service: {telemetry: {metrics: {endpoint: nowhere}}}",
        ["service.telemetry.metrics.endpoint", "host:port", "or none"],
    ),
    "certificate without key": ("exporters: {otlp_grpc: {tls: {cert_file: /dev/null}}}", ["tls.key_file", "required"]),
    "no such authority": ("exporters: {otlp_http: {tls: {ca_file: /no/ca}}}", ["tls.ca_file", "'/no/ca'", "No such"]),
    "no such directory": ("exporters: {file: {path: /no/such/out}}", ["exporters.file.path", "'/no/such'"]),
    "no path": ("exporters: {file: }", ["exporters.file.path", "required"]),
    "header name": ("exporters: {otlp_http: {headers: {'a b': x}}}", ["otlp_http.headers", "'a b'"]),
    "two receivers": ("receivers: {sockets: , sockets/b: }", ["receivers.sockets/b", "only one sockets"]),
    "two processors": ("processors: {leaks/a: , leaks/b: }", ["processors.leaks/b", "only one leaks"]),
    "unknown extension": ("service: {extensions: [health_chek]}", ["service.extensions[0]", "mean health_check?"]),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_names_its_key_and_what_is_expected(refused, text, said):
    message = refused(text)

    assert "errors" not in message, "one mistake makes one error"
    for part in said:
        assert part in message


def test_all_mistakes_are_told_at_once(refused):
    message = refused("receivers: {sockets: {interval: x, sauce: y}}\nexporters: {file: {path: /no/such/x}}\nother: 1")

    assert "4 errors" in message
    for key in ("receivers.sockets.interval", "receivers.sockets.sauce", "exporters.file.path", "other"):
        assert f"\n  {key}: " in message


@pytest.mark.parametrize(
    "text",
    [
        "exporters: {otlp_http: {headers: {api-key: [hunter2]}}}",
        'exporters: {otlp_http: {headers: {api-key: "hunter2\\n"}}}',
        "exporters: {otlp_http: {headers: hunter2}}",
        "exporters: {otlp_http: {endpoint: 'ftp://u:hunter2@x?key=hunter2'}}",
        "receivers: {postgresql: {password: [hunter2]}}",
        "service: {telemetry: {redaction: {key: [hunter2]}}}",
        "service: {telemetry: {redaction: {addresses: hash, key: hunter2}}}",
    ],
)
def test_no_error_quotes_a_secret(refused, text):
    assert "hunter2" not in refused(text)


def test_later_files_win_and_settings_win_over_files(read):
    config = read(
        "receivers: {sockets: {interval: 1s, targets: [{port: 1}, {port: 2}]}}\nexporters: {debug: }",
        "receivers: {sockets: {interval: 2s, targets: [{port: 3}]}}\nexporters: {file: {path: out}}",
        settings=["receivers.sockets.interval=3s", "exporters.debug/more={}"],
    )

    assert config.sockets.interval == 3
    assert config.sockets.targets == [Target(port=3)]
    assert list(config.exporters) == ["debug", "file", "debug/more"]


@pytest.mark.parametrize("name", ["otlp", "otlphttp"])
def test_the_collectors_older_names_are_accepted_with_a_warning(read, name):
    real = {"otlp": "otlp_grpc", "otlphttp": "otlp_http"}[name]

    pipeline = f"{{receivers: [sockets], exporters: [{name}/x]}}"
    config = read(f"exporters: {{{name}/x: }}\nservice: {{pipelines: {{metrics: {pipeline}}}}}")

    assert list(config.exporters) == config.pipelines.metrics.exporters == [f"{real}/x"]
    assert config.warnings == [f"exporters.{name}/x: {name} is an alias, write {real}"]


def test_an_alias_beside_its_real_name_is_refused(refused):
    assert "exporters.otlp: is otlp_grpc, which is declared already" in refused("exporters: {otlp_grpc: , otlp: }")


def test_null_means_not_written(read):
    config = read("receivers: {sockets: }\nexporters: {otlp_http: {timeout: , tls: }}\nservice:\n")

    assert config.exporters["otlp_http"] == OtlpExporter()
    assert config.sockets.interval == 0.1


def test_an_empty_file_is_a_file(read):
    config = read("# nothing yet\n")

    assert list(config.exporters) == ["otlp_http"]
    assert config.health_check is None


def test_without_a_file_the_health_check_is_on():
    assert load([], [], {}).health_check == HealthCheck()
    assert load([], ["extensions.health_check.endpoint=:8080"], {}).health_check.endpoint == ":8080"
    assert load([], ["service.extensions=[]"], {}).health_check is None


def test_debug_alone_can_be_chosen_without_a_file():
    assert load([], ["exporters.debug="], {}).exporters == {"debug": DebugExporter()}


def test_the_memory_limiter_is_on_where_a_pipeline_names_it(read):
    pipelines = "service: {pipelines: {metrics: {receivers: [sockets], processors: [%s], exporters: [debug]}}}"
    declared = "processors: {memory_limiter: {limit_mib: 100}}\nexporters: {debug: }\n"

    assert read(declared + pipelines % "memory_limiter").memory_limiter.limit_mib == 100
    assert read(declared + pipelines % "").memory_limiter is None


@pytest.mark.parametrize("settings", ["", "limit_mib: 10", "limit_mib: 100, spike_limit_mib: 100"])
def test_a_memory_limit_that_cannot_be_kept_is_refused(refused, settings):
    assert "processors.memory_limiter." in refused(f"processors: {{memory_limiter: {{{settings}}}}}")


@pytest.mark.parametrize(
    ("storage", "extensions", "is_known"),
    [("memory", "", True), ("file_storage", "file_storage", True), ("file_storage", "", False), ("disk", "", False)],
)
def test_a_queue_is_kept_where_there_is_a_storage(read, refused, storage, extensions, is_known):
    exporters = f"exporters: {{otlp_http: {{sending_queue: {{storage: {storage}}}}}}}"
    text = f"{exporters}\nservice: {{extensions: [{extensions}]}}"
    if is_known:
        assert read(text).exporters["otlp_http"].sending_queue.storage == storage
    else:
        assert "exporters.otlp_http.sending_queue.storage" in refused(text)
