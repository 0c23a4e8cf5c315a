"""What would be sent, readable, on standard error. The rule: a line per event, span or series, and no more."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from google.protobuf.message import Message

from pgsonar.exporters.encoding import Encoded, parse


class DebugTransport:
    """Prints each request."""

    def deliver(self, encoded: Encoded) -> tuple[int, str]:
        """Prints one request; see delivery.Transport."""
        sys.stderr.write("".join(f"{line}\n" for line in debug_lines(encoded)))
        sys.stderr.flush()
        return 0, ""

    def close(self) -> None:
        """Standard error is not ours to close."""


def debug_lines(encoded: Encoded) -> list[str]:
    """The lines of one request."""
    return _LINES[encoded.signal](parse(encoded))


def _metrics(message: Message) -> list[str]:
    lines = []
    for scope in (scope for resource in message.resource_metrics for scope in resource.scope_metrics):
        for metric in scope.metrics:
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                is_spread = metric.WhichOneof("data") == "histogram"
                value = f"{point.count}x {point.sum}" if is_spread else getattr(point, point.WhichOneof("value"))
                lines.append(f"metric {metric.name}{_attributes(point.attributes)} {value} {metric.unit}")
    return lines


def _logs(message: Message) -> list[str]:
    lines = []
    for scope in (scope for resource in message.resource_logs for scope in resource.scope_logs):
        for record in scope.log_records:
            time = datetime.fromtimestamp(record.time_unix_nano / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]
            lines.append(f"event {time}Z {record.severity_text} {record.event_name} {record.body.string_value}")
    return lines


def _spans(message: Message) -> list[str]:
    lines = []
    for scope in (scope for resource in message.resource_spans for scope in resource.scope_spans):
        for span in scope.spans:
            seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
            kind = next((a.value.string_value for a in span.attributes if a.key == "pgsonar.leak.kind"), "")
            lines.append(f"span {span.name} {kind} {seconds:.3f} s trace {span.trace_id.hex()}")
    return lines


def _attributes(pairs: object) -> str:
    texts = []
    for pair in pairs:  # type: ignore[attr-defined]
        value = pair.value
        texts.append(f"{pair.key}={getattr(value, value.WhichOneof('value'))}")
    return f"{{{','.join(texts)}}}" if texts else ""


_LINES = {"metrics": _metrics, "logs": _logs, "traces": _spans}
