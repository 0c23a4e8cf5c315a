"""What both protocols' answers have in common: what was rejected of a request, and how long to wait.

The rule: a backend is believed within bounds, so that counts add up and a wait ends.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from pgsonar.exporters.encoding import Encoded

LONGEST_WAIT = 3600.0  # seconds; who asks for more is asked again after that
SAID_MOST = 200  # characters of a backend's text

RESPONSES: dict[str, Any] = {
    "metrics": ExportMetricsServiceResponse,
    "logs": ExportLogsServiceResponse,
    "traces": ExportTraceServiceResponse,
}
_REJECTED = {"metrics": "rejected_data_points", "logs": "rejected_log_records", "traces": "rejected_spans"}


def rejected(encoded: Encoded, response: Any) -> tuple[int, str]:
    """How many items a response says were rejected, never more than were sent, and why."""
    partial = response.partial_success
    number = min(max(int(getattr(partial, _REJECTED[encoded.signal])), 0), encoded.items)
    return number, str(partial.error_message)[:SAID_MOST]


def bounded(seconds: float) -> tuple[float, str]:
    """A wait that a backend asks for, and a remark where it is cut short."""
    if seconds <= LONGEST_WAIT:
        return max(0.0, seconds), ""
    asked = f"{seconds:.0f} s" if seconds < 1e9 else "for ever"
    return LONGEST_WAIT, f" (it asks to wait {asked}: it is asked again after {LONGEST_WAIT:.0f} s)"
