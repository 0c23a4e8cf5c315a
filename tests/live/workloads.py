"""Healthy work against a real PostgreSQL: what must never be reported as a leak.

The rule: a workload plays for about so many seconds, leaves nothing running behind, and raises when it could not do its
work: silence about work that was not done proves nothing. `WORKLOADS` names them all; each takes the server, then a
PgBouncer in front of it if `BOUNCERS` holds the settings of one, and the seconds. `prepare` makes what they need, once.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

import needs
from pgsonar.demo.clients import WireClient
from playing import environment

# Enough slots for all workloads at once, and not so many that the storms would not be felt.
SETTINGS = {"max_connections": 300, "wal_level": "logical"}
ROLE_LIMIT = 150  # sessions of each workload's role; the greatest storm takes two thirds of it
CHUNK = 65536

_ACCOUNTS = 100
_SCHEMA = f"""
grant pg_monitor to watcher;
create table accounts (id int primary key, balance int);
insert into accounts select generate_series(1, {_ACCOUNTS}), 0;
create table loaded (line text);
create table sifted (line text);
-- Takes a row each five milliseconds and keeps none: a client can be faster for as long as it likes.
create function sift() returns trigger language plpgsql as 'begin perform pg_sleep(0.005); return null; end';
create trigger sift before insert on sifted for each row execute function sift();
grant all on all tables in schema public to public;
"""
# A policy that sleeps makes the dump of a small database as long as that of a large one, without the load.
_ARCHIVE = "".join(
    f"""
create table archive_{number} as select repeat(md5(random()::text), 30) as line from generate_series(1, 2000);
alter table archive_{number} enable row level security;
create policy slowly on archive_{number} using (pg_sleep(0.002) is not null);
grant select on archive_{number} to public;
"""
    for number in range(3)
)
_TRANSACTION = f"""
\\set id random(1, {_ACCOUNTS})
begin;
select balance from accounts where id = :id;
update accounts set balance = balance + 1 where id = :id;
commit;
"""
_PROCESS_WITH_POOL = """
import select, sys
from pgsonar.demo.clients import WireClient
pool = [WireClient(int(sys.argv[1]), "scale_out", source=sys.argv[2]) for _ in range(4)]
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 1.0)[0]:
    for client in pool:
        client.execute("select 1")
for client in pool:
    client.close()
