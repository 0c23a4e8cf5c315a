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

from ports import free_port

START_WITHIN = 30.0  # seconds; Kafka on a busy machine takes ten


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
    """The Collector with these configurations laid over one another: files, or what a test writes as a dictionary.

    The ports, the address of its health and the folder of its queues are in the environment, under the names that the
    configurations in deploy/collector use.
    """

    def __init__(self, program: Path, folder: Path, *configs: Path | dict[str, Any], **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, self.grpc_port = free_port(), free_port()
        files = []
        for number, config in enumerate((*configs, QUIET)):
            files.append(config if isinstance(config, Path) else folder / f"{number}.yaml")
            if isinstance(config, dict):
                files[-1].write_text(yaml.safe_dump(config))
        where = {
            "OTLP_HTTP": f"127.0.0.1:{port}",
            "OTLP_GRPC": f"127.0.0.1:{self.grpc_port}",
            "HEALTH": f"127.0.0.1:{free_port()}",
            "QUEUE": str(folder / "queue"),
        }
        command = [str(program), *(word for file in files for word in ("--config", str(file)))]
        super().__init__(command, port, folder, where | environment)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.grpc_port}"


QUIET = {"service": {"telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}}}}
RECEIVING = {
    "protocols": {"http": {"endpoint": "${env:OTLP_HTTP}"}, "grpc": {"endpoint": "${env:OTLP_GRPC}"}},
}


def passing_to(**exporters: Any) -> dict[str, Any]:
    """A configuration that hands everything on as it is."""
    pipeline = {"receivers": ["otlp"], "exporters": list(exporters)}
    return {
        "receivers": {"otlp": RECEIVING},
        "exporters": exporters,
        "service": {"pipelines": {signal: dict(pipeline) for signal in ("metrics", "logs", "traces")}},
    }


class Kafka(Program):
    """A broker that is its own controller. Topics have `partitions` partitions and come with the first message."""

    def __init__(self, jar: Path, folder: Path, partitions: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, controller = free_port(), free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": folder / "messages",
            "num.partitions": partitions,
            "offsets.topic.replication.factor": 1,
        }
        file = folder / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        java = ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", str(jar.parent / "*")]
        identity = ["--cluster-id", "AAAAAAAAAAAAAAAAAAAAAA", "--config", str(file)]
        subprocess.run([*java, "kafka.tools.StorageTool", "format", *identity], check=True, capture_output=True)
        super().__init__([*java, "kafka.Kafka", str(file)], port, folder)


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


class Prometheus(Program):
    """Prometheus, which scrapes a port of 127.0.0.1 every second."""

    def __init__(self, program: Path, folder: Path, target: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        file = folder / "prometheus.yml"
        scrape = {"job_name": "pgsonar", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        file.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
        flags = {
            "config.file": file,
            "storage.tsdb.path": folder / "points",
            "web.listen-address": f"127.0.0.1:{port}",
            "log.level": "warn",
        }
        super().__init__([str(program), *(f"--{name}={value}" for name, value in flags.items())], port, folder)


def asked(port: int, query: str, at: float) -> dict[tuple[tuple[str, str], ...], float]:
    """The answer of a Prometheus-like backend to PromQL at an instant: the value by labels."""
    parameters = urllib.parse.urlencode({"query": query, "time": f"{at:.3f}"})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{parameters}", timeout=5) as answer:
        told = json.load(answer)
    assert told["status"] == "success", told
    return {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in told["data"]["result"]}
