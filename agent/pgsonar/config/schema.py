"""The configuration as frozen structs: every key pgsonar knows, with its default.

The rule: what can be written in a file stands here, also what this version does not do yet (see `unbuilt.py`), so that
a key is either known or an error, and never silently ignored.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pgsonar.config.units import ByteSize, Duration, Instant, Percent


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping in the file; an unknown key in it is an error."""


# --- receivers ---------------------------------------------------------------------------------------------------


class Target(Section, frozen=True):
    """One server named by hand. What is set must agree with a running postmaster for the two to be joined."""

    name: str | None = None
    address: str | None = None
    port: int | None = None
    pid: int | None = None
    data_directory: str | None = None
    max_connections: int | None = None
    cluster: str | None = None
    env: str | None = None


class SocketsReceiver(Section, frozen=True):
    """The scanner of the kernel's TCP tables."""

    interval: Duration = Duration(0.1)
    source: Literal["auto", "procfs", "sock_diag"] = "auto"
    targets: Literal["auto"] | list[Target] = "auto"
    max_cpu: Percent = Percent(0.02)
    side: Literal["server", "client", "both"] = "server"
    destroy_events: Literal["auto", "always", "never"] = "auto"


class TlsClient(Section, frozen=True):
    """TLS towards a server that we dial."""

    insecure: bool = False
    insecure_skip_verify: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name_override: str | None = None


class PostgresqlReceiver(Section, frozen=True):
    """One session per server, for what the database alone knows."""

    endpoint: str = "localhost:5432"
    username: str | None = None
    password: str | None = None
    password_command: str | None = None
    passfile: str | None = None
    tls: TlsClient = TlsClient()
    collection_interval: Duration = Duration(15)
    query_text: Literal["none", "traceparent", "normalized"] = "none"


class PgbouncerReceiver(Section, frozen=True):
    """PgBouncer's console."""

    endpoint: str = "localhost:6432"
    username: str | None = None
    password: str | None = None
    password_command: str | None = None
    passfile: str | None = None
    tls: TlsClient = TlsClient()
    collection_interval: Duration = Duration(15)


class ServerlogReceiver(Section, frozen=True):
    """PostgreSQL's own log."""

    include: list[str] = []
    format: Literal["auto", "stderr", "csvlog", "jsonlog"] = "auto"


# --- processors --------------------------------------------------------------------------------------------------

SeverityWord = Literal["info", "warning", "high", "critical"]


class LeakKind(Section, frozen=True):
    """One kind of leak. `after` counts from the onset; None keeps the kind's own default."""

    enabled: bool = True
    after: Duration | None = None
    severity: SeverityWord | None = None
    shadow: bool = False


class ShareKind(LeakKind, frozen=True):
    """A kind that opens at a share of the slots; `after` is how long the share must stand."""

    warning: Percent = Percent(0.80)
    high: Percent = Percent(0.90)
    critical: Percent = Percent(0.95)


class IdleLeakKind(LeakKind, frozen=True):
    """Growth of connections that move no byte."""

    idle_after: Duration = Duration(35 * 60)
    min_members: int = 5
    window: Duration = Duration(10 * 60)


class HalfOpenKind(LeakKind, frozen=True):
    """With `probe` suspected sessions have their keepalive shortened for a moment, to see whether they answer."""

    probe: bool = False


class Match(Section, frozen=True):
    """Globs; all that are set must match."""

    server: str | None = None
    database: str | None = None
    user: str | None = None
    application: str | None = None
    client: str | None = None


class Override(Section, frozen=True):
    """Other settings for what matches; the first match wins."""

    match: Match
    kinds: list[str] = []
    enabled: bool | None = None
    after: Duration | None = None
    severity: SeverityWord | None = None
    shadow: bool | None = None
    silence_until: Instant | None = None