"""


def prepare(server):
    """The roles, tables and databases that workloads need; clients may come from any loopback address."""
    with (server.data_directory / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 127.0.0.0/8 trust\n")
    with connect(server, "postgres") as admin:
        admin.execute("select pg_reload_conf()")
        for role in ("app", *WORKLOADS):
            admin.execute(f"create role {role} login connection limit {ROLE_LIMIT}")
        admin.execute("create role watcher login")
        admin.execute(_SCHEMA)
        for database in ("archive", "orders", "reports"):
            admin.execute(f"create database {database}")
        _serve_tls(server, admin)
    with connect(server, "postgres", dbname="archive") as admin:
        admin.execute(_ARCHIVE)
    for database in ("orders", "reports"):
        with connect(server, "postgres", dbname=database) as admin:
            admin.execute("create table sold (id int primary key)")


def _serve_tls(server, admin):
    """Switches TLS on; a build without it leaves clients that ask for TLS to be declined, which is healthy as well."""
    needs.programs("openssl")
    key, certificate = (server.data_directory / name for name in ("server.key", "server.crt"))
    subject = ["-subj", "/CN=db.example", "-days", "1", "-newkey", "rsa:2048", "-nodes"]
    made = ["openssl", "req", "-x509", *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    owner = server.data_directory.stat()
    for path in (key, certificate):
        path.chmod(0o600)
        os.chown(path, owner.st_uid, owner.st_gid)
    with contextlib.suppress(psycopg.errors.InvalidParameterValue):
        admin.execute("alter system set ssl = on")
        admin.execute("select pg_reload_conf()")


# --- means ---------------------------------------------------------------------------------------------------------


def connect(server, user, **more):
    where = {"host": "127.0.0.1", "port": server.port, "dbname": "postgres", "sslmode": "disable"}
    # A PgBouncer before 1.21 knows nothing of prepared statements.
    return psycopg.connect(user=user, autocommit=True, connect_timeout=20, prepare_threshold=None, **where | more)


def ticks(seconds, period):
    """0, 1, 2 ... once every `period` until the time is over."""
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        yield number
        number += 1
        time.sleep(max(0, min(period, until - time.monotonic())))


def together(*works):
    """Runs functions side by side to their ends, and raises what the first of them raises."""
    with ThreadPoolExecutor(len(works)) as threads:
        started = [threads.submit(work) for work in works]
    for work in started:
        work.result()


@contextlib.contextmanager
def program(server, *command, user, port=None, **pipes):
    """One of the programs of the server's own release; killed if it still runs at the end."""
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(port or server.port), "PGUSER": user, "PGDATABASE": "postgres"}
    with subprocess.Popen(
        [server.binaries / command[0], *command[1:]], env={**os.environ, **where, "PGSSLMODE": "disable"}, **pipes
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def succeed(process, seconds, said=None):
    """Waits for the end of a program; `said` goes to its standard input."""
    output, _ = process.communicate(said, timeout=seconds)
    if process.returncode:
        raise RuntimeError(f"{Path(process.args[0]).name}: {(output or '')[-500:]}")


@contextlib.contextmanager
def pool(count, make):
    """A list of connections that are closed in the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(make()) for _ in range(count)]


def wire(server, user, source):
    """A client from an address of its own."""
    return contextlib.closing(WireClient(server.port, user, source=source))


# --- through a PgBouncer, and beside it ----------------------------------------------------------------------------


def _bench(server, port, user, clients, seconds):
    limits = ["-R", str(15 * clients), "-T", str(math.ceil(seconds))]
    command = ["pgbench", "-n", "-f", "-", "-c", str(clients), *limits]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with program(server, *command, user=user, port=port, **pipes) as process:
        succeed(process, seconds + 30, _TRANSACTION)


def pgbench_directly(server, seconds):
    _bench(server, server.port, "pgbench_directly", 4, seconds)


def pgbench_through_a_small_pool(server, bouncer, seconds):
    """Eight clients share two sessions: somebody always waits, nobody for long."""
    _bench(server, bouncer.port, "app", 8, seconds)


def pgbench_in_transaction_mode(server, bouncer, seconds):
    _bench(server, bouncer.port, "app", 8, seconds)


def pgbench_in_session_mode(server, bouncer, seconds):
    _bench(server, bouncer.port, "app", 4, seconds)


def pauses_of_a_pooler(server, bouncer, seconds):
    """PAUSE and RESUME as before a switchover, with clients that wait for the whole of the pause."""
    longest = 0.0

    def client():
        nonlocal longest
        with connect(bouncer, "app") as connection:
            for _ in ticks(seconds, 0.1):
                asked = time.monotonic()
                connection.execute("select 1")
                longest = max(longest, time.monotonic() - asked)

    def administrator():
        with connect(bouncer, "postgres", dbname="pgbouncer") as console:
            for _ in ticks(max(seconds - 4, 1), 0):
                time.sleep(1)
                console.execute("pause")
                time.sleep(3)
                console.execute("resume")

    together(administrator, *[client] * 3)
    assert longest > 2


def cycles_of_a_pooler(server, bouncer, seconds):
    """Bursts with pauses: the pooler ends what idled for two seconds or lived for three, and begins anew."""
    bursts = defaultdict(set)

    def client():
        with connect(bouncer, "app") as connection:
            for burst in ticks(seconds, 3):
                for _ in ticks(0.5, 0.05):
                    bursts[burst].add(connection.execute("select pg_backend_pid()").fetchone())

    together(*[client] * 4)
    assert bursts[max(bursts)] - bursts[0]


def server_restarts(server, bouncer, seconds):
    """The server restarts under pools that reconnect; each member notices when it is next used, one after the other."""

    def members(place, user):
        with contextlib.ExitStack() as held:
            connections = [connect(place, user) for _ in range(6)]
            held.callback(lambda: [connection.close() for connection in connections])
            for number in ticks(seconds, 0.3):
                turn = number % len(connections)
                try:
                    connections[turn].execute("select 1")
                except psycopg.OperationalError:
                    connections[turn].close()
                    connections[turn] = _reconnect(place, user)

    def administrator():
        pause = min(seconds * 0.4, 20)
        for _ in ticks(seconds - 2 * pause, pause):
            time.sleep(pause)
            _restart(server)

    before = server.pid
    together(administrator, lambda: members(server, "server_restarts"), lambda: members(bouncer, "app"))
    assert server.pid != before


def _reconnect(place, user):
    for _ in ticks(20, 0.2):
        with contextlib.suppress(psycopg.OperationalError):
            return connect(place, user)
    raise TimeoutError("the server did not come back")


def _restart(server):
    """A fast shutdown, as a package upgrade does it, and a start."""
    os.kill(server.pid, signal.SIGINT)
    for _ in ticks(20, 0.05):
        if not (server.data_directory / "postmaster.pid").exists():
            break
    server.stop()
    server.start()


# --- sessions that stay --------------------------------------------------------------------------------------------


def fixed_pool(server, seconds):
    """As many sessions from beginning to end, each used every 2.4 s."""
    with pool(8, lambda: wire(server, "fixed_pool", "127.0.0.11")) as members:
        for number in ticks(seconds, 0.3):
            members[number % len(members)].execute("select 1")


def warm_up(server, seconds):
    """A pool that grows to its maximum and stays there, each member used every 1.5 s."""
    with contextlib.ExitStack() as held:
        members = []
        for number in ticks(seconds, 0.3):
            if len(members) < 12:
                members.append(held.enter_context(wire(server, "warm_up", "127.0.0.12")))
            for member in members[number % 5 :: 5]:
                member.execute("select 1")


def busy_transactions(server, seconds):
    """Short statements in long transactions and short ones: every look at a title says `idle in transaction`."""

    def long_transaction():
        with connect(server, "busy_transactions") as connection:
            connection.execute("begin")
            for _ in ticks(seconds, 0.01):
                connection.execute("select 1")
            connection.execute("commit")

    def short_transactions():
        with connect(server, "busy_transactions") as connection:
            for _ in ticks(seconds, 0.01):
                connection.execute("begin")
                for _ in range(3):
                    connection.execute("select 1")
                    time.sleep(0.02)
                connection.execute("commit")

    together(*[long_transaction] * 2, *[short_transactions] * 4)


def listeners(server, seconds):
    """Sessions that wait for ever, and hear something now and then."""
    with pool(2, lambda: wire(server, "listeners", "127.0.0.13")) as waiting, connect(server, "listeners") as speaker:
        for one in waiting:
            one.execute("listen news")
        for _ in ticks(seconds, 6):
            speaker.execute("notify news")
            for one in waiting:
                while one.message()[0] != b"A":  # NotificationResponse
                    pass


def person_at_psql(server, seconds):
    """Opens a transaction, thinks for a second, commits, reads, begins again."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with program(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", user="person_at_psql", **pipes) as psql:
        for number in ticks(seconds, 1.0):
            psql.stdin.write("commit;\n" if number % 2 else "begin;\nselect 1;\n")
            psql.stdin.flush()
        succeed(psql, 10, "\\q\n")


