"""What is about to be told is written down first, and struck out when it waits in the queues: no kill falls between."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from episode import EPISODE
from pgsonar import clock
from pgsonar.config.load import load
from pgsonar.daemon.service import Service
from pgsonar.daemon.storage import NAME
from pgsonar.model import EpisodeEvent

TESTS = Path(__file__).parents[1]
# An agent that has something to tell. With "dies" it is killed when it hands that to the exporters: after the journal,
# before the queue.
DRIVER = """
import os, sys, threading
from pgsonar import clock
from pgsonar.config.load import load
from pgsonar.daemon.exporting import Exporting
from pgsonar.model import EpisodeEvent
from pgsonar.daemon.service import Service
from episode import EPISODE

if "dies" in sys.argv:
    Exporting.export = lambda self, batch: os._exit(9) if batch.signal == "logs" else None
stop = threading.Event()
service = Service(load([sys.argv[1]], [], {}), stop)
if "tells" in sys.argv:
    service._reporter.tell([EpisodeEvent("opened", EPISODE, "threshold", clock.now())])
stop.set()
service.run()
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(
        "receivers: {sockets: {targets: [{name: db, port: 1}]}}\n"
        f"exporters: {{file: {{path: {tmp_path / 'out.jsonl'}}}}}\n"
        f"extensions: {{file_storage: {{directory: {tmp_path / 'state'}}}}}\n"
        "service: {extensions: [file_storage], telemetry: {metrics: {endpoint: none}}}\n"
    )
    return path


def run(config, *words):
    """An agent of its own process; its exit code."""
    command = [sys.executable, "-c", DRIVER, str(config), *words]
    environment = {"PYTHONPATH": f"{TESTS.parent / 'agent'}:{TESTS}"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False).returncode


def told(config):
    """The names of the events that have arrived."""
    path = config.with_name("out.jsonl")
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        record["eventName"]
        for line in lines
        for resource in json.loads(line).get("resourceLogs", [])
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def journal(config):
    with contextlib.closing(sqlite3.connect(config.with_name("state") / NAME)) as database:
        return database.execute("select count(*) from telling").fetchone()[0]


def test_what_a_kill_kept_from_the_queue_is_told_by_the_next_run(config):
    assert run(config, "tells", "dies") == 9
    assert told(config) == []
    assert run(config) == 0
    assert told(config) == ["pgsonar.leak.opened"]
    assert journal(config) == 0


def test_an_agent_that_is_killed_at_each_start_has_no_more_to_tell_each_time(config):
    assert run(config, "tells", "dies") == 9
    assert [run(config, "dies") for _ in range(2)] == [9, 9]
    assert journal(config) == 1


@pytest.fixture
def service(config):
    running = Service(load([str(config)], [], {}))
    yield running
    running._close()


def tell(service):
    service._pipeline.episodes.told += 1
    service._reporter.tell([EpisodeEvent("opened", EPISODE, "threshold", clock.now())])


def test_it_is_struck_out_only_when_it_waits_in_the_queues(service, monkeypatch):
    tell(service)
    with monkeypatch.context() as slow:
        slow.setattr(service._exporting, "settle", lambda _: False)
        service._keep_state()
        assert len(service._state.untold(clock.now())) == 1
    service._keep_state()
    assert service._state.untold(clock.now()) == []


def test_what_could_not_be_written_is_tried_again_though_nothing_is_open(service, config):
    tell(service)
    service._state._file._database.execute("pragma busy_timeout = 1")
    with contextlib.closing(sqlite3.connect(config.with_name("state") / NAME)) as other:
        other.execute("begin exclusive")
        service._keep_state()
        assert service._state.problem
    service._keep_state()
    assert service._state.problem is None
    assert service._state.untold(clock.now()) == []
