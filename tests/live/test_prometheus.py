"""A real Prometheus scrapes a real agent: what its users would see, stored with exemplars and without complaint."""

import contextlib
import json
import signal
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

import needs
from pgsonar.demo.clients import WireClient
from playing import Agent, postgres
from ports import free_port

pytestmark = pytest.mark.live

# What promtool would have otherwise: names of OpenTelemetry's conventions, and one that dashboards ask for.
KNOWN_LINT = {
    'non-histogram and non-summary metrics should not have "_count" suffix': {
        "pgsonar_backend_count",
        "pgsonar_connection_count",
        "pgsonar_server_count",
    },
    'non-counter metrics should not have "_total" suffix': {"pg_connection_stats_total"},
}


class Prometheus:
    """One that scrapes two ports every second."""

    def __init__(self, folder, **jobs):
        self.port = free_port()
        targets = {name: [{"targets": [f"127.0.0.1:{port}"]}] for name, port in jobs.items()}
        scrapes = [{"job_name": name, "static_configs": found} for name, found in targets.items()]
        config = folder / "prometheus.yml"
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": scrapes}))
        self.log = folder / "prometheus.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--enable-feature=exemplar-storage",
                    "--log.level=warn",
                ],
                stderr=log,
            )

    def ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

    def query(self, text):
        """Values by the labels that are not the scrape's own."""
        return [
            ({k: v for k, v in found["metric"].items() if k not in {"__name__", "instance"}}, float(found["value"][1]))
            for found in self.ask("query", query=text)["result"]
        ]

    def wait(self, text, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if found := self.query(text):
                    return found
            time.sleep(0.2)
        pytest.fail(f"{text} gives nothing; its log: {self.log.read_text()[-2000:]}")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def prometheus(tmp_path):
    needs.programs("prometheus", "promtool")
    with contextlib.ExitStack() as stack:

        def start(**jobs):
            started = Prometheus(tmp_path, **jobs)
            stack.callback(started.stop)
            return started

        yield start


def scraped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read()


def test_prometheus_stores_servers_leaks_with_exemplars_and_the_agent_itself(tmp_path, prometheus):
    ports = {"servers": free_port(), "agent": free_port()}
    settings = (
        f"exporters.prometheus.endpoint=127.0.0.1:{ports['servers']}",
        f"service.telemetry.metrics.endpoint=127.0.0.1:{ports['agent']}",
    )
    with postgres(16) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(WireClient(server.port, "postgres")))
        client.execute("begin")
        single = f'"{client.backend_pid}"', f'"{client.port}"'
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", settings=settings)
        stack.callback(agent.stop)
        store = prometheus(**ports)
        event = agent.wait_event("idle_in_transaction", "opened", lambda told: True, 10)
        sent = 'pgsonar_exporter_sent_log_records_total{exporter="file"} == 1'
        for complete in ("sum(up) == 2", "count(pgsonar_up) == 2", f"count({sent}) == 2"):
            store.wait(complete)  # each target is scraped at its own moment
        leaks = store.wait("pgsonar_leak_count_total == 1")
        sent, up, own = store.query(sent), store.query("up"), store.query("pgsonar_up")
        stats = {name: store.wait(f"pg_connection_stats_{name}") for name in ("idle_in_transaction", "max_connections")}
        joined = store.query(
            "pgsonar_slot_used * on(service_instance_id) group_left(pgsonar_server_name) target_info"
            '{pgsonar_server_name="db"}'
        )
        exemplars = store.ask("query_exemplars", query="pgsonar_leak_count_total", start=0, end=time.time() + 60)
        checks = [
            subprocess.run(["promtool", "check", "metrics"], input=scraped(port), capture_output=True, check=False)
            for port in ports.values()
        ]
        texts = [scraped(port).decode() for port in ports.values()]

    assert sorted((labels["job"], value) for labels, value in up) == [("agent", 1), ("servers", 1)]
    ((leak, _),) = leaks
    assert (leak["pgsonar_leak_kind"], leak["server_port"]) == ("idle_in_transaction", str(server.port))
    assert {labels["job"] for labels, _ in sent} == {"agent", "servers"}
    assert {labels["job"] for labels, _ in own} == {"agent", "servers"}
    assert len({labels["pgsonar_config_hash"] for labels, _ in own}) == 1
    assert [value for found in stats.values() for _, value in found] == [1, 30]
    assert sum(value for _, value in joined) == 1
    (found,) = exemplars
    assert {exemplar["labels"]["trace_id"] for exemplar in found["exemplars"]} == {event["traceId"]}
    assert {exemplar["labels"]["span_id"] for exemplar in found["exemplars"]} == {event["spanId"]}
    for check in checks:
        for line in (check.stderr + check.stdout).decode().splitlines():
            name, _, complaint = line.partition(" ")
            assert name in KNOWN_LINT[complaint], line
    assert "warn" not in store.log.read_text(), "no sample of ours was dropped"
    assert not [name for name in single for text in texts if name in text], "no series is of a single session"


def told(text):
    """Values by name and labels."""
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[:1] != "#"}


def test_counters_survive_a_reload_and_the_heartbeat_tells_of_it(tmp_path):
    port, moved = free_port(), free_port()
    settings = (f"exporters.prometheus.endpoint=127.0.0.1:{port}",)
    with postgres(16) as server, contextlib.ExitStack() as stack:
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", settings=settings)
        stack.callback(agent.stop)
        for _ in range(3):
            stack.enter_context(contextlib.closing(WireClient(server.port, "postgres")))

        def opened():
            text = scraped(port).decode()
            found = [value for name, value in told(text).items() if name.startswith("pgsonar_connection_opened_total{")]
            return (text, found[0]) if found and found[0] >= 3 else None

        before, counted = agent.wait_for(opened, 10, "connections are not counted")
        config = tmp_path / "agent.yaml"
        config.write_text(config.read_text().replace("endpoint: none", f"endpoint: '127.0.0.1:{moved}'"))
        agent.process.send_signal(signal.SIGHUP)

        def own():
            with contextlib.suppress(OSError):
                return scraped(moved).decode().strip()
            return None

        own_text = agent.wait_for(own, 10, "the agent's own metrics are not served after the reload")
        text, after = opened()

    def heartbeats(text):
        return [name for name in told(text) if name.startswith("pgsonar_up{")]

    assert after >= counted
    assert len(heartbeats(text)) == 1
    assert heartbeats(text) == heartbeats(own_text) != heartbeats(before), "another hash of the configuration"
    ended = {name.partition("{")[0] for name in told(before)} - {name.partition("{")[0] for name in told(text)}
    assert ended == set(), "no series has gone"