def long_select(server, seconds):
    with connect(server, "long_select") as connection:
        connection.execute("select pg_sleep(%s)", [seconds])


def lock_waits(server, seconds):
    """An update waits for a second behind a transaction that works on, and gets its turn."""
    with connect(server, "lock_waits") as first, connect(server, "lock_waits") as second:
        change = f"update accounts set balance = 0 where id = {_ACCOUNTS + 1}"
        first.execute(f"insert into accounts values ({_ACCOUNTS + 1}, 0) on conflict do nothing")
        for _ in ticks(seconds, 0.2):
            first.execute("begin")
            first.execute(change)
            waiting = threading.Thread(target=second.execute, args=[change])
            waiting.start()
            for _ in ticks(1.0, 0.1):
                first.execute("select 1")
            first.execute("commit")
            waiting.join()


def unix_clients(server, seconds):
    """Over the unix socket: a few that stay, others that come and go."""
    directory = str(server.data_directory.parent)
    with pool(3, lambda: connect(server, "unix_clients", host=directory)) as members:
        for _ in ticks(seconds, 0.5):
            for member in members:
                member.execute("select 1")
            with connect(server, "unix_clients", host=directory) as one:
                one.execute("select 1")


# --- sessions that come and go -------------------------------------------------------------------------------------


