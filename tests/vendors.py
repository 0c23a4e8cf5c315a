"""Receivers on 127.0.0.1 that answer as the pages of each vendor say theirs does.

The rule: a receiver judges, and whatever it refuses, drops or cannot tell apart is a complaint. What no page states is
not enforced.
"""

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from pgsonar.demo.receiver import QuietServer

KINDS = {
    "metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse, "rejected_log_records"),
    "traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse, "rejected_spans"),
}
DELTA, CUMULATIVE = 1, 2


class Refusal(Exception):  # noqa: N818 - an answer, as in the agent
    """An answer other than success."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Vendor:
    """What all have in common: OTLP over HTTP in binary protobuf, gzip or not."""

    base = ""  # before /v1/metrics
    success = 200
    key = ()  # header, how its value begins, and the status without it

    def __init__(self):
        self.complaints = []
        self.accepted = dict.fromkeys(KINDS, 0)
        self.series = set()
        self._http = QuietServer(("127.0.0.1", 0), _side(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def host(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def answer(self, path, headers, wire):
        """Status and body."""
        try:
            signal, response = self._take(path, headers, wire)
        except Refusal as refusal:
            self.complaints.append(f"{refusal.status} {refusal}")
            return refusal.status, str(refusal).encode()
        rejected = getattr(response.partial_success, KINDS[signal][2])
        return self.success, response.SerializeToString() if rejected else b""

    def _take(self, path, headers, wire):
        base, _, signal = path.rpartition("/v1/")
        if signal not in KINDS or base != self.base:
            raise Refusal(404, f"nothing is at {path}")
        self._check_key(headers)
        if headers["Content-Type"] != "application/x-protobuf":
            raise Refusal(415, "binary protobuf only")
        is_packed = headers.get("Content-Encoding") == "gzip"
        body = gzip.decompress(wire) if is_packed else wire
        self.check_size(signal, len(body), len(wire), is_packed)
        message = KINDS[signal][0].FromString(body)
        response = KINDS[signal][1]()
        items, rejected = getattr(self, signal)(message, headers)
        self.accepted[signal] += items - len(rejected)
        if rejected:
            self.complaints += rejected
            setattr(response.partial_success, KINDS[signal][2], len(rejected))
            response.partial_success.error_message = rejected[0]
        return signal, response

    def _check_key(self, headers):
        if self.key:
            name, begins, status = self.key
            value = headers.get(name, "")
            if not value.startswith(begins) or len(value) == len(begins):
                raise Refusal(status, f"{name} is missing or wrong")

    def check_size(self, signal, raw, wire, is_packed):
        """Raises 413."""

    def metrics(self, message, headers):
        """How many points there are, and what is wrong with those that are not taken."""
        points = list(flat_points(message))
        return len(points), [wrong for point in points if (wrong := self.point(point, headers))]

    def logs(self, message, headers):
        records = [r for of in message.resource_logs for scope in of.scope_logs for r in scope.log_records]
        return len(records), [wrong for record in records if (wrong := self.record(flat(record.attributes)))]

    def traces(self, message, headers):
        spans = [s for of in message.resource_spans for scope in of.scope_spans for s in scope.spans]
        return len(spans), [wrong for span in spans if (wrong := self.span(span) or self.record(flat(span.attributes)))]

    def point(self, point, headers):
        """What is wrong with a point."""

    def record(self, attributes):
        """What is wrong with the attributes of a log record or span."""

    def span(self, span):
        """What is wrong with a span."""


class Datadog(Vendor):
    # https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/metrics/ ; 202 is the API's own word for taken:
    # https://docs.datadoghq.com/api/latest/metrics/#submit-metrics
    success = 202
    key = ("dd-api-key", "", 403)

    def check_size(self, signal, raw, wire, is_packed):
        # Metrics: "500KB for uncompressed payloads, or 5MB for compressed payloads after decompression"; the API they
        # reach takes 500 kB compressed. Logs: https://docs.datadoghq.com/api/latest/logs/ . Traces:
        # https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/ , Intake limits.
        most = {"metrics": 5_000_000 if is_packed else 500_000, "logs": 5_000_000, "traces": 3_200_000}[signal]
        if raw > most or (signal == "metrics" and wire > 500_000):
            raise Refusal(413, "Request Entity Too Large")

    def metrics(self, message, headers):
        if any(p.is_counted and p.temporality == CUMULATIVE for p in flat_points(message)):
            raise Refusal(400, "only delta metrics are accepted, not cumulative ones")
        return super().metrics(message, headers)

    def point(self, point, headers):
        # "multiple datapoints for a metric that have the same timestamp (in seconds) and same dimensions [...] Datadog
        # only accepts the last"; attributes of the resource are tags only with the header.
        config = json.loads(headers.get("dd-otel-metric-config", "{}"))
        tags = point.attributes | (point.resource if config.get("resource_attributes_as_tags") else {})
        key = point.name, point.time // 10**9, frozen(tags)
        if key in self.series:
            return f"overwritten: {point.name}"
        self.series.add(key)
        return None


class Honeycomb(Vendor):
    # https://docs.honeycomb.io/send-data/metrics/application
    key = ("x-honeycomb-team", "", 401)

    def metrics(self, message, headers):
        if not headers.get("x-honeycomb-dataset"):
            self.complaints.append("metrics are sent to a dataset called unknown_metrics")
        return super().metrics(message, headers)


class GrafanaCloud(Vendor):
    # https://grafana.com/docs/grafana-cloud/send-data/otlp/send-data-otlp/
    base = "/otlp"
    key = ("Authorization", "Basic ", 401)

    def metrics(self, message, headers):
        # https://github.com/prometheus/prometheus/blob/main/storage/remote/otlptranslator/prometheusremotewrite/metrics_to_prw.go
        wrong = {p.name for p in flat_points(message) if p.is_counted and p.temporality == DELTA}
        if wrong:
            raise Refusal(400, f"otlp parse error: invalid temporality and type combination for metric {min(wrong)!r}")
        return super().metrics(message, headers)

    def point(self, point, headers):
        # https://prometheus.io/docs/guides/opentelemetry/ : of a resource only job and instance become labels.
        job, instance = point.resource.get("service.name"), point.resource.get("service.instance.id")
        key = point.name, point.time, job, instance, frozen(point.attributes)
        if key in self.series:
            return f"duplicate sample: {point.name}"
        self.series.add(key)
        return None if "host.name" in point.attributes else f"the host of {point.name} stands in target_info only"


class Prometheus(GrafanaCloud):
    # https://prometheus.io/docs/guides/opentelemetry/
    base = "/api/v1/otlp"
    key = ()

    def logs(self, message, headers):
        raise Refusal(404, "there is nothing but metrics")

    traces = logs


class NewRelic(Vendor):
    # https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/
    key = ("api-key", "", 403)

    def check_size(self, signal, raw, wire, is_packed):
        if wire > 1_000_000:
            raise Refusal(413, "the payload is larger than 1 MB")

    def record(self, attributes):
        # https://docs.newrelic.com/docs/more-integrations/open-source-telemetry-integrations/opentelemetry/best-practices/opentelemetry-best-practices-attributes/
        for name, value in attributes.items():
            texts = value if isinstance(value, tuple) else (value,)
            if len(name) > 255 or any(isinstance(text, str) and len(text) > 4095 for text in texts):
                return f"{name} has more than 4095 characters"
            if isinstance(value, tuple) and len(value) > 64:
                return f"{name} has more than 64 entries"
        return None


class Dynatrace(Vendor):
    # https://docs.dynatrace.com/docs/discover-dynatrace/references/dynatrace-api/environment-api/opentelemetry/post-metrics
    base = "/api/v2/otlp"
    key = ("Authorization", "Api-Token ", 401)

    def check_size(self, signal, raw, wire, is_packed):
        # https://docs.dynatrace.com/docs/shortlink/api-access-limit
        if raw > {"metrics": 4_000_000, "logs": 2_000_000, "traces": 8_000_000}[signal]:
            raise Refusal(413, "The OTLP message exceeded the payload size limit")

    def point(self, point, headers):
        # https://docs.dynatrace.com/managed/shortlink/otel-getstarted-metrics-ingest
        # What is rejected stands in the body of a 200:
        # https://community.dynatrace.com/t5/Troubleshooting/Why-are-my-OpenTelemetry-metrics-not-ingested/ta-p/269428
        if point.is_counted and point.temporality == CUMULATIVE:
            return f"Unsupported metric: {point.name!r} - Reason: UNSUPPORTED_METRIC_TYPE_MONOTONIC_CUMULATIVE_SUM"
        if len(point.attributes) > 50:
            return f"Metric dropped: {point.name!r} - Reason: DIMENSION_COUNT_EXCEEDED"
        # Attributes of a resource are dimensions only where the customer's list names them, as ours are not:
        # https://docs.dynatrace.com/docs/ingest-from/opentelemetry/otlp-api/ingest-otlp-metrics/configure-otlp-metrics
        key = point.name, point.time, frozen(point.attributes)
        if key in self.series:
            return f"not told apart: {point.name}"
        self.series.add(key)
        return None

    def span(self, span):
        # https://docs.dynatrace.com/docs/shortlink/opentelemetry-traces-ingest
        age = time.time() - span.end_time_unix_nano / 1e9
        return "a span ended more than 60 minutes ago" if age > 3600 else None


class Elastic(Vendor):
    # https://www.elastic.co/docs/reference/opentelemetry/motlp
    key = ("Authorization", "ApiKey ", 401)

    def metrics(self, message, headers):
        # https://www.elastic.co/docs/reference/opentelemetry/compatibility/limitations : dropped, and nothing said
        points = list(flat_points(message))
        self.complaints += [
            f"a cumulative histogram is dropped: {p.name}"
            for p in points
            if p.shape.endswith("histogram") and p.temporality == CUMULATIVE
        ]
        return len(points), []


VENDORS = {
    "datadog": Datadog,
    "honeycomb": Honeycomb,
    "grafana_cloud": GrafanaCloud,
    "new_relic": NewRelic,
    "dynatrace": Dynatrace,
    "prometheus": Prometheus,
    "elastic": Elastic,
}


class FlatPoint:
    """A point with what is around it."""

    def __init__(self, resource, metric, point):
        self.resource = resource
        self.name = metric.name
        self.shape = metric.WhichOneof("data")
        holder = getattr(metric, self.shape)
        self.temporality = getattr(holder, "aggregation_temporality", None)
        # Up-down counters are cumulative for everybody.
        self.is_counted = self.shape.endswith("histogram") or getattr(holder, "is_monotonic", False)
        self.time = point.time_unix_nano
        self.value = getattr(point, point.WhichOneof("value")) if hasattr(point, "as_int") else None
        self.attributes = flat(point.attributes)


def flat_points(message):
    """The points of a request."""
    for of in message.resource_metrics:
        resource = flat(of.resource.attributes)
        for metric in (metric for scope in of.scope_metrics for metric in scope.metrics):
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                yield FlatPoint(resource, metric, point)


def flat(pairs):
    """Attributes by name."""
    return {pair.key: _value(pair.value) for pair in pairs}


def frozen(attributes):
    """Attributes that can be looked for."""
    return frozenset(attributes.items())


def _value(value):
    kind = value.WhichOneof("value")
    return tuple(map(_value, value.array_value.values)) if kind == "array_value" else getattr(value, kind)


def _side(vendor):
    class Side(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        lock = threading.Lock()

        def do_POST(self):
            wire = self.rfile.read(int(self.headers["Content-Length"]))
            with self.lock:
                status, body = vendor.answer(self.path, self.headers, wire)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Quiet."""

    return Side
