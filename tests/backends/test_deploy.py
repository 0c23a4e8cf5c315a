"""The gateway of deploy/collector, as it stands there, with a real Collector, a real Kafka and hundreds of agents.

The one thing that is not tried is the `loadbalancing` exporter of first-tier.yaml, which cannot be built here: the rest
of that file is read by the Collector with a plain exporter in its place, and the balance is tried in
first-tier-static.yaml.
"""

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, TopicPartition

import told
from fleet import Fleet, Traffic, recorded
from leaking import leak, server_with_users
from parts import needed
from pgsonar.demo.receiver import Receiver
from playing import Agent
from running import Collector, Kafka, passing_to, until

pytestmark = pytest.mark.backends
DEPLOY = Path(__file__).parents[2] / "deploy" / "collector"
AGENTS = 300
ROUNDS = 3
PARTITIONS = 6


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Agents that send what a real one did, from a leak's opening to its end."""
    with server_with_users() as server, Receiver() as receiver:
        endpoint = f"exporters.otlp_http.endpoint={receiver.endpoint}"
        agent = Agent(tmp_path_factory.mktemp("agent"), f"[{{name: db, port: {server.port}}}]", settings=(endpoint,))
        try:
            with contextlib.closing(leak(server, 0)):
                agent.wait_for(lambda: agent.events(None, "opened"), 15, "the leak was not opened")
            agent.wait_for(agent.spans, 15, "the leak has not ended")
        finally:
            agent.stop()
        yield Fleet(recorded(receiver), AGENTS)


def traffic_of(fleet):
    """Three rounds of metrics, four seconds apart, and an episode of every agent."""
    due = []
    for agent in range(fleet.agents):
        begun = 4 * agent / fleet.agents
        due += [(begun + 4 * number, agent, fleet.metrics_of(agent)) for number in range(ROUNDS)]
        due += [(begun + second + 1, agent, sent) for second, sent in enumerate(fleet.episode_of(agent))]
    return due


def sent_rows(fleet, traffic):
    """How many rows of each signal the account must have."""
    assert traffic.accepted["requests"] == fleet.agents * (ROUNDS + len(fleet.episode_of(0)))
    return {signal: traffic.accepted[signal] for signal in told.REQUESTS}


def by_trace(places):
    """Where the events and the span of each trace id are, by place: `{trace id: {place: rows}}`."""
    found = defaultdict(lambda: defaultdict(list))
    for place, rows in places.items():
        for row in rows:
            if row.signal != "metrics":
                found[json.loads(row.fields)["traceId"]][place].append(row)
    return found


def counted(rows):
    return {signal: sum(row.signal == signal for row in rows) for signal in told.REQUESTS}


@pytest.mark.parametrize("name", ["first-tier-static", "second-tier", "kafka"])
def test_the_collector_accepts_each_file(name):
    validated([DEPLOY / f"{name}.yaml"])
    validated([DEPLOY / f"{name}.yaml", DEPLOY / "tls.yaml"])


def test_the_collector_accepts_the_first_tier_with_a_plain_exporter_in_place_of_the_balancing_one(tmp_path):
    config = yaml.safe_load((DEPLOY / "first-tier.yaml").read_text())
    for name, exporter in list(config["exporters"].items()):
        assert name.startswith("loadbalancing/")
        plain = {**exporter["protocol"]["otlp"], "endpoint": exporter["resolver"]["dns"]["hostname"] + ":4317"}
        config["exporters"][name.replace("loadbalancing", "otlp_grpc")] = plain
        del config["exporters"][name]
    for pipeline in config["service"]["pipelines"].values():
        pipeline["exporters"] = [name.replace("loadbalancing", "otlp_grpc") for name in pipeline["exporters"]]
    (tmp_path / "first-tier.yaml").write_text(yaml.safe_dump(config))
    validated([tmp_path / "first-tier.yaml"])