def deployments(server, seconds):
    """Again and again a pool opens all of its connections and the one before it closes all of its own."""
    with contextlib.ExitStack() as last:
        old = last.enter_context(contextlib.ExitStack())
        for _ in ticks(seconds, 1.0):
            new = contextlib.ExitStack()
            last.enter_context(new)
            for _ in range(10):
                new.enter_context(connect(server, "deployments")).execute("select 1")
            old.close()
            old = new


def connection_storms(server, seconds):
    """A hundred clients connect at once, stay for a moment, and leave."""
    for _ in ticks(seconds, 3):
        with pool(100, lambda: contextlib.closing(_begun(server, "connection_storms"))) as clients:
            for client in clients:
                while client.message()[0] != b"Z":  # ReadyForQuery
                    pass
            time.sleep(1)


def _begun(server, user):
    """A client that has sent its startup packet and not yet looked at the answer."""
    return WireClient(server.port, user, login=False)


def health_probes(server, seconds):
    """Once a second from one address: the port is opened and closed, and a statement asked for."""
    for _ in ticks(seconds, 1):
        socket.create_connection(("127.0.0.1", server.port), 10, source_address=("127.0.0.14", 0)).close()
        with wire(server, "health_probes", "127.0.0.14") as probe:
            probe.execute("select 1")


