"""Starts a PostgreSQL of its own, leaks connections in four ways, and shows how each is found, named and reported."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pgsonar.demo.play import AFTER, SLOTS, STUCK_USER, USERS, Leak, Stage
from pgsonar.demo.postgres import Postgres, embedded_binaries
from pgsonar.demo.receiver import Receiver
from pgsonar.demo.sessions import Administrator

CONFIG = """\
receivers:
  sockets:
    targets: [{{name: demo, port: {port}}}]
processors:
  leaks:            # lowered, so that nobody has to wait
{afters}
exporters:
  otlp_http: {{endpoint: "http://127.0.0.1:{receiver}"}}
service:
  pipelines:
    metrics: {{receivers: [sockets], processors: [leaks], exporters: [otlp_http]}}
    logs:    {{receivers: [sockets], processors: [leaks], exporters: [otlp_http]}}
    traces:  {{receivers: [sockets], processors: [leaks], exporters: [otlp_http]}}
  telemetry: {{logs: {{level: warn}}, metrics: {{interval: 2s, endpoint: none}}}}
"""
NAMED_WITHIN = 25.0  # seconds
RESOLVED_WITHIN = 10.0
WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options: there are none."""
    _ = parser


def run(arguments: argparse.Namespace) -> int:
    """Plays the demonstration: 0 when every leak was named in time and nothing else was."""
    _ = arguments
    begun = time.monotonic()
    say = Narrator(begun)
    say("starting PostgreSQL 16 with 30 slots, and an OTLP receiver (127.0.0.1)")
    settings: dict[str, str | int] = {"max_connections": SLOTS}
    with Postgres(embedded_binaries(16), settings, STUCK_USER) as postgres:
        stage = Stage(postgres.port, say)
        with Receiver(on_event=stage.hear) as receiver, tempfile.TemporaryDirectory(prefix="pgsonar-demo-") as folder:
            config = Path(folder, "demo.yaml")
            afters = "\n".join(f"      {kind}: {{after: {after:g}s}}" for kind, after in AFTER.items())
            config.write_text(CONFIG.format(port=postgres.port, receiver=receiver.port, afters=afters))
            say("starting the agent, without a login, with this configuration:")
            sys.stdout.write("\n" + config.read_text() + "\n")
            administrator = Administrator(postgres.port)
            administrator.create_users(USERS, STUCK_USER)
            agent = subprocess.Popen([sys.executable, "-m", "pgsonar", "run", "--config", str(config)])
            try:
                _play(stage, receiver, administrator, agent, say)
            finally:
                stopped = _stop(agent)
                administrator.close()
            complaints = stage.complaints() + stopped + _missing_signals(receiver)
    _summary(stage, receiver, time.monotonic() - begun)
    for complaint in complaints:
        sys.stdout.write(f"FAILED: {complaint}\n")
    return 1 if complaints else 0


class Narrator:
    """Prints lines with the seconds since the beginning, wrapped for a terminal of 80 columns."""

    def __init__(self, begun: float) -> None:
        self._begun = begun

    def __call__(self, text: str) -> None:
        lines, line = [], f"{time.monotonic() - self._begun:5.1f} s"
        for word in text.split():
            if len(line) + len(word) + 1 > WIDTH:
                lines.append(line)
                line = " " * 7
            line += f" {word}"
        sys.stdout.write("\n".join([*lines, line]) + "\n")
        sys.stdout.flush()


def _play(
    stage: Stage,
    receiver: Receiver,
    administrator: Administrator,
    agent: subprocess.Popen[bytes],
    say: Callable[[str], None],
) -> None:
    _wait(lambda: any(point["name"] == "pgsonar.slot.used" for point in receiver.points), NAMED_WITHIN, agent)
    say("the agent sees the server; now things go wrong")
    with stage.play(administrator):
        _wait(lambda: stage.all_named, NAMED_WITHIN, agent)
        # A false alarm would come now.
        time.sleep(2)
        say("cleaning up: every leak is ended, and must be reported as resolved")
    _wait(lambda: stage.all_resolved, RESOLVED_WITHIN, agent)
    time.sleep(2.5)  # pool_exhausted ends, the last metrics are sent


def _wait(done: Callable[[], bool], seconds: float, agent: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline and agent.poll() is None:
        time.sleep(0.05)


def _stop(agent: subprocess.Popen[bytes]) -> list[str]:
    if agent.poll() is not None:
        return [f"the agent ended by itself with code {agent.returncode}"]
    agent.send_signal(signal.SIGTERM)
    try:
        code = agent.wait(5)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
        return ["the agent did not stop within 5 s"]
    return [f"the agent ended with code {code}"] if code else []


def _missing_signals(receiver: Receiver) -> list[str]:
    expected = len(AFTER) + 1  # the leaks, and the pool they exhausted
    wrong = [
        f"no {signal} arrived over OTLP" for signal in ("metrics", "logs", "traces") if not receiver.counts[signal]
    ]
    if len(receiver.spans) != expected:
        wrong.append(f"{len(receiver.spans)} spans arrived, not {expected}")
    return wrong


def _summary(stage: Stage, receiver: Receiver, seconds: float) -> None:
    lines = ["", f"{'LEAK':<27} {'ONSET':<13} {'SEEN AFTER':>10}  CULPRIT"]
    for leak in stage.leaks.values():
        lines += _leak_lines(leak)
    counts = receiver.counts
    other = "something" if stage.unexpected else "nothing"
    reached = "critical" if stage.critical else "not critical"
    lines += [
        "",
        f"pool_exhausted: {stage.exhausted} episode{'s' * (stage.exhausted != 1)}, {reached}.",
        f"The healthy pool ran {stage.healthy_transactions} transactions; {other} else was reported.",
        f"Received over OTLP/HTTP: {counts['metrics']} metric points, {counts['logs']} events,",
        f"{counts['traces']} spans in {counts['requests']} requests. The demonstration took {seconds:.0f} s.",
        "",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _leak_lines(leak: Leak) -> list[str]:
    if leak.opened is None:
        return [f"{leak.kind:<27} {_clock(leak.onset):<13} {'not seen':>10}"]
    told = leak.record["attributes"]
    user, pid = told.get("user.name", "?"), told.get("postgresql.pid", "?")
    culprit = f"{user}, pid {pid}"
    evidence = told.get("pgsonar.evidence.departure") or told.get("pgsonar.evidence.title", "")
    return [
        f"{leak.kind:<27} {_clock(leak.onset):<13} {leak.seen_after:>8.1f} s  {culprit}",
        f"  {evidence}"[:WIDTH],
    ]


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"
