"""A signal that comes while a command starts is heard: it asks for an end or a reload, and kills nobody."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parents[2] / "agent")
# Sends itself a signal when it comes to the place that is named, once.
DRIVER = """
import os, sys
number, place = int(sys.argv[1]), sys.argv[2]

def look(event, told):
    global place
    if place is not None and event in ("import", "open") and str(told[0]).endswith(place):
        place = None
        os.kill(os.getpid(), number)

sys.addaudithook(look)
from pgsonar.commands import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def start(tmp_path):
    """Starts a command that gets a signal at a place; the process and the file of its log."""
    config, log = tmp_path / "agent.yaml", tmp_path / "log"
    config.write_text(
        "receivers: {sockets: {targets: [{name: db, port: 1}]}}\n"
        f"exporters: {{file: {{path: {tmp_path / 'out.jsonl'}}}}}\n"
    )
    started = []

    def start(number, place, *words):
        command = [sys.executable, "-c", DRIVER, str(int(number)), place, *words, "--config", str(config)]
        with log.open("w") as stream:
            started.append(subprocess.Popen(command, env={"PYTHONPATH": SOURCE}, stderr=stream))
        return started[-1], log

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["pgsonar.config.load", "pgsonar.daemon.service", "agent.yaml"])
def test_an_end_that_is_asked_for_while_the_agent_starts_is_orderly(start, number, place):
    agent, log = start(number, place, "run")
    assert agent.wait(20) == 0
    assert "stopping" in log.read_text()


@pytest.mark.parametrize("place", ["pgsonar.config.load", "agent.yaml"])
def test_a_reload_that_is_asked_for_while_the_agent_starts_is_done_when_it_runs(start, place):
    agent, log = start(signal.SIGHUP, place, "run")
    deadline = time.monotonic() + 20
    while "the configuration was read anew" not in log.read_text():
        assert agent.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    agent.terminate()
    assert agent.wait(10) == 0


def test_a_recording_that_is_ended_while_it_starts_ends_orderly(start, tmp_path):
    recording, log = start(signal.SIGTERM, "agent.yaml", "record", str(tmp_path / "recording"))
    assert recording.wait(20) == 0
    assert "recorded" in log.read_text()