def scale_out(server, seconds):
    """Three processes after one another, each with a pool of its own, from addresses of their own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as started:
        processes = []
        for number in range(3):
            command = [sys.executable, "-c", _PROCESS_WITH_POOL, str(server.port), f"127.0.0.{21 + number}"]
            processes.append(started.enter_context(subprocess.Popen(command, env=environment(), **pipes)))
            started.callback(processes[-1].kill)
            if not select.select([processes[-1].stdout], [], [], 20)[0]:
                raise TimeoutError("a process did not get its pool")
            time.sleep(seconds / 3)
        for process in processes:
            succeed(process, 10)


def nightly_batch(server, seconds):
    """Thirty sessions open together, work for two seconds, close together."""
    for _ in ticks(seconds, 2):
        with pool(30, lambda: connect(server, "nightly_batch")) as sessions:
            for _ in ticks(2, 0.2):
                for session in sessions:
                    session.execute("select count(*) from accounts")


def tls_clients(server, seconds):
    """Clients that ask for TLS come and go; a server that has it gives it."""
    with connect(server, "tls_clients") as plain:
        is_on = plain.execute("show ssl").fetchone() == ("on",)
    for _ in ticks(seconds, 0.4):
        with connect(server, "tls_clients", sslmode="require" if is_on else "prefer") as connection:
            connection.execute("select 1")


# --- much data -----------------------------------------------------------------------------------------------------


def parallel_dump(server, seconds):
    """pg_dump -j: its leader idles in a transaction while its workers copy."""
    until = time.monotonic() + seconds
    took = 0.0
    while not took or time.monotonic() + took < until:
        begun = time.monotonic()
        _dump(server)
        took = time.monotonic() - begun
        assert took > 3


def _dump(server):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with tempfile.TemporaryDirectory(prefix="pgsonar-dump-") as folder:
        where = ["-f", f"{folder}/dump", "-d", "archive"]
        command = ["pg_dump", "-Fd", "-j", "3", "--enable-row-security", "-Z", "1", *where]
        with program(server, *command, user="parallel_dump", **pipes) as dump:
            succeed(dump, 60)


_STREAM = "select generate_series(1, 1000000000), repeat('x', 1000)"


def copy_to_a_slow_pipe(server, seconds):
    """COPY TO STDOUT into a program that reads 640 KB a second."""
    command = ["psql", "-qX", "-c", f"copy ({_STREAM}) to stdout"]
    with program(server, *command, user="copy_to_a_slow_pipe", stdout=subprocess.PIPE) as psql:
        for _ in ticks(seconds, 0.1):
            assert psql.stdout.read(CHUNK)


def slow_reader(server, seconds):
    """A client that takes 640 KB a second of a result that never ends."""
    with wire(server, "slow_reader", "127.0.0.15") as reader:
        reader.send_query(_STREAM)
        for _ in ticks(seconds, 0.1):
            assert reader.socket.recv(CHUNK)


def steady_load(server, seconds):
    """COPY FROM STDIN, 100 KB a second."""
    _load(server, "steady_load", "loaded", seconds, 0.05, 5000)


def load_faster_than_taken(server, seconds):
    """COPY FROM STDIN of a client that is faster than the server: unread input lies there always, and moves."""
    _load(server, "load_faster_than_taken", "sifted", seconds, 0.0, CHUNK)


def _load(server, user, table, seconds, period, size):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with program(server, "psql", "-qX", "-c", f"copy {table} from stdin", user=user, **pipes) as psql:
        for _ in ticks(seconds, period):
            psql.stdin.write("x" * size + "\n")
            psql.stdin.flush()
        succeed(psql, 30)


def logical_replication(server, seconds):
    """From one database to another: a walsender, and an apply worker that is a client of the server itself."""
    with (
        connect(server, "postgres", dbname="orders") as orders,
        connect(server, "postgres", dbname="reports") as reports,
        contextlib.ExitStack() as made,
    ):
        orders.execute("create publication sold_orders for table sold")
        made.callback(orders.execute, "drop publication sold_orders")
        # Within one server the subscription would wait for ever for the slot that it makes itself.
        orders.execute("select pg_create_logical_replication_slot('sold_orders', 'pgoutput')")
        reports.execute(
            "create subscription sold_orders connection "
            f"'host=127.0.0.1 port={server.port} user=postgres dbname=orders sslmode=disable' "
            "publication sold_orders with (create_slot = false, copy_data = false)"
        )
        made.callback(reports.execute, "drop subscription sold_orders")
        made.callback(orders.execute, "truncate sold")
        for number in ticks(seconds, 0.3):
            orders.execute("insert into sold values (%s)", [number])
        for _ in ticks(20, 0.1):
            if reports.execute("select count(*) from sold").fetchone()[0] > number:
                return
        raise TimeoutError("the subscription did not catch up")


_POOLED = {
    pgbench_through_a_small_pool: {"mode": "transaction", "size": 2},
    pgbench_in_transaction_mode: {"mode": "transaction", "size": 5},
    pgbench_in_session_mode: {"mode": "session", "size": 4},
    pauses_of_a_pooler: {"mode": "transaction", "size": 3},
    cycles_of_a_pooler: {"mode": "transaction", "size": 4, "server_idle_timeout": 2, "server_lifetime": 3},
    # A server that is down is tried again after fifteen seconds by default.
    server_restarts: {"mode": "transaction", "size": 3, "server_login_retry": 1},
}
_DIRECT = (
    pgbench_directly,
    fixed_pool,
    warm_up,
    busy_transactions,
    listeners,
    person_at_psql,
    long_select,
    lock_waits,
    unix_clients,
    deployments,
    connection_storms,
    health_probes,
    scale_out,
    nightly_batch,
    tls_clients,
    parallel_dump,
    copy_to_a_slow_pipe,
    slow_reader,
    steady_load,
    load_faster_than_taken,
    logical_replication,
)
WORKLOADS = {play.__name__: play for play in (*_POOLED, *_DIRECT)}
BOUNCERS = {play.__name__: settings for play, settings in _POOLED.items()}