class LeaksProcessor(Section, frozen=True):
    """The detectors, a key a kind."""

    idle_in_transaction: LeakKind = LeakKind()
    idle_leak: IdleLeakKind = IdleLeakKind()
    orphaned_backend: LeakKind = LeakKind()
    orphaned_backend_no_socket: LeakKind = LeakKind()
    half_open: HalfOpenKind = HalfOpenKind()
    slow_reader: LeakKind = LeakKind()
    backend_busy_unread_input: LeakKind = LeakKind()
    auth_stuck: LeakKind = LeakKind()
    prestartup_stuck: LeakKind = LeakKind()
    accept_queue: LeakKind = LeakKind()
    client_socket_leak: LeakKind = LeakKind()
    connection_thrash: LeakKind = LeakKind()
    pool_exhausted: ShareKind = ShareKind()
    role_or_database_limit: ShareKind = ShareKind()
    pooler_waiting: LeakKind = LeakKind()
    pooler_pinned: LeakKind = LeakKind()
    pooler_forgotten_server: LeakKind = LeakKind()
    long_query: LeakKind = LeakKind()
    network_path: LeakKind = LeakKind()
    unaccounted: LeakKind = LeakKind()
    overrides: list[Override] = []
    # Of a span; a longer episode has several, each linked to the last.
    max_duration: Duration = Duration(6 * 3600)


class MemoryLimiter(Section, frozen=True):
    """How much memory the agent may take.

    Above the limit less the spike no metrics are taken in, so that what is told of leaks has room; above the limit what
    waits in memory only is given up, the oldest first.
    """

    limit_mib: int
    spike_limit_mib: int | None = None  # a fifth of the limit
    check_interval: Duration = Duration(1)


class OwnerRule(Section, frozen=True):
    """Who is called for what matches."""

    match: Match
    team: str | None = None
    runbook_url: str | None = None
    tier: str | None = None
    attributes: dict[str, str] = {}


class OwnersProcessor(Section, frozen=True):
    """Owners of identities, the first match wins."""

    rules: list[OwnerRule] = []


# --- exporters ---------------------------------------------------------------------------------------------------


class RetryOnFailure(Section, frozen=True):
    """Exponential back-off; a max_elapsed_time of 0 never gives up (the queue's bounds decide)."""

    initial_interval: Duration = Duration(5)
    max_interval: Duration = Duration(30)
    max_elapsed_time: Duration = Duration(0)
    multiplier: float = 1.5


IN_MEMORY = "memory"  # a storage that needs no extension


class SendingQueue(Section, frozen=True):
    """What waits for the backend. The oldest is dropped first, and counted."""

    queue_size: int = 10000
    max_bytes: ByteSize = ByteSize(256 * 2**20)
    max_age: Duration = Duration(24 * 3600)
    storage: str | None = None


class OtlpExporter(Section, frozen=True):
    """OTLP over HTTP/protobuf or gRPC. An endpoint of None takes the protocol's default."""

    endpoint: str | None = None
    metrics_endpoint: str | None = None
    logs_endpoint: str | None = None
    traces_endpoint: str | None = None
    headers: dict[str, str] = {}
    compression: Literal["gzip", "none"] = "gzip"
    timeout: Duration = Duration(10)
    proxy_url: str | None = None
    tls: TlsClient = TlsClient()
    retry_on_failure: RetryOnFailure = RetryOnFailure()
    sending_queue: SendingQueue = SendingQueue()
    temporality: Literal["cumulative", "delta", "lowmemory"] = "cumulative"
    preset: (
        Literal["datadog", "honeycomb", "grafana_cloud", "new_relic", "dynatrace", "prometheus", "elastic"] | None
    ) = None
    profile: Literal["lean", "standard", "full"] = "standard"


class FileExporter(Section, frozen=True):
    """OTLP/JSON, a line per request, flushed."""

    path: str


class DebugExporter(Section, frozen=True):
    """Prints what would be sent, readable, to standard error."""


class PrometheusExporter(Section, frozen=True):
    """A scrape endpoint."""

    endpoint: str = "localhost:9187"


# --- extensions and service --------------------------------------------------------------------------------------


class HealthCheck(Section, frozen=True):
    """Answers 200 or 503 with reasons."""

    endpoint: str = "localhost:13133"


