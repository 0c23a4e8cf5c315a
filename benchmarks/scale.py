"""Measures what pgsonar costs beyond one host, for docs/scale.md: `make scale`, twenty minutes.

What one agent sends is counted by a receiver that it sends to, with its default settings. What a gateway takes is the
CPU time and the memory of its process (/proc/PID/stat, /proc/PID/status) while simulated agents send to it at the rate
of real ones. CPU time is what is compared, because it hardly changes when the machine is busy, as seconds would.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sizing import INTERVAL, RESULTS, TYPICAL, write

import told
from fleet import Fleet, Sent, Traffic, recorded
from parts import built
from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import Postgres, embedded_binaries
from pgsonar.demo.receiver import Receiver
from playing import environment
from running import Collector, Kafka, passing_to

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "collector"
USERS = 10  # applications that share the sessions
WARM_UP = 25.0  # seconds until everything has been found and told once
DISTINCT = 500  # simulated agents with a request of their own; more of them share these
MARGIN = 500  # descriptors
FORMS = {
    "cumulative": "temporality: cumulative",
    "delta": "temporality: delta",
    "delta, lean": "temporality: delta, profile: lean",
}


@contextlib.contextmanager
def agent_of(server: Postgres, folder: Path, receiver: Receiver, form: str = "cumulative") -> Iterator[None]:
    """An agent with default settings that watches this server, and sends in this form."""
    settings = {
        "receivers.sockets.targets": f"[{{name: db, port: {server.port}}}]",
        "exporters.otlp_http": f"{{endpoint: '{receiver.endpoint}', {FORMS[form]}}}",
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with (folder / "agent.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgsonar", "run", *words], stderr=log, stdin=subprocess.DEVNULL, env=environment()
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@contextlib.contextmanager
def sessions(server: Postgres, count: int) -> Iterator[None]:
    """Idle sessions of ten users, as pools hold them."""
    with contextlib.ExitStack() as open_now:
        for number in range(count):
            open_now.enter_context(contextlib.closing(WireClient(server.port, f"app{number % USERS}")))
        yield


def wire_bytes(headers: dict[str, str]) -> int:
    """What a request takes on the wire above TCP: its head and its compressed body."""
    return sum(len(name) + len(value) + 4 for name, value in headers.items()) + int(headers["Content-Length"])


def volume(server: Postgres, count: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """What an export of metrics takes with so many sessions: an agent for each form, all at once."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(sessions(server, count))
        to = {form: stack.enter_context(Receiver()) for form in FORMS}
        for form, receiver in to.items():
            stack.enter_context(agent_of(server, folder, receiver, form))
        time.sleep(WARM_UP)
        for receiver in to.values():
            receiver.requests.clear()
        time.sleep(seconds)
        found = {form: [r for r in receiver.requests if r[0] == "/v1/metrics"] for form, receiver in to.items()}
    exports = seconds / INTERVAL  # an export may be split over several requests
    return [
        {
            "sessions": count,
            "form": form,
            "points": sum(points_in(body) for _, _, body in requests) / exports,
            "raw": sum(len(body) for _, _, body in requests) / exports,
            "wire": sum(wire_bytes(headers) for _, headers, _ in requests) / exports,
        }
        for form, requests in found.items()
    ]


def points_in(body: bytes) -> int:
    """The points of a request of metrics."""
    return len(list(told.rows_of("metrics", told.REQUESTS["metrics"].FromString(body))))


def recording(server: Postgres, folder: Path) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
    """What an agent of a host with fifty sessions sends, with one episode; and what that episode takes."""
    with sessions(server, TYPICAL), Receiver() as receiver:
        with agent_of(server, folder, receiver):
            time.sleep(WARM_UP)
            leaking = WireClient(server.port, "app0")
            # A statement whose client goes away: told after two seconds, and ended when the statement is.
            leaking.send_query("select pg_sleep(12)")
            time.sleep(1)
            leaking.socket.close()
            time.sleep(WARM_UP)
        episode = [r for r in receiver.requests if r[0] != "/v1/metrics"]
        assert {path for path, _, _ in episode} == {"/v1/logs", "/v1/traces"}, "no episode was told"
        return recorded(receiver), {
            "items": receiver.counts["logs"] + receiver.counts["traces"],
            "raw": sum(len(body) for _, _, body in episode),
            "wire": sum(wire_bytes(headers) for _, headers, _ in episode),
        }


