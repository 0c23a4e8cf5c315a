"""Backends that run: each listens on 127.0.0.1, keeps to its own folder, and is gone after the test.

The rule: a test is told that it listens only when it does, and what it logged when it does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

START_WITHIN = 30.0  # seconds; Kafka on a busy machine takes ten


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(look, otherwise: str, seconds: float = 20.0):
    """What `look` returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, otherwise() if callable(otherwise) else otherwise
        time.sleep(0.1)
    return found


class Program:
    """A program that listens on `port`. It may be ended in any way and started again."""

    def __init__(self, command: list[str], port: int, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.port = port
        self.log = folder / "log"
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        try:
            until(self._listens, lambda: f"it did not start: {self.log.read_text()[-2000:]}", START_WITHIN)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended: {self.log.read_text()[-2000:]}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class Collector(Program):
    """The Collector with a configuration of its own, to which its OTLP receivers' ports are added."""

    def __init__(self, program: Path, folder: Path, config: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.grpc_port = free_port()
        port = free_port()
        protocols = {"http": {"endpoint": f"127.0.0.1:{port}"}, "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}"}}
        file = folder / "collector.yaml"
        file.write_text(yaml.safe_dump({"receivers": {"otlp": {"protocols": protocols}}, **config}))
        super().__init__([str(program), "--config", str(file)], port, folder)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.grpc_port}"


def pipelines(exporters: list[str], **more: Any) -> dict[str, Any]:
    """A `service` with the same pipeline for each signal. It tells of itself in its log only."""
    told = {"receivers": ["otlp"], "exporters": exporters, **more}
    telemetry = {"metrics": {"level": "none"}, "logs": {"level": "warn"}}
    return {"pipelines": dict.fromkeys(("metrics", "logs", "traces"), told), "telemetry": telemetry}


class VictoriaMetrics(Program):
    """VictoriaMetrics with OTLP's names as Prometheus spells them, and no delay before a point can be asked for."""

    def __init__(self, program: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        flags = {
            "httpListenAddr": f"127.0.0.1:{port}",
            "storageDataPath": folder / "points",
            "opentelemetry.usePrometheusNaming": "true",
            "search.latencyOffset": "0s",
            "retentionPeriod": "1d",
        }
        super().__init__([str(program), *(f"-{name}={value}" for name, value in flags.items())], port, folder)

    @property
    def metrics_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/opentelemetry/v1/metrics"


def asked(port: int, query: str, at: float) -> dict[tuple[tuple[str, str], ...], float]:
    """The answer of a Prometheus-like backend to PromQL at an instant: the value by labels."""
    parameters = urllib.parse.urlencode({"query": query, "time": f"{at:.3f}"})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{parameters}", timeout=5) as answer:
        told = json.load(answer)
    assert told["status"] == "success", told
    return {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in told["data"]["result"]}
