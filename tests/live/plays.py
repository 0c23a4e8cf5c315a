"""The leaks, played: each does one thing wrong on a real server, says what must be found, and ends it again.

The rule: what is expected is known before anybody looks: kind, members, and the instant of the first symptom. A play
leaves nothing behind. Thresholds are those of `CONFIGURATION`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from networks import CLIENT, SERVER, SERVER_6, Wire
from pgsonar.demo.clients import WireClient
from playing import STUCK_USER, environment

AFTER = 2.0  # seconds
LIMITED, LIMIT = "lim", 4
SOON = (
    *("idle_in_transaction", "orphaned_backend", "orphaned_backend_no_socket", "half_open", "network_path"),
    *("slow_reader", "auth_stuck", "prestartup_stuck", "pool_exhausted", "role_or_database_limit"),
    *("accept_queue", "pooler_forgotten_server", "backend_busy_unread_input", "unaccounted"),
    *("pooler_waiting", "pooler_pinned", "client_socket_leak"),
)
CONFIGURATION = {
    **{kind: {"after": f"{AFTER:g}s"} for kind in SOON},
    "long_query": {"after": "8s"},
    "connection_thrash": {"after": "6s"},
    "idle_leak": {"idle_after": "3s", "window": "2s", "min_members": 3},
}
SLOTS = 200  # of the server
WINDOW = 2.0  # of idle_leak


@dataclass
class World:
    """What plays need: a server behind a wire, PgBouncer in two modes beside it, and where they are reached."""

    server: object  # Postgres
    wire: Wire
    pools: object = None  # Bouncer in transaction mode
    sessions: object = None  # Bouncer in session mode

    def client(self, user, host=SERVER, **how):
        """A client on the other end of the wire, or on the server's own host where `host` says so."""
        inside = self.wire.on_client() if host in {SERVER, SERVER_6} else self.wire.on_server()
        with inside:
            return WireClient(how.pop("port", self.server.port), user, host=host, **how)

    def admin(self):
        return contextlib.closing(self.client("postgres", host=str(self.server.data_directory.parent)))

    def do(self, sql):
        with self.admin() as admin:
            admin.execute(sql)


@dataclass
class Expected:
    """One episode that must open."""

    kind: str
    began: float = field(default_factory=time.time)  # the first symptom
    pids: set = field(default_factory=set)
    ports: set = field(default_factory=set)
    after: float = AFTER
    late: float = 0.0  # seconds the kernel, or a console, needs before anybody can know
    also: tuple = ()  # kinds that say the same in other words
    onset: bool = True  # whether the onset is known to a second
    severity: str | None = None  # None: not looked at
    says: str = ""  # what its sentence must hold


def session(client):
    return {"pids": {client.backend_pid}, "ports": {client.port}}


PLAYS = {}


class Play:
    """A play under way. It is ended in the same way whatever has happened meanwhile."""

    def __init__(self, function, world):
        self._steps = function(world, function.__name__)  # whom the leak is of

    def __enter__(self):
        """What is expected, one or more."""
        expected = next(self._steps)
        return expected if isinstance(expected, list) else [expected]

    def __exit__(self, *error):
        next(self._steps, None)


def play(function):
    PLAYS[function.__name__] = functools.partial(Play, function)
    return PLAYS[function.__name__]


@play
def transaction_left_open(world, user):
    client = world.client(user)
    client.execute("begin")
    client.execute("select 1")
    yield Expected("idle_in_transaction", **session(client))
    client.close()


@play
def transaction_left_open_over_ipv6(world, user):
    client = world.client(user, host=SERVER_6)
    client.execute("begin")
    yield Expected("idle_in_transaction", **session(client))
    client.close()


@play
def transaction_left_open_over_a_unix_socket(world, user):
    client = world.client(user, host=str(world.server.data_directory.parent))
    client.execute("begin")
    yield Expected("idle_in_transaction", pids={client.backend_pid})
    client.close()


@play
def failed_transaction_left_open(world, user):
    client = world.client(user)
    client.execute("begin")
    client.execute("select 1/0")
    yield Expected("idle_in_transaction", **session(client), says="only ROLLBACK ends it")
    client.close()


