"""The whole agent, as users run it: CPU, memory and punctuality beside a real PostgreSQL among ten thousand rows.

CPU is that of all its threads, from the scheduler's own account (/proc/PID/task/*/schedstat, ns). It exports over
OTLP/HTTP, and with `max_cpu: 100%`, so that nothing slows it down. PGSONAR_CHURN_MINUTES (10) says how long sessions
come and go.
"""

import math
import os
import threading
import time

import pytest
from agents import MB, Agent, cpu_seconds, database, resident
from worlds import say

from pgsonar.demo.clients import WireClient

WARM_UP = 5.0


@pytest.mark.parametrize(("interval", "goal"), [("100ms", 1.0), ("10ms", 5.0), ("1ms", 20.0)])
def test_the_whole_agent(goals, tmp_path, interval, goal):
    seconds = 8 if goals.short else 40
    say(f"the agent every {interval}, {seconds} s")
    with database(9900) as (port, receiver):
        agent = Agent(tmp_path, port, receiver, interval)
        try:
            time.sleep(WARM_UP)
            begun, used = time.monotonic(), cpu_seconds(agent.pid)
            time.sleep(seconds)
            share = 100 * (cpu_seconds(agent.pid) - used) / (time.monotonic() - begun)
            memory = resident(agent.pid)
        finally:
            agent.stop()
        rate = [point["asDouble"] for point in agent.points("pgsonar.scan.rate")][-1]
        late = [int(point["asInt"]) for point in agent.points("pgsonar.scan.late")][-1]
    note = f"{rate:.0f} ticks a second, {late} late in all, {memory / MB:.1f} MB"
    goals.figure(f"CPU of the agent every {interval}", share, goal, unit="%", note=note)
    goals.figure(f"resident memory, every {interval}", memory / 1e6, 45.0, unit="MB")
    if interval == "100ms":
        goals.figure("start to first scan", agent.first_scan, 0.5, unit="s")


def test_procfs_slows_itself_to_its_budget(goals, tmp_path):
    """Under the default budget of 2 % the text of ten thousand rows cannot be read ten times a second."""
    if goals.short:
        pytest.skip("the long form's: the budget settles over half a minute")
    say("procfs within 2 %, 60 s")
    with database(9900) as (port, receiver):
        agent = Agent(tmp_path, port, receiver, "100ms, source: procfs", "2%")
        try:
            time.sleep(30)
            begun, used = time.monotonic(), cpu_seconds(agent.pid)
            time.sleep(30)
            share = 100 * (cpu_seconds(agent.pid) - used) / (time.monotonic() - begun)
        finally:
            agent.stop()
        rate = [point["asDouble"] for point in agent.points("pgsonar.scan.rate")][-1]
    goals.figure("CPU of the agent, procfs within max_cpu 2%", share, 2.2, unit="%", note=f"{rate:.1f} scans a second")


def slope(points):
    """Least squares: the slope of (x, y), and the upper end of its 95 % interval."""
    n = len(points)
    mean_x, mean_y = (sum(values) / n for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    gradient = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - gradient * (x - mean_x)) ** 2 for x, y in points)
    return gradient, gradient + 1.96 * math.sqrt(rest / (n - 2) / spread)


def churn(port, stop, rate=100):
    """Sessions that come and go, so many a second."""
    due = time.monotonic()
    while not stop.is_set():
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        client = WireClient(port, "postgres")
        client.socket.sendall(b"X\0\0\0\4")  # Terminate
        client.socket.close()


def test_memory_under_churn(goals, tmp_path):
    minutes = float(os.environ.get("PGSONAR_CHURN_MINUTES", "0.5" if goals.short else "10"))
    hour = minutes >= 60
    say(f"100 sessions a second come and go, {minutes:g} min")
    warm_up = min(120, minutes * 20)
    stop = threading.Event()
    points = []
    with database(0) as (port, receiver):
        agent = Agent(tmp_path, port, receiver, "100ms", "2%")
        thread = threading.Thread(target=churn, args=(port, stop))
        thread.start()
        try:
            begun = time.monotonic()
            while (elapsed := time.monotonic() - begun) < minutes * 60:
                time.sleep(1)
                if elapsed > warm_up:
                    points.append((elapsed / 3600, resident(agent.pid) / 1e6))
        finally:
            stop.set()
            thread.join()
            agent.stop()
        opened = sum(int(point["asInt"]) for point in agent.points("pgsonar.connection.opened")[-1:])
    gradient, upper = slope(points)
    note = f"{gradient:.2f} MB an hour, {opened} connections counted, {points[-1][1]:.1f} MB at the end"
    if goals.short:  # half a minute says nothing about an hour
        goals.figure("resident memory under churn", points[-1][1], 45.0, unit="MB", note=note)
        return
    name = "memory's slope under churn" + (", an hour" if hour else "")
    goals.figure(name, upper, 1.0 if hour else 6.0, unit="MB/h", note=note)
    if hour:
        goals.figure("resident memory after an hour", points[-1][1], 45.0, unit="MB")
