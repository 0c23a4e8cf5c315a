"""A real server and a real agent for the live tests: the agent runs as users run it, and is read through its file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from majors import binaries
from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import Postgres
from pgsonar.model import TcpState
from pgsonar.sources.names import ProcessNames
from pgsonar.sources.owners import OwnerReader
from pgsonar.sources.processes import Processes
from pgsonar.sources.servers import ServerFinder
from pgsonar.sources.sockets import read_listeners, read_table


def finder(processes=None, table=None, targets="auto"):
    """Sees the sockets of the kernel, or those of a table."""
    processes = processes or Processes()
    return ServerFinder(
        processes,
        ProcessNames(processes),
        read_table=table or read_table,
        read_listeners=(lambda _: [row for row in table("") if row.state == TcpState.LISTEN])
        if table
        else read_listeners,
        read_inodes=lambda pid: OwnerReader().inodes(pid, postmaster=pid, first_only=False),
        targets=targets,
        hostname="h",
        host_id="m",
    )


KINDS = (
    "idle_in_transaction",
    "orphaned_backend",
    "orphaned_backend_no_socket",
    "auth_stuck",
    "prestartup_stuck",
    "accept_queue",
    "pool_exhausted",
)
AFTER = 2.0


def lowered(**after: float) -> str:
    """Thresholds of two seconds, or as given."""
    return ", ".join(f"{kind}: {{after: {after.get(kind, AFTER):g}s}}" for kind in KINDS)


SLOTS = 30
STUCK_USER = "legacy_etl"


def postgres(major: int, **settings) -> Postgres:
    return Postgres(
        binaries(major), {"max_connections": SLOTS, "listen_addresses": "127.0.0.1,::1", **settings}, STUCK_USER
    )


@contextlib.contextmanager
def postgres_with_app(major: int):
    """The same, running, with a role `app` for applications."""
    with postgres(major) as running:
        with contextlib.closing(WireClient(running.port, "postgres")) as admin:
            admin.execute("create role app login superuser")
        yield running


def transactions(server, stack, number: int):
    """Leaves so many open until the stack is closed."""
    for _ in range(number):
        client = stack.enter_context(contextlib.closing(WireClient(server.port, "app")))
        client.execute("begin")
        client.execute("select 1")


class Told:
    """What an agent has written into its file."""

    def __init__(self):
        self.read = 0  # bytes
        self.events, self.spans, self.points = [], [], defaultdict(list)

    def add(self, request):
        for resource in request.get("resourceLogs", []):
            for record in (record for scope in resource["scopeLogs"] for record in scope["logRecords"]):
                self.events.append({**record, "attributes": flat(record["attributes"])})
        for resource in request.get("resourceSpans", []):
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                self.spans.append({**span, "attributes": flat(span["attributes"])})
        for resource in request.get("resourceMetrics", []):
            for metric in (metric for scope in resource["scopeMetrics"] for metric in scope["metrics"]):
                shape = next(shape for shape in ("sum", "gauge", "histogram") if shape in metric)
                self.points[metric["name"]] += metric[shape]["dataPoints"]


def killed_during(port, sql, *, user="app"):
    """A client process killed while its query runs; returns the backend's pid and the client's port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgsonar.demo.clients", str(port), user, sql],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        pid, client = (int(word) for word in process.stdout.readline().split())
        time.sleep(0.4)
        process.kill()
    return pid, client


class Agent:
    """`pgsonar run` with thresholds of two seconds, or those in `leaks`, and the file exporter."""

    def __init__(
        self,
        folder: Path,
        targets: str,
        receivers: str = "",
        before: list[str] | None = None,
        leaks: str = lowered(),
        settings: tuple[str, ...] = (),
    ) -> None:
        self.path = folder / "out.jsonl"
        self._told = Told()
        config = folder / "agent.yaml"
        config.write_text(
            f"receivers: {{sockets: {{targets: {targets}}}{receivers}}}\n"
            f"processors: {{leaks: {{{leaks}}}}}\n"
            f"exporters: {{file: {{path: {self.path}}}}}\n"
            "service: {telemetry: {metrics: {endpoint: none, interval: 1s}}}\n"
        )
        more = [word for setting in settings for word in ("--set", setting)]
        self.log = folder / "agent.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*(before or []), sys.executable, "-m", "pgsonar", "run", "--config", str(config), *more],
                stderr=log,
                env=environment(),
            )
        try:
            self.wait_for(lambda: self.points("pgsonar.connection.count"), 15, "the agent does not see the server")
        except BaseException:  # nobody else knows of it yet
            self.process.kill()
            self.process.wait()
            raise

    def stop(self) -> float:
        """Stops it as a service does; returns how long that took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(6) == 0
        finally:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - begun

    def _read(self):
        """What it has told since the last look, beside what it told before: tests look often, and a file grows long."""
        told = self._told
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(told.read)
                lines = file.read().splitlines(keepends=True)
            for line in lines:
                if line.endswith(b"\n"):
                    told.add(json.loads(line))
                    told.read += len(line)
        return told

    def events(self, kind: str | None = None, name: str | None = None):
        return [
            event
            for event in self._read().events
            if kind in (None, event["attributes"]["pgsonar.leak.kind"])
            and name in (None, event["eventName"].rpartition(".")[2])
        ]

    def spans(self):
        return list(self._read().spans)

    def points(self, name: str):
        return list(self._read().points[name])

    def wait_for(self, look, seconds: float, otherwise: str):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.1)
        pytest.fail(f"{otherwise}; its log: {self.log.read_text()[-2000:]}")

    def wait_event(self, kind: str, name: str, pick, seconds: float):
        """The first event of a kind that `pick` accepts."""
        return self.wait_for(
            lambda: next((e for e in self.events(kind, name) if pick(e["attributes"])), None),
            seconds,
            f"no {name} event of {kind}",
        )


def run_as(before, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    """`pgsonar COMMAND --format json` without a file, run by whoever `before` (setpriv, unshare) makes of us."""
    return subprocess.run(
        [*before, sys.executable, "-m", "pgsonar", command, "--format", "json", *more],
        cwd="/",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def ask(folder: Path, command: str, receivers: str, *more: str, before=()) -> tuple[int, str]:
    """`pgsonar COMMAND` with these receivers: its exit code and what it printed. It complains about nothing."""
    config = folder / "agent.yaml"
    config.write_text(f"receivers: {receivers}\nexporters: {{file: {{path: {folder}/out}}}}\n")
    ran = subprocess.run(
        [*before, sys.executable, "-m", "pgsonar", command, "--config", str(config), *more],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert not ran.stderr, ran.stderr
    return ran.returncode, ran.stdout


def flat(pairs):
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value):
    ((kind, held),) = value.items()
    if kind == "arrayValue":
        return [_value(item) for item in held.get("values", [])]
    return int(held) if kind == "intValue" else held


def environment():
    source = str(Path(__file__).parents[2] / "agent")
    return {**os.environ, "PYTHONPATH": source}