@play
def transaction_left_open_through_a_pooler(world, user):
    with world.wire.on_server():
        client = WireClient(world.pools.port, user)
    client.execute("begin")
    client.execute("select 1")
    yield Expected("idle_in_transaction", ports={client.port})
    client.close()


def _killed(world, user, sql):
    """A client process that dies in mid query; returns it as a member."""
    with world.wire.on_client():
        process = subprocess.Popen(
            [sys.executable, "-m", "pgsonar.demo.clients", str(world.server.port), user, sql, SERVER],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    with process:
        pid, port = (int(word) for word in process.stdout.readline().split())
        time.sleep(0.4)
        process.kill()
    return {"pids": {pid}, "ports": {port}}


def _end(world, member):
    for pid in member["pids"]:
        world.do(f"select pg_terminate_backend({pid})")


def _end_and_close(world, client):
    _end(world, session(client))
    client.socket.close()


def _at_work(world, user, host=SERVER):
    """A client whose query runs."""
    client = world.client(user, host=host)
    client.send_query("select pg_sleep(120)")
    time.sleep(0.3)
    return client


def _will_reset(client):
    """Its end will be a reset."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@play
def client_killed_during_a_query(world, user):
    member = _killed(world, user, "select pg_sleep(120)")
    yield Expected("orphaned_backend", **member)
    _end(world, member)


@play
def client_killed_while_it_waits_for_a_lock(world, user):
    with world.admin() as admin:
        admin.execute("begin; update t set v = v + 1")
        member = _killed(world, user, "update t set v = v + 1")
        yield [
            Expected("orphaned_backend", **member, severity="critical", says="its UPDATE WILL EXECUTE"),
            Expected("idle_in_transaction", pids={admin.backend_pid}),
        ]
        admin.execute("rollback")


@play
def client_that_closes_during_a_query(world, user):
    client = _at_work(world, user, host=SERVER_6)
    member = session(client)
    client.close()
    yield Expected("orphaned_backend", **member)
    _end(world, member)


@play
def client_that_half_closes_during_a_query(world, user):
    client = _at_work(world, user)
    client.socket.shutdown(socket.SHUT_WR)
    yield Expected("orphaned_backend", **session(client))
    _end_and_close(world, client)


@play
def client_reset_with_unread_replies(world, user):
    client = world.client(user)
    client.send_query("select generate_series(1, 100)")
    time.sleep(0.4)
    client.send_query("select pg_sleep(120)")
    time.sleep(0.3)
    member = session(client)
    client.reset()
    yield Expected("orphaned_backend_no_socket", **member)
    _end(world, member)


KEEPALIVE = "set tcp_keepalives_idle = 1; set tcp_keepalives_interval = 1; set tcp_keepalives_count = 60"
SILENT = ("silent_reply", "silent_keepalive", "silent_window")


def _mend(world, clients):
    """Their sessions have ended before they can answer again."""
    for client in clients:
        _end(world, session(client))
    world.wire.mend()
    for client in clients:
        client.socket.close()


@play
def peers_that_fall_silent(world, _):
    """The wire is cut under a session that answers, one that idles, and one whose client does not read."""
    replies, idles = (world.client(name) for name in SILENT[:2])
    full = _full(world, SILENT[2])
    idles.execute(KEEPALIVE)
    replies.send_query("select pg_sleep(1)")
    time.sleep(0.3)
    world.wire.cut()
    # The fifth retransmission goes out some 6 s after the reply, and probes of a closed window back off.
    yield [
        Expected("half_open", **session(replies), late=8.0, onset=False),
        Expected("half_open", **session(idles), late=2.5, onset=False),
        Expected("half_open", **session(full), late=8.0, onset=False, also=("slow_reader",)),
    ]
    _mend(world, [replies, idles, full])


def _full(world, user):
    client = world.client(user)
    client.send_query("select repeat('x', 1000) from generate_series(1, 100000)")
    time.sleep(1.0)
    return client


@play
def network_cut(world, user):
    clients = [world.client(user) for _ in range(6)]
    for client in clients:
        client.execute(KEEPALIVE)
    for client in clients:  # all at once, so that all are asked at the same time, however long the above has taken
        client.send_query("select 1")
    for client in clients:
        while client.message()[0] != b"Z":
            pass
    time.sleep(0.3)  # an acknowledgement that is delayed would be lost, and the reply sent again
    world.wire.cut()
    yield Expected(
        "network_path",
        pids={client.backend_pid for client in clients},
        ports={client.port for client in clients},
        late=3.0,
        onset=False,
    )
    _mend(world, clients)


@play
def slow_reader(world, user):
    client = _full(world, user)
    yield Expected("slow_reader", **session(client), late=2.5, onset=False)
    _end_and_close(world, client)


@play
def slow_reader_that_was_cancelled(world, user):
    client = _full(world, user)
    world.do(f"select pg_cancel_backend({client.backend_pid})")
    yield Expected("slow_reader", **session(client), late=2.5, onset=False)
    _end_and_close(world, client)


@play
def input_left_unread(world, user):
    client = _at_work(world, user)
    client.send_query("select 1")
    yield Expected("backend_busy_unread_input", **session(client), late=2.5, also=("long_query",))
    _end_and_close(world, client)


@play
def statement_that_runs_long(world, user):
    client = world.client(user)
    client.send_query("select pg_sleep(120)")
    yield Expected("long_query", **session(client), after=8.0, late=5.0, onset=False)
    _end_and_close(world, client)


@play
def password_never_sent(world, user):
    stuck = [world.client(STUCK_USER, login=False) for _ in range(3)]
    yield Expected("auth_stuck", ports={client.port for client in stuck}, also=("unaccounted",))
    for client in stuck:
        client.socket.close()


@play
def slots_that_pg_stat_activity_does_not_show(world, user):
    stuck = [world.client(STUCK_USER, login=False) for _ in range(2)]
    # The gap must stand in two readings of the login in a row.
    yield Expected("unaccounted", ports={client.port for client in stuck}, late=3.0, onset=False, also=("auth_stuck",))
    for client in stuck:
        client.socket.close()


@play
def clients_that_never_say_who_they_are(world, user):
    with world.wire.on_client():
        silent = [socket.create_connection((SERVER, world.server.port)) for _ in range(3)]
    yield Expected("prestartup_stuck", ports={one.getsockname()[1] for one in silent})
    for one in silent:
        one.close()


@play
def role_at_its_limit(world, user):
    clients = [world.client(LIMITED) for _ in range(LIMIT)]
    # Like that of used up slots its onset is when it was first seen: nothing but the number of sessions tells.
    yield Expected("role_or_database_limit", onset=False)
    for client in clients:
        client.close()


@play
def slots_run_out(world, user):
    clients = [world.client(user) for _ in range(SLOTS * 9 // 10)]
    yield Expected("pool_exhausted", onset=False)
    for client in clients:
        client.close()


@contextlib.contextmanager
def _postmaster_stopped(world):
    """A client waits meanwhile."""
    os.kill(world.server.pid, signal.SIGSTOP)
    try:
        with world.wire.on_client():
            waiting = socket.create_connection((SERVER, world.server.port))
        yield waiting
    finally:
        os.kill(world.server.pid, signal.SIGCONT)
    waiting.close()


@play
def postmaster_that_does_not_accept(world, user):
    with _postmaster_stopped(world) as waiting:
        yield Expected("accept_queue", ports={waiting.getsockname()[1]})


@play
def idle_connections_that_grow(world, user):
    stop, clients = threading.Event(), []

    def leak():
        while not stop.wait(0.5):
            client = WireClient(world.server.port, user, host=str(world.server.data_directory.parent))
            clients.append(client)

    thread = threading.Thread(target=leak)
    thread.start()
    # They are idle for long after three seconds, then three windows must show growth, of which the first is begun.
    yield Expected("idle_leak", after=3 * WINDOW, late=3.0 + WINDOW + 2, onset=False)
    stop.set()
    thread.join()
    for client in clients:
        client.close()


# A process of its own, because nothing may slow it down that a test does; it tells when its rate is beyond what counts.
CONNECTS = """
import contextlib, sys, time
from pgsonar.demo.clients import WireClient
port, user, host = sys.argv[1:]
begun, connected, is_told = time.monotonic(), 0, False
while True:
    with contextlib.suppress(OSError):
        client = WireClient(int(port), user, host=host)
        client.execute("select 1")
        client.close()
        connected += 1
    if time.monotonic() - begun >= 1:
        if connected > 60 and not is_told:
            is_told = True
            print("thrashes", flush=True)
        begun, connected = time.monotonic(), 0
"""


@play
def clients_that_connect_for_each_statement(world, user):
    command = [sys.executable, "-c", CONNECTS, str(world.server.port), user, SERVER]
    with world.wire.on_client():
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) for _ in range(2)]
    processes[0].stdout.readline()
    yield Expected("connection_thrash", after=6.0, late=6.0, onset=False)
    for process in processes:
        process.kill()
        process.communicate()


def _full_pool(world, user):
    """Two clients whose transactions hold all of it, and one that waits."""
    with world.wire.on_server():
        holding = [WireClient(world.pools.port, user) for _ in range(2)]
        for client in holding:
            client.execute("begin")
        waiting = WireClient(world.pools.port, user)
        waiting.send_query("select 1")
    return holding, waiting


@play
def pooler_whose_clients_wait(world, user):
    holding, waiting = _full_pool(world, user)
    # It counts once the oldest has waited for five seconds, and the console is asked every second.
    yield [
        Expected("pooler_waiting", ports={waiting.port}, late=5.5),
        Expected("idle_in_transaction", ports={client.port for client in holding}),
    ]
    for client in (*holding, waiting):
        client.close()


@play
def pooler_whose_servers_are_pinned(world, user):
    with world.wire.on_server():
        clients = [WireClient(world.sessions.port, user) for _ in range(3)]
        for client in clients[:2]:
            client.execute("select 1")
    yield Expected("pooler_pinned", ports={client.port for client in clients[:2]}, late=2.0, onset=False)
    for client in clients:
        client.close()


@play
def pooler_that_forgets_a_server(world, user):
    with world.wire.on_server():
        client = WireClient(world.pools.port, user)
    client.send_query("select pg_sleep(121)")
    time.sleep(1.5)  # until the console has told whose it is
    _will_reset(client)
    client.close()
    yield Expected("pooler_forgotten_server", late=1.0, also=("orphaned_backend",))
    world.do(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(121)%' and state = 'active'"
        " and pid <> pg_backend_pid()"
    )


@play
def sockets_that_the_server_has_closed(world, user):
    client = world.client(user)
    port = client.port
    world.do(f"select pg_terminate_backend({client.backend_pid})")
    # Namespaces of applications are looked for every few seconds.
    yield Expected("client_socket_leak", ports={port}, late=6.0)
    client.socket.close()


# --- the near misses: each looks like a leak and is none -------------------------------------------------------------

TWINS = {}


def twin(*kinds):
    """A near miss of these kinds: it lasts `seconds`, and nothing may be told of it."""

    def note(function):
        TWINS[function.__name__] = (kinds, function)
        return function

    return note


def until(seconds):
    """Passes often until so many seconds are over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield


@twin("idle_in_transaction")
def transaction_of_short_statements(world, user, seconds):
    client = world.client(user)
    client.execute("begin")
    for _ in until(seconds):
        client.execute("select 1")
        time.sleep(0.01)
    client.close()


@twin("idle_leak")
def pool_at_rest(world, user, seconds):
    clients = [world.client(user) for _ in range(6)]
    time.sleep(seconds)
    for client in clients:
        client.close()


@twin("orphaned_backend", "orphaned_backend_no_socket")
def clients_killed_while_idle_or_in_transaction(world, user, seconds):
    for begin in ("select 1", "begin"):
        client = world.client(user)
        client.execute(begin)
        client.socket.close()  # without a word
        client = world.client(user)
        client.execute(begin)
        _will_reset(client)
        client.socket.close()  # with a reset
    time.sleep(seconds)


@twin("half_open", "network_path")
def keepalives_that_are_answered(world, user, seconds):
    clients = [world.client(user) for _ in range(6)]
    for client in clients:
        client.execute(KEEPALIVE)
    time.sleep(seconds)
    for client in clients:
        client.close()


@twin("slow_reader")
def reader_that_is_slow_but_moves(world, user, seconds):
    while seconds > 0:  # a statement that took longer would be told as a long one
        client = world.client(user)
        client.send_query("select repeat('x', 1000) from generate_series(1, 100000)")
        for _ in until(min(seconds, 6.0)):
            client.socket.recv(1 << 17)
            time.sleep(0.3)
        world.do(f"select pg_terminate_backend({client.backend_pid})")
        client.socket.close()
        seconds -= 6.0


@twin("backend_busy_unread_input")
def load_that_comes_faster_than_it_is_read(world, user, seconds):
    client = world.client(user)
    # Each row takes a millisecond, so that what comes lies unread.
    client.execute("create temp table loaded (v text check (pg_sleep(0.001)::text is not null))")
    rows = 100 * (b"x" * 100 + b"\n")
    message = b"d" + struct.pack("!I", 4 + len(rows)) + rows
    client.send_query("copy loaded from stdin")
    client.message()
    for _ in until(min(seconds, 6.0)):
        client.socket.sendall(message)
    world.do(f"select pg_terminate_backend({client.backend_pid})")
    client.socket.close()
    time.sleep(max(0.0, seconds - 6.0))


@twin("auth_stuck", "prestartup_stuck", "unaccounted")
def logins_that_take_their_time(world, user, seconds):
    for _ in until(seconds):
        with world.wire.on_client():
            one = socket.create_connection((SERVER, world.server.port))
        time.sleep(0.5)
        one.close()
        slow = world.client(STUCK_USER, login=False)
        time.sleep(0.7)
        slow.socket.close()


@twin("role_or_database_limit")
def role_below_its_limit(world, user, seconds):
    world.do(f"alter role {user} connection limit {LIMIT}")
    clients = [world.client(user) for _ in range(LIMIT - 1)]
    time.sleep(seconds)
    for client in clients:
        client.close()


@twin("accept_queue")
def postmaster_that_pauses(world, user, seconds):
    with _postmaster_stopped(world):
        time.sleep(1.4)
    time.sleep(max(0.0, seconds - 2))


@twin("connection_thrash")
def clients_that_connect_now_and_then(world, user, seconds):
    for _ in until(seconds):
        client = world.client(user)
        client.execute("select 1")
        client.close()
        time.sleep(0.1)


@twin("long_query")
def many_short_statements(world, user, seconds):
    client = world.client(user)
    for _ in until(seconds):
        client.execute("select count(*) from generate_series(1, 400000)")
    client.close()


@twin("pooler_waiting")
def clients_that_wait_for_a_moment(world, user, seconds):
    holding, waiting = _full_pool(world, user)
    for _ in until(3.5):  # longer than the threshold, shorter than what is long
        for client in holding:
            client.execute("select 1")
        time.sleep(0.02)
    for client in holding:
        client.execute("commit")
    for client in (*holding, waiting):
        client.close()
    time.sleep(max(0.0, seconds - 4))


@twin("pooler_pinned")
def sessions_that_leave_room(world, user, seconds):
    with world.wire.on_server():
        clients = [WireClient(world.sessions.port, user) for _ in range(2)]
    clients[0].execute("select 1")
    time.sleep(seconds)
    for client in clients:
        client.close()


@twin("pooler_forgotten_server")
def client_that_leaves_after_its_query(world, user, seconds):
    with world.wire.on_server():
        client = WireClient(world.pools.port, user)
    client.execute("select 1")
    _will_reset(client)
    client.close()
    time.sleep(seconds)


@twin("client_socket_leak")
def sessions_all_closed_at_once(world, user, seconds):
    clients = [world.client(user) for _ in range(40)]
    world.do(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{user}'")
    time.sleep(seconds)
    for client in clients:
        client.socket.close()


@twin("pool_exhausted")
def slots_that_are_busy_and_not_short(world, user, seconds):
    clients = [world.client(user) for _ in range(SLOTS // 3)]
    time.sleep(seconds)
    for client in clients:
        client.close()


__all__ = ["AFTER", "CLIENT", "CONFIGURATION", "PLAYS", "TWINS", "Expected", "World"]
