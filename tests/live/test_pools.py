"""Real connection pools that leak on purpose are named, the same pools that do not leak are silent, and a war story.

Each program of pools/ is a shop with eight connections and four workers, a process, a role and an application of its
own. What leaks is known from the server's own words, which the program repeats.
"""

import contextlib
import fcntl
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import needs
from pgsonar.demo.clients import WireClient
from playing import AFTER, Agent, flat, lowered, postgres

pytestmark = pytest.mark.live
PROGRAMS = Path(__file__).parent / "pools"
BUILD = Path(__file__).parents[2] / "build" / "node"
JARS = Path("/usr/share/java")
LEAKS = 3
PACE = 15 * 60 / 30  # the fifteen minutes of the war story are played in thirty seconds
AFTER_IN_STORY = 5 * 60 / PACE  # until a transaction counts as left open


def with_psycopg():
    return [sys.executable, PROGRAMS / "with_psycopg.py"]


def with_psycopg2():
    return [sys.executable, PROGRAMS / "with_psycopg2.py"]


def with_node_postgres():
    return ["env", f"NODE_PATH={node_modules()}", "node", PROGRAMS / "with_pg.js"]


def with_hikari():
    needs.programs("java", "javac")  # `java FILE` compiles it first
    jars = [JARS / f"{name}.jar" for name in ("HikariCP", "postgresql", "slf4j-api")]
    for jar in jars:
        if not jar.exists():
            needs.part(jar.name)
    path = ":".join(map(str, jars))
    return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", path, PROGRAMS / "WithHikari.java"]


POOLS = [with_psycopg, with_psycopg2, with_node_postgres, with_hikari]


def node_modules():
    """node-postgres and what it needs, fetched once, in the versions of package-lock.json."""
    needs.programs("node", "npm")
    wanted = json.loads((PROGRAMS / "package.json").read_text())["dependencies"]["pg"]
    place, scratch = BUILD / f"pg-{wanted}", BUILD / "new"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PROGRAMS / name, scratch)
            fetched = subprocess.run(
                ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=scratch,
                capture_output=True,
                text=True,
                check=False,
            )
            if fetched.returncode:
                pytest.skip(f"node-postgres {wanted} cannot be fetched by npm: {fetched.stderr.strip()[-200:]}")
            scratch.rename(place)
    return place / "node_modules"