class FileStorage(Section, frozen=True):
    """Where the queue and the open episodes survive a restart."""

    directory: str = "/var/lib/pgsonar"


class StatusPage(Section, frozen=True):
    """A page for a browser."""

    endpoint: str = "localhost:55679"


class FlightRecorder(Section, frozen=True):
    """The last minutes of what was read, in memory; a file of them when an episode is critical."""

    directory: str = "/var/lib/pgsonar/recordings"
    window: Duration = Duration(5 * 60)
    max_bytes: ByteSize = ByteSize(16 << 20)  # in memory, and so of a file
    keep: int = 10  # files


class Pipeline(Section, frozen=True):
    """What feeds a signal, in component ids (`type` or `type/name`)."""

    receivers: list[str] = []
    processors: list[str] = []
    exporters: list[str] = []


SIGNALS: tuple[Literal["metrics", "logs", "traces"], ...] = ("metrics", "logs", "traces")


class Pipelines(Section, frozen=True):
    """One pipeline per signal; None when the signal goes nowhere."""

    metrics: Pipeline | None = None
    logs: Pipeline | None = None
    traces: Pipeline | None = None


class TelemetryLogs(Section, frozen=True):
    """The agent's own log, on standard error."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    encoding: Literal["console", "json"] = "console"


NOWHERE = "none"


class TelemetryMetrics(Section, frozen=True):
    """The agent's own metrics endpoint, and how often metrics are sent."""

    endpoint: str = "127.0.0.1:8888"  # the Collector's; NOWHERE turns it off
    interval: Duration = Duration(10)
    clients: int = 20  # of a server, named in its metrics; the others are `~other`


class Redaction(Section, frozen=True):
    """What is told of clients outside this host: as it is, numbered in order of appearance, or hashed with a key."""

    addresses: Literal["keep", "redact", "hash"] = "keep"
    users: Literal["keep", "redact", "hash"] = "keep"
    key: str | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is hidden."""
        return (self.addresses, self.users) != ("keep", "keep")


class Telemetry(Section, frozen=True):
    logs: TelemetryLogs = TelemetryLogs()
    metrics: TelemetryMetrics = TelemetryMetrics()
    resource: dict[str, str] = {}
    redaction: Redaction = Redaction()


class Service(Section, frozen=True):
    extensions: list[str] = []
    pipelines: Pipelines = Pipelines()
    telemetry: Telemetry = Telemetry()


type_of_receiver: dict[str, type[Section]] = {
    "sockets": SocketsReceiver,
    "postgresql": PostgresqlReceiver,
    "pgbouncer": PgbouncerReceiver,
    "serverlog": ServerlogReceiver,
}
type_of_processor: dict[str, type[Section]] = {
    "leaks": LeaksProcessor,
    "memory_limiter": MemoryLimiter,
    "owners": OwnersProcessor,
}
type_of_exporter: dict[str, type[Section]] = {
    "otlp_http": OtlpExporter,
    "otlp_grpc": OtlpExporter,
    "file": FileExporter,
    "debug": DebugExporter,
    "prometheus": PrometheusExporter,
}
type_of_extension: dict[str, type[Section]] = {
    "health_check": HealthCheck,
    "file_storage": FileStorage,
    "status_page": StatusPage,
    "flight_recorder": FlightRecorder,
}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole, checked configuration. The mappings are keyed by component id (`type` or `type/name`)."""

    sockets: SocketsReceiver
    postgresql: dict[str, PostgresqlReceiver]  # only those a pipeline uses
    pgbouncer: dict[str, PgbouncerReceiver]
    serverlog: dict[str, ServerlogReceiver]
    leaks: LeaksProcessor | None  # None: no pipeline uses it
    memory_limiter: MemoryLimiter | None
    exporters: dict[str, Section]  # only those a pipeline uses
    pipelines: Pipelines
    health_check: HealthCheck | None
    file_storage: FileStorage | None
    flight_recorder: FlightRecorder | None
    telemetry: Telemetry
    warnings: list[str] = []  # accepted, with a remark for the log