def validated(files):
    words = [word for file in files for word in ("--config", str(file))]
    ran = subprocess.run([str(needed("collector")), "validate", *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


class TwoTiers:
    """The first tier, two members of the second, and behind each a file of what came through it."""

    def __init__(self, folder):
        program = needed("collector")
        self.written = {member: folder / f"{member}.jsonl" for member in ("a", "b")}
        self.backends = {
            member: Collector(
                program, folder / f"backend-{member}", passing_to(file={"path": str(path), "flush_interval": "100ms"})
            )
            for member, path in self.written.items()
        }
        self.second = {
            member: Collector(program, folder / member, DEPLOY / "second-tier.yaml", BACKEND=backend.endpoint)
            for member, backend in self.backends.items()
        }
        ports = {f"SECOND_TIER_{name.upper()}": f"127.0.0.1:{it.grpc_port}" for name, it in self.second.items()}
        self.first = Collector(program, folder / "first", DEPLOY / "first-tier-static.yaml", **ports)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for one in (*self.backends.values(), *self.second.values(), self.first):
                stack.enter_context(one)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._running.close()


def test_hundreds_of_agents_through_two_tiers_keep_each_episode_together(fleet, tmp_path):
    with TwoTiers(tmp_path) as tiers:
        traffic = Traffic(tiers.first.port)
        traffic.play(traffic_of(fleet))
        expected = sent_rows(fleet, traffic)
        places = arrived_in(tiers.written, expected)

    assert counted([row for rows in places.values() for row in rows]) == expected
    episodes = by_trace(places)
    assert len(episodes) == AGENTS
    assert all(len(rows_by_place) == 1 for rows_by_place in episodes.values()), "an episode was divided"
    assert {len(rows) for by_place in episodes.values() for rows in by_place.values()} == {3}
    shares = [sum(place in by_place for by_place in episodes.values()) for place in places]
    assert min(shares) > AGENTS / 4, f"the balance is {shares}"
    servers = [{row.resource for row in rows if row.signal == "metrics"} for rows in places.values()]
    assert not servers[0] & servers[1], "the metrics of a server went two ways"
    assert min(map(len, servers)) > AGENTS / 4


def test_while_a_member_of_the_second_tier_is_away_agents_keep_what_is_for_it(fleet, tmp_path):
    with TwoTiers(tmp_path) as tiers:
        away = tiers.second["b"]
        away.end()
        back = threading.Timer(6, away.start)
        back.start()
        traffic = Traffic(tiers.first.port)
        traffic.play(traffic_of(fleet))
        back.join()
        expected = sent_rows(fleet, traffic)
        places = arrived_in(tiers.written, expected)

    assert traffic.repeated > 0
    episodes = by_trace(places)
    assert {len(set(rows)) for by_place in episodes.values() for rows in by_place.values()} == {3}
    assert len(episodes) == AGENTS
    assert all(len(rows_by_place) == 1 for rows_by_place in episodes.values()), "an episode was divided"


def arrived_in(written, expected):
    """The rows in each file as soon as all that were sent are there; some may be there twice."""

    def look():
        places = {member: told.of_file(path) for member, path in written.items()}
        return places if sum(len(set(rows)) for rows in places.values()) >= sum(expected.values()) else None

    return until(look, "not everything arrived", 60)


def test_what_the_second_tier_has_taken_outlives_its_end_and_an_outage_of_the_backend(fleet, tmp_path):
    program = needed("collector")
    path = tmp_path / "out.jsonl"
    backend = Collector(program, tmp_path / "backend", passing_to(file={"path": str(path), "flush_interval": "100ms"}))
    with Collector(program, tmp_path / "tier", DEPLOY / "second-tier.yaml", BACKEND=backend.endpoint) as tier:
        traffic = Traffic(tier.port)
        # The backend is not there yet; the tier is killed with everything in its queue.
        traffic.play(traffic_of(fleet))
        expected = sent_rows(fleet, traffic)
        assert not path.exists()
        tier.end(signal.SIGKILL)
        tier.start()
        with backend:
            rows = arrived_in({"backend": path}, expected)["backend"]

    assert counted(set(rows)) == expected


@pytest.mark.parametrize("protocol", ["otlp_http", "otlp_grpc"])
def test_an_agent_is_let_in_by_its_certificate(tmp_path, protocol):
    signed = certificates(tmp_path)
    path = tmp_path / "backend.jsonl"
    shown = {"TLS_CERT": f"{signed}/server.crt", "TLS_KEY": f"{signed}/server.key", "TLS_CLIENT_CA": f"{signed}/ca.crt"}
    files = (DEPLOY / "second-tier.yaml", DEPLOY / "tls.yaml")
    with (
        server_with_users() as server,
        Collector(needed("collector"), tmp_path / "backend", passing_to(file={"path": str(path)})) as backend,
        Collector(needed("collector"), tmp_path / "tier", *files, BACKEND=backend.endpoint, **shown) as tier,
    ):
        port = tier.port if protocol == "otlp_http" else tier.grpc_port
        known = f"{{ca_file: {signed}/ca.crt, cert_file: {signed}/agent.crt, key_file: {signed}/agent.key}}"
        settings = (
            f"exporters.{protocol}/known={{endpoint: 'https://127.0.0.1:{port}', tls: {known}}}",
            f"exporters.{protocol}/unknown={{endpoint: 'https://127.0.0.1:{port}', tls: {{ca_file: {signed}/ca.crt}}}}",
        )
        agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", settings=settings)
        try:
            agent.wait_for(lambda: f"exporter {protocol}/unknown: " in agent.log.read_text(), 10, "it was let in")
            time.sleep(2)
        finally:
            agent.stop()
        rows = told.of_file(agent.path)
        arrived = arrived_in({"backend": path}, counted(rows))["backend"]

    assert sorted(arrived) == sorted(rows)
    assert f"exporter {protocol}/known: " not in agent.log.read_text()


def certificates(folder):
    """A CA, and what it has signed for a server on 127.0.0.1 and for an agent."""
    made = folder / "certificates"
    made.mkdir()
    openssl(made, "req", "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", *NEW_KEY)
    for name in ("server", "agent"):
        (made / "names").write_text("subjectAltName=IP:127.0.0.1")
        openssl(made, "req", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", *NEW_KEY)
        by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl(made, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *by)
    return made


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(folder, *words):
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def test_in_kafka_an_episode_lies_in_one_partition_in_the_order_in_which_it_was_told(fleet, tmp_path):
    with (
        Kafka(needed("kafka"), tmp_path / "kafka", PARTITIONS) as broker,
        Collector(
            needed("collector"), tmp_path / "tier", DEPLOY / "kafka.yaml", KAFKA=f"127.0.0.1:{broker.port}"
        ) as tier,
    ):
        traffic = Traffic(tier.port)
        traffic.play(traffic_of(fleet))
        expected = sent_rows(fleet, traffic)
        topics = {"logs": "pgsonar-events", "traces": "pgsonar-spans", "metrics": "pgsonar-metrics"}
        read = {signal: read_topic(broker.port, topic, signal, expected[signal]) for signal, topic in topics.items()}

    for name, by_partition in read.items():
        assert sum(map(len, by_partition.values())) == expected[name]
        assert len(by_partition) == PARTITIONS, f"the {name} are not spread"
    for name in ("logs", "traces"):
        assert all(len(partitions) == 1 for partitions in by_trace(read[name]).values()), f"{name} were divided"
    assert len(by_trace(read["logs"])) == AGENTS
    for by_place in by_trace(read["logs"]).values():
        ((first, last),) = by_place.values()
        assert json.loads(first.fields)["eventName"] == "pgsonar.leak.opened"
        assert json.loads(last.fields)["eventName"] == "pgsonar.leak.resolved"
    servers = [{row.resource for row in rows} for rows in read["metrics"].values()]
    assert sum(map(len, servers)) == len(set().union(*servers)), "the metrics of a server went two ways"


def read_topic(port, topic, signal, expected):
    """The rows of a topic's messages by partition, in their order."""
    consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "tests", "enable.auto.commit": False})
    found = defaultdict(list)
    with contextlib.closing(consumer):
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        deadline = time.monotonic() + 30
        while sum(map(len, found.values())) < expected and time.monotonic() < deadline:
            for message in consumer.consume(500, 0.5):
                assert message.error() is None, message.error()
                request = told.REQUESTS[signal].FromString(message.value())
                found[message.partition()].extend(told.rows_of(signal, request))
    return found
