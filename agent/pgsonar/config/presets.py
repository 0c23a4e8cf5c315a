"""What each backend wants of whoever sends to it, so that `preset: NAME` and a key are all a file must say.

The rule: what is written wins over the preset, unless the backend would refuse all of it: then it is an error that says
so. Each rule stands beside the page that states it. A preset has no secrets and reads no variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pgsonar.config.addresses import has_no_path
from pgsonar.config.problems import Problems
from pgsonar.config.reading import Document
from pgsonar.config.schema import SIGNALS, OtlpExporter

_ENDPOINTS = ("endpoint", *(f"{signal}_endpoint" for signal in SIGNALS))


class Size(NamedTuple):
    """How many bytes a request may have: as it is, and compressed (None: no matter)."""

    raw: int
    packed: int | None = None

    def unpacked(self) -> Size:
        """The same for requests that are not compressed."""
        return Size(min(self.raw, self.packed or self.raw))


class Sizes(NamedTuple):
    """By signal. The default is what a Collector takes by gRPC, 4 MiB, with some room."""

    metrics: Size = Size(4_000_000)
    logs: Size = Size(4_000_000)
    traces: Size = Size(4_000_000)


class Preset(NamedTuple):
    """One backend."""

    title: str
    endpoints: Mapping[str, str | None]  # by type of exporter; None: each customer has another, which must be written
    example: str  # an endpoint, as far as it is not the same for all
    key: tuple[str, str] | None  # the header that holds the secret, and how it is written
    temporality: str
    path: str = ""  # of an endpoint that is written without one
    headers: Mapping[str, str] = {}
    refuses: tuple[str, ...] = ()  # temporalities that are answered with an error
    loses: Mapping[str, str] = {}  # temporalities, and what of them is lost
    profile: str = "standard"
    signals: tuple[str, ...] = SIGNALS
    unasked: tuple[str, ...] = SIGNALS  # what is sent when no pipeline says so
    on_points: tuple[str, ...] = ()  # attributes of the resource that would be lost
    sizes: Sizes = Sizes()
    value_length: int | None = None
    oldest_span: float | None = None  # seconds since its end


# What tells servers and hosts apart, where a resource does not reach the points.
_IDENTITY = ("host.name", "pgsonar.server.name", "service.instance.id")
_AGENTS = ("host.name", "pgsonar.server.name")  # where service.instance.id does

PRESETS: dict[str, Preset] = {
    # https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/metrics/ : delta only, the headers, 500 kB and 5 MB;
    # points of one second and the same tags overwrite each other, and attributes of a resource are no tags by default.
    # https://docs.datadoghq.com/api/latest/logs/ : 5 MB of logs. A host that sends spans may be billed for APM.
    "datadog": Preset(
        title="Datadog",
        endpoints={"otlp_http": "https://otlp.datadoghq.com"},
        example="https://otlp.datadoghq.eu",
        key=("dd-api-key", "${env:DD_API_KEY}"),
        temporality="delta",
        headers={"dd-otel-metric-config": '{"resource_attributes_as_tags": true}'},
        refuses=("cumulative", "lowmemory"),
        profile="lean",
        unasked=("metrics", "logs"),
        sizes=Sizes(Size(5_000_000, 500_000), Size(5_000_000), Size(3_200_000)),
    ),
    # https://docs.honeycomb.io/send-data/metrics/application : without a dataset metrics land in `unknown_metrics`.
    "honeycomb": Preset(
        title="Honeycomb",
        endpoints={"otlp_http": "https://api.honeycomb.io", "otlp_grpc": "api.honeycomb.io:443"},
        example="https://api.eu1.honeycomb.io",
        key=("x-honeycomb-team", "${env:HONEYCOMB_API_KEY}"),
        temporality="cumulative",
        headers={"x-honeycomb-dataset": "pgsonar"},
    ),
    # https://grafana.com/docs/grafana-cloud/send-data/otlp/send-data-otlp/ : delta is answered with 400; attributes of
    # a resource stand in `target_info` alone.
    "grafana_cloud": Preset(
        title="Grafana Cloud",
        endpoints={"otlp_http": None},
        example="https://otlp-gateway-prod-eu-west-0.grafana.net/otlp",
        key=("Authorization", "Basic ${env:GRAFANA_CLOUD_BASIC}"),
        temporality="cumulative",
        path="/otlp",
        refuses=("delta", "lowmemory"),
        on_points=_AGENTS,
    ),
    # https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/ : 1 MB, 4095 characters of a
    # value, delta is recommended.
    "new_relic": Preset(
        title="New Relic",
        endpoints={"otlp_http": "https://otlp.nr-data.net", "otlp_grpc": "otlp.nr-data.net:4317"},
        example="https://otlp.eu01.nr-data.net",
        key=("api-key", "${env:NEW_RELIC_LICENSE_KEY}"),
        temporality="delta",
        sizes=Sizes(Size(1_000_000), Size(1_000_000), Size(1_000_000)),
        value_length=4095,
    ),
    # https://docs.dynatrace.com/docs/shortlink/api-access-limit : 4, 2 and 8 MB.
    # https://docs.dynatrace.com/docs/shortlink/opentelemetry-traces-ingest : a span has ended within the hour.
    # https://docs.dynatrace.com/managed/shortlink/otel-getstarted-metrics-ingest : cumulative sums are no metric there;
    # attributes of a resource become dimensions where a list of the customer's names them.
    "dynatrace": Preset(
        title="Dynatrace",
        endpoints={"otlp_http": None},
        example="https://abc12345.live.dynatrace.com/api/v2/otlp",
        key=("Authorization", "Api-Token ${env:DYNATRACE_TOKEN}"),
        temporality="delta",
        path="/api/v2/otlp",
        refuses=("cumulative", "lowmemory"),
        on_points=_IDENTITY,
        sizes=Sizes(Size(4_000_000), Size(2_000_000), Size(8_000_000)),
        oldest_span=3600,
    ),
    # https://prometheus.io/docs/guides/opentelemetry/ : metrics only; service.instance.id becomes `instance`, the rest
    # of a resource stands in `target_info` alone. With --enable-feature=otlp-deltatocumulative delta is taken.
    "prometheus": Preset(
        title="Prometheus",
        endpoints={"otlp_http": None},
        example="http://localhost:9090/api/v1/otlp",
        key=None,
        temporality="cumulative",
        path="/api/v1/otlp",
        loses={
            "delta": "counters are refused without its --enable-feature=otlp-deltatocumulative",
            "lowmemory": "histograms are refused without its --enable-feature=otlp-deltatocumulative",
        },
        signals=("metrics",),
        unasked=("metrics",),
        on_points=_AGENTS,
    ),
    # https://www.elastic.co/docs/reference/opentelemetry/compatibility/limitations : cumulative histograms are dropped.
    # https://www.elastic.co/docs/reference/opentelemetry/motlp : the header; 429 above 15 MB a second.
    "elastic": Preset(
        title="Elastic",
        endpoints={"otlp_http": None, "otlp_grpc": None},
        example="https://my-project-ab12cd.ingest.eu-west-1.aws.elastic.cloud:443",
        key=("Authorization", "ApiKey ${env:ELASTIC_API_KEY}"),
        temporality="lowmemory",
        loses={"cumulative": "histograms are dropped there"},
    ),
}


def supplied(name: str, exporter_type: str, written: Document) -> Document:
    """What a preset adds to what is written of an exporter: keys of its section, headers by their name."""
    preset = PRESETS[name]
    added: Document = {"temporality": preset.temporality, "profile": preset.profile}
    added = {key: value for key, value in added.items() if written.get(key) is None}
    endpoint = _endpoint(preset, exporter_type, written)
    if endpoint is not None:
        added["endpoint"] = endpoint
    headers = written.get("headers") or {}
    if isinstance(headers, dict):  # else a variable that holds them all
        named = {str(header).lower() for header in headers}
        added["headers"] = {header: value for header, value in preset.headers.items() if header not in named}
    return {key: value for key, value in added.items() if value}


def _endpoint(preset: Preset, exporter_type: str, written: Document) -> str | None:
    """The endpoint it supplies: its own, or the path that a written one lacks."""
    endpoint = written.get("endpoint")
    if isinstance(endpoint, str) and endpoint:
        return endpoint.rstrip("/") + preset.path if preset.path and has_no_path(endpoint) else None
    if any(written.get(key) for key in _ENDPOINTS):
        return None
    return preset.endpoints.get(exporter_type)


def unasked(exporter: object) -> tuple[str, ...]:
    """The signals that an exporter gets when no pipeline says so."""
    preset = _of(exporter)
    return SIGNALS if preset is None else preset.unasked


def refused_signal(exporter: object, signal: str) -> str | None:
    """Whose backend does not take a signal, by its name."""
    preset = _of(exporter)
    return None if preset is None or signal in preset.signals else preset.title


def oldest_span(exporter: object) -> float | None:
    """How long ago a span may have ended that a backend takes, in seconds; None: no matter."""
    preset = _of(exporter)
    return None if preset is None else preset.oldest_span


def check_preset(exporter: OtlpExporter, exporter_type: str, key: str, problems: Problems) -> None:
    """What a preset needs, and what it cannot have."""
    preset = _of(exporter)
    if preset is None:
        return
    if exporter_type not in preset.endpoints:
        hint = "declare it as otlp_http"
        problems.error(f"{key}.preset", f"{preset.title} takes OTLP over HTTP only, not gRPC", hint)
        return
    _check_temporality(preset, exporter, key, problems)
    if not any(getattr(exporter, name) for name in _ENDPOINTS):
        problems.error(f"{key}.endpoint", f"is required for {preset.title}", f"for example {preset.example}")
    for signal in SIGNALS:
        if (exporter.endpoint or "").rstrip("/").endswith(f"/v1/{signal}"):
            problems.error(f"{key}.endpoint", f"ends with /v1/{signal}, which is appended to it", "leave that out")
    if preset.key is not None and not any(name.lower() == preset.key[0].lower() for name in exporter.headers):
        name, value = preset.key
        problems.error(f"{key}.headers", f"{preset.title} needs {name}", f'headers: {{{name}: "{value}"}}')


def _check_temporality(preset: Preset, exporter: OtlpExporter, key: str, problems: Problems) -> None:
    if exporter.temporality in preset.refuses:
        hint = f"remove it: the preset sets {preset.temporality}"
        problems.error(f"{key}.temporality", f"{preset.title} refuses {exporter.temporality} metrics", hint)
    elif exporter.temporality in preset.loses:
        lost = preset.loses[exporter.temporality]
        problems.warn(f"{key}.temporality", f"{exporter.temporality} for {preset.title}: {lost}")


def _of(exporter: object) -> Preset | None:
    return PRESETS[exporter.preset] if isinstance(exporter, OtlpExporter) and exporter.preset is not None else None