class Usage:
    """CPU seconds of processes from now on, and the memory they hold."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._before = self._cpu()

    def cpu(self) -> float:
        return self._cpu() - self._before

    def resident(self) -> int:
        """Bytes, of the largest."""
        return max(
            int(line.split()[1]) * 1024
            for pid in self._pids
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        )

    def _cpu(self) -> float:
        ticks = 0
        for pid in self._pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime, stime (man 5 proc)
        return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def second_tier(folder: Path) -> Iterator[tuple[Collector, list[int]]]:
    program = built("collector")
    with (
        Collector(program, folder / "sink", passing_to(nop={})) as sink,
        Collector(program, folder / "second", DEPLOY / "second-tier.yaml", BACKEND=sink.endpoint) as tier,
    ):
        yield tier, [tier.pid]


@contextlib.contextmanager
def first_tier(folder: Path) -> Iterator[tuple[Collector, list[int]]]:
    program = built("collector")
    with (
        Collector(program, folder / "a", passing_to(nop={})) as a,
        Collector(program, folder / "b", passing_to(nop={})) as b,
        Collector(
            program,
            folder / "first",
            DEPLOY / "first-tier-static.yaml",
            SECOND_TIER_A=f"127.0.0.1:{a.grpc_port}",
            SECOND_TIER_B=f"127.0.0.1:{b.grpc_port}",
        ) as tier,
    ):
        yield tier, [tier.pid]


@contextlib.contextmanager
def kafka_tier(folder: Path) -> Iterator[tuple[Collector, list[int]]]:
    with (
        Kafka(built("kafka"), folder / "kafka", 6) as broker,
        Collector(built("collector"), folder / "tier", DEPLOY / "kafka.yaml", KAFKA=f"127.0.0.1:{broker.port}") as tier,
    ):
        yield tier, [tier.pid]


TIERS = {"first tier": first_tier, "second tier": second_tier, "Kafka tier": kafka_tier}


def gateway(tier: str, requests: list[Sent], agents: int, seconds: float) -> dict[str, Any]:
    """So many agents send metrics at their interval; what the gateway takes for it."""
    due = [
        (INTERVAL * agent / agents + INTERVAL * number, agent, requests[agent % len(requests)])
        for agent in range(agents)
        for number in range(round(seconds / INTERVAL))
    ]
    with tempfile.TemporaryDirectory() as folder, TIERS[tier](Path(folder)) as (collector, pids):
        warm_up = Traffic(collector.port)
        warm_up.play([(0.0, agent, request) for agent, request in enumerate(requests[:100])])
        usage, traffic = Usage(pids), Traffic(collector.port)
        took = traffic.play(due)
        time.sleep(2)  # what waits in the queue is sent
        return {
            "tier": tier,
            "agents": agents,
            "requests": traffic.accepted["requests"],
            "points": traffic.accepted["metrics"],
            "seconds": took,
            "cpu": usage.cpu(),
            "resident": usage.resident(),
            "latest": traffic.latest,
            "repeated": traffic.repeated,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, nargs="*", default=[0, 50, 500])
    parser.add_argument("--agents", type=int, nargs="*", default=[100, 1000, 10000])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(asked.agents) * 2 + MARGIN), most))
    figures: dict[str, Any] = {"volume": [], "gateway": []}
    with tempfile.TemporaryDirectory() as scratch, Postgres(embedded_binaries(), {"max_connections": 600}) as server:
        folder = Path(scratch)
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute("; ".join(f"create role app{number} login" for number in range(USERS)))
        for count in asked.sessions:
            figures["volume"] += volume(server, count, asked.seconds, folder)
            print(*figures["volume"][-len(FORMS) :], sep="\n", flush=True)
        requests, figures["episode"] = recording(server, folder)
        print(figures["episode"], flush=True)
    fleet = Fleet(requests, max(asked.agents))
    bodies = [fleet.metrics_of(agent) for agent in range(min(DISTINCT, fleet.agents))]
    for tier in TIERS:
        for agents in asked.agents:
            figures["gateway"].append(gateway(tier, bodies, agents, asked.seconds))
            print(figures["gateway"][-1], flush=True)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    write()


if __name__ == "__main__":
    main()
