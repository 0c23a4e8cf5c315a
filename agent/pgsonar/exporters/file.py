"""OTLP/JSON in a file, a line per request, flushed after each.

The rule: as the Collector's file exporter writes it: trace and span ids in hexadecimal, 64-bit integers as strings,
enums as numbers (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any, TextIO

from google.protobuf.json_format import MessageToDict

from pgsonar.config.schema import FileExporter
from pgsonar.exporters.delivery import Retryable
from pgsonar.exporters.encoding import Encoded, parse

_IDS = frozenset({"traceId", "spanId", "parentSpanId"})


class FileTransport:
    """Appends to one file, which is opened with the first request and again after an error."""

    def __init__(self, config: FileExporter) -> None:
        self._path = config.path
        self._file: TextIO | None = None

    def deliver(self, encoded: Encoded) -> tuple[int, str]:
        """Writes one line; a disk that refuses is tried again."""
        line = json_line(encoded)
        try:
            if self._file is None:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
                self._file = os.fdopen(descriptor, "a", encoding="utf-8")
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            self.close()
            raise Retryable(f"{self._path}: {(error.strerror or str(error)).lower()}") from error
        return 0, ""

    def close(self) -> None:
        """Closes the file; what a full disk left in its buffer is given up."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:
                return


def json_line(encoded: Encoded) -> str:
    """One request as a line of OTLP/JSON."""
    told = MessageToDict(parse(encoded), use_integers_for_enums=True)
    _ids_in_hex(told)
    return json.dumps(told, separators=(",", ":")) + "\n"


def _ids_in_hex(node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _IDS and isinstance(value, str):
                node[key] = base64.b64decode(value).hex()
            else:
                _ids_in_hex(value)
    elif isinstance(node, list):
        for item in node:
            _ids_in_hex(item)
