"""The agent as users run it, beside a server with idle sessions, for benchmarks to watch."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import urllib3
from worlds import rows

from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import Postgres, embedded_binaries
from pgsonar.demo.receiver import Receiver

SESSIONS = 50  # a row for each end: 100 of the 10000 are on the port
MB = 1 << 20


def cpu_seconds(pid):
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Agent:
    """`pgsonar run` on one server."""

    def __init__(self, folder, port, receiver, interval, max_cpu="100%", *, state=None):
        """With a `state` directory its queue is on disk, its health is asked for, and metrics leave every second."""
        self.figures = folder / "out.jsonl"
        self.figures.unlink(missing_ok=True)
        self.config = folder / "agent.yaml"
        self.health = None
        self.receiver = receiver
        kept = ""
        if state is not None:
            with Receiver() as free:
                self.health = f"127.0.0.1:{free.port}"
            kept = (
                f"extensions: {{file_storage: {{directory: {state}}}, health_check: {{endpoint: '{self.health}'}}}}\n"
            )
        self.config.write_text(
            f"{kept}"
            f"receivers: {{sockets: {{interval: {interval}, max_cpu: {max_cpu}, targets: [{{port: {port}}}]}}}}\n"
            f"exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{receiver}'}}, file: {{path: {self.figures}}}}}\n"
            "service:\n"
            + ("  extensions: [file_storage, health_check]\n" if kept else "")
            + ("  telemetry: {metrics: {interval: 1s}}\n" if kept else "")
            + "  pipelines:\n"
            "    metrics: {receivers: [sockets], processors: [leaks], exporters: [otlp_http, file]}\n"
            "    logs: {receivers: [sockets], processors: [leaks], exporters: [otlp_http]}\n"
            "    traces: {receivers: [sockets], processors: [leaks], exporters: [otlp_http]}\n",
            encoding="utf-8",
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path.endswith("agent"))
        self.begun = time.monotonic()
        command = [sys.executable, "-m", "pgsonar", "run", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.pid = self.process.pid
        self.first_scan = self._wait_for_its_first_scan()
        self.reader = threading.Thread(target=self.process.stderr.read)
        self.reader.start()

    def _wait_for_its_first_scan(self):
        for line in self.process.stderr:
            if "are read by" in line:  # its thread runs already: the scan begins with this line
                return time.monotonic() - self.begun
        raise AssertionError("the agent ended")

    def point_to(self, receiver):
        """Sends elsewhere from now on."""
        text = self.config.read_text(encoding="utf-8")
        self.config.write_text(text.replace(f":{self.receiver}'", f":{receiver}'"), encoding="utf-8")
        self.receiver = receiver
        self.process.send_signal(signal.SIGHUP)

    def waiting(self):
        """Requests in the queue of the exporter."""
        answer = urllib3.request("GET", f"http://{self.health}", timeout=5, retries=False).json()
        return answer["exporters"]["otlp_http"]["queue"]

    def stop(self):
        self.process.terminate()
        assert self.process.wait(10) == 0
        self.reader.join()
        self.process.stderr.close()

    def points(self, name):
        return [
            point
            for line in self.figures.read_text(encoding="utf-8").splitlines()
            for resource in json.loads(line).get("resourceMetrics", [])
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
            if metric["name"] == name
            for point in (metric.get("sum") or metric["gauge"])["dataPoints"]
        ]


@contextmanager
def database(others):
    """A server with idle sessions in a namespace with so many rows of others; its port and a receiver's."""
    with rows(others, 0), ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        server = stack.enter_context(Postgres(embedded_binaries(), {"max_connections": 200}))
        for _ in range(SESSIONS):
            stack.callback(WireClient(server.port, "postgres").socket.close)
        yield server.port, receiver.port