class Shop:
    """An application with a pool, logged in as a role that it alone has. Use it as a context manager."""

    def __init__(self, command, folder, server, user, *arguments):
        self.user, self.application = user, f"{user}-shop"
        self._command = [*command, str(server.port), user, self.application, *arguments]
        self._output, self._errors = folder / user, folder / f"{user}.errors"
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute(f"create role {user} login")

    def __enter__(self):
        with self._output.open("w") as output, self._errors.open("w") as errors:
            self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=output, stderr=errors)
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def said(self, word):
        """What followed the word in each line that began with it."""
        lines = [line.split() for line in self._output.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [tuple(int(number) for number in line[1:]) for line in lines if line[0] == word]

    def wait_for(self, word, count):
        deadline = time.monotonic() + 20
        while len(self.said(word)) < count:
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"the shop said {self._output.read_text()!r}, {self._errors.read_text()[-2000:]}")
            time.sleep(0.02)
        return self.said(word)

    def rest(self):
        """Lets it stop ordering, with a warm pool; returns how many orders there were."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        ((orders,),) = self.wait_for("rested", 1)
        return orders


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with shops_database(60) as server:
        agent = watched(tmp_path_factory.mktemp("agent"), server)
        try:
            yield server, agent
        finally:
            agent.stop()


@contextlib.contextmanager
def shops_database(slots, **settings):
    with postgres(16, max_connections=slots, **settings) as server:
        with contextlib.closing(WireClient(server.port, "postgres")) as admin:
            admin.execute("create table orders (number int); grant all on orders to public")
            admin.execute("create role watcher login; grant pg_monitor to watcher")
        yield server


def watched(folder, server, **after):
    login = f"{{endpoint: '127.0.0.1:{server.port}', username: watcher, collection_interval: 1s}}"
    return Agent(folder, target(server), receivers=f", postgresql: {login}", leaks=lowered(**after))


def target(server):
    return f"[{{name: db, port: {server.port}}}]"


def members(event):
    """Each member without its onset, which stands last."""
    return {tuple(member.split()[:-1]) for member in event["attributes"]["pgsonar.leak.member_list"]}


def spelled(leaked):
    return {(str(pid), "127.0.0.1", str(port)) for pid, port in leaked}


def culprits(events):
    names = ("pgsonar.leak.kind", "user.name", "postgresql.application_name", "pgsonar.client.pid")
    return {tuple(event["attributes"].get(name) for name in names) for event in events}


def counted(agent, shop):
    """How many backends of the shop were told to be in each state, at any time."""
    points = [(flat(point["attributes"]), int(point["asInt"])) for point in agent.points("pgsonar.backend.count")]
    who = (shop.user, shop.application)
    return {
        (told["postgresql.state"], number)
        for told, number in points
        if (told.get("user.name"), told.get("postgresql.application_name")) == who
    }


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_that_is_not_given_everything_back_is_named(world, tmp_path, pool):
    server, agent = world
    before = len(agent.events())
    with Shop(pool(), tmp_path, server, f"{pool.__name__}_leaky", str(LEAKS)) as shop:
        leaked = spelled(shop.wait_for("leaked", LEAKS))
        agent.wait_for(lambda: [e for e in agent.events()[before:] if members(e) == leaked], 15, "not all are named")
        time.sleep(AFTER)  # whoever else were taken for a leak would be one by now
    ended = agent.wait_event("idle_in_transaction", "resolved", lambda told: told["user.name"] == shop.user, 6)
    events = agent.events()[before:]

    assert [event["eventName"] for event in events].count("pgsonar.leak.opened") == 1
    assert culprits(events) == {("idle_in_transaction", shop.user, shop.application, shop.process.pid)}
    assert all(members(event) <= leaked for event in events)
    assert members(ended) == leaked
    assert len(leaked) == LEAKS


@pytest.mark.parametrize("pool", POOLS)
def test_the_same_pool_that_is_given_everything_back_is_silent(world, tmp_path, pool):
    server, agent = world
    before = len(agent.events())
    with Shop(pool(), tmp_path, server, f"{pool.__name__}_tidy", "0") as shop:
        agent.wait_for(lambda: counted(agent, shop), 20, "the pool is not seen")
        time.sleep(AFTER + 1)
        orders = shop.rest()
        agent.wait_for(lambda: ("idle", 8) in counted(agent, shop), 4, "the pool is not seen to be warm")
        time.sleep(AFTER + 1)
    bodies = [event["body"]["stringValue"] for event in agent.events()[before:]]

    assert bodies == []
    assert orders > 100


def test_a_session_that_the_server_wakes_is_left_open_all_the_same(world, tmp_path):
    """Ten seconds after statistics were left to be flushed the server wakes the session, also within a transaction.

    (src/backend/tcop/postgres.c: IDLE_STATS_UPDATE_TIMEOUT, since 15.) Sessions of a pool that is used have such a
    timer; nothing was sent either way, so the leak is the same and as old as it was.
    """
    server, with_login = world
    without_login = Agent(tmp_path, target(server))
    try:
        with contextlib.closing(WireClient(server.port, "postgres")) as client:
            client.execute("insert into orders values (1)")
            client.execute("begin")
            client.execute("select 1")
            began = time.time()
            time.sleep(0.2)
            switches = voluntary_switches(client.backend_pid)
            time.sleep(12)
            assert voluntary_switches(client.backend_pid) > switches, "it was not woken"
            events = [told_of(agent, client.backend_pid) for agent in (with_login, without_login)]
        with_login.wait_for(
            lambda: told_of(with_login, client.backend_pid)[-1]["eventName"] == "pgsonar.leak.resolved", 6, "no end"
        )
    finally:
        without_login.stop()

    assert [[event["eventName"] for event in told] for told in events] == [["pgsonar.leak.opened"]] * 2
    assert all(abs(event["attributes"]["pgsonar.leak.onset"] / 1e9 - began) < 1 for (event,) in events)


def told_of(agent, pid):
    return [event for event in agent.events() if event["attributes"].get("postgresql.pid") == pid]


def voluntary_switches(pid):
    (number,) = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(number)


def test_a_missing_rollback_is_named_long_before_the_first_client_is_refused(tmp_path, capsys):
    """The war story: 50 workers, a pool of 200, and after fifteen minutes 150 of its sessions idle in transaction."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(shops_database(200, log_line_prefix="%n %e "))
        agent = watched(tmp_path, server, idle_in_transaction=AFTER_IN_STORY, pool_exhausted=0)
        stack.callback(agent.stop)
        shop = stack.enter_context(Shop([sys.executable, PROGRAMS / "war_story.py"], tmp_path, server, "war_story"))
        shop.wait_for("leaked", 1)
        began = time.time()
        refused = agent.wait_for(lambda: refusals(server), 60, "nobody is refused")[0]
        leaked = spelled(shop.said("leaked"))
        told = [event for event in agent.events() if int(event["timeUnixNano"]) / 1e9 < refused]

    opened = {e["attributes"]["pgsonar.leak.kind"]: e for e in told if e["eventName"] == "pgsonar.leak.opened"}
    assert [event["eventName"] for event in told].count("pgsonar.leak.opened") == len(opened)
    assert opened.keys() == {"idle_in_transaction", "pool_exhausted"}
    leaks = [event for event in told if event["attributes"]["pgsonar.leak.kind"] == "idle_in_transaction"]
    assert culprits(leaks) == {("idle_in_transaction", shop.user, shop.application, shop.process.pid)}
    assert all(members(event) <= leaked for event in leaks)
    assert 140 <= len(leaked) <= 165, "as many as in the story"
    assert leaks[-1]["attributes"]["pgsonar.leak.members"] > 60, "it is told how it grows"
    assert abs(leaks[0]["attributes"]["pgsonar.leak.onset"] / 1e9 - began) < 1
    named = int(leaks[0]["timeUnixNano"]) / 1e9
    assert named - began < AFTER_IN_STORY + 3
    lead = refused - named
    with capsys.disabled():
        print(f"\nnamed {lead:.1f} s before the first refusal: {lead * PACE / 60:.1f} min at the pace of the story")
    assert lead * PACE > 7 * 60


def refusals(server):
    """When clients were refused for want of a slot, by the server's own log."""
    return [float(when) for when in re.findall(r"^([0-9.]+) 53300 FATAL", server.log, re.MULTILINE)]
