"""What a login adds, on every major: sessions, locks, limits, the gap in the ledger; and what it survives."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

from majors import MAJORS
from pgsonar.config.schema import PostgresqlReceiver, TlsClient
from pgsonar.demo.clients import WireClient
from pgsonar.errors import LoginError
from pgsonar.model import Endpoint
from pgsonar.sources.activity import ActivityReader
from pgsonar.sources.login import Login
from pgsonar.sources.poller import Poller
from playing import STUCK_USER, Agent, ask, postgres
from ports import free_port

pytestmark = pytest.mark.live
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module", params=MAJORS)
def major(request):
    return request.param


@pytest.fixture(scope="module")
def server(major):
    with postgres(major) as running:
        with administrator(running) as admin:
            admin.execute("set password_encryption = 'scram-sha-256'")  # the default since 14
            admin.execute(f"create role {STUCK_USER} login password 'never sent'")
            admin.execute("create role watcher login connection limit 7; grant pg_monitor to watcher")
            admin.execute("create role stranger login")
            admin.execute("create table t (v int); insert into t values (1); grant all on t to public")
        yield running


@contextlib.contextmanager
def administrator(server):
    with contextlib.closing(WireClient(server.port, "postgres")) as client:
        yield client


@contextlib.contextmanager
def stuck(server, count):
    """Clients that were asked for a password and never send it."""
    clients = [WireClient(server.port, STUCK_USER, login=False) for _ in range(count)]
    for client in clients:
        assert client.message()[0] == b"R"
    yield clients
    for client in clients:
        client.socket.close()


@contextlib.contextmanager
def reader(server, user="watcher", *, query_text="none", **settings):
    login = Login(
        "postgresql",
        PostgresqlReceiver(endpoint=f"127.0.0.1:{server.port}", username=user, **settings),
        database="postgres",
    )
    try:
        yield ActivityReader(login, query_text)
    finally:
        login.close()


def scan(server, tmp_path, *more):
    targets = f"sockets: {{targets: [{{port: {server.port}}}]}}"
    login = f"postgresql: {{endpoint: '127.0.0.1:{server.port}', username: watcher}}"
    code, printed = ask(tmp_path, "scan", f"{{{targets}, {login}}}", *more)
    assert code == 0
    return printed


def test_sessions_are_read_with_both_clocks_and_with_who_blocks_whom(server, major):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(administrator(server)) for _ in range(3)]
        idle, holder, waiter = clients
        began = time.monotonic()
        idle.execute("select 1")
        holder.execute("begin; lock table t")
        waiter.send_query("select * from t")
        ask = stack.enter_context(reader(server))
        time.sleep(1.0)
        reading = ask.read()
        most = (time.monotonic() - began + 0.5) * 1e9
        sessions = reading.seen
        port = idle.port

    assert (int(reading.version.split(".")[0]), reading.role, reading.port) == (major, "primary", server.port)
    assert (reading.limits.max_connections, reading.limits.reserved, reading.limits.source) == (30, 3, "login")
    assert reading.endpoint == Endpoint("127.0.0.1", server.port)
    assert reading.role_limits == {"watcher": 7}
    assert reading.settings["authentication_timeout"] == "60s"
    assert (major >= 14) == ("postgres" in reading.counts)
    assert reading.sees_all
    assert reading.missing == ()

    one = sessions[idle.backend_pid]
    assert (one.user, one.database, one.client_port, one.state) == ("postgres", "postgres", port, "idle")
    assert 0.9e9 < reading.at - one.state_since < most
    assert one.transaction_since is None
    assert one.locks is None
    two = sessions[holder.backend_pid]
    assert two.state == "idle in transaction"
    assert two.locks == 1
    assert 0.9e9 < reading.at - two.transaction_since < most
    assert sessions[waiter.backend_pid].blocked_by == (holder.backend_pid,)
    assert sessions[waiter.backend_pid].wait_event_type == "Lock"
    assert sessions[reading.own_pid].application == "pgsonar"


def test_a_traceparent_is_taken_out_and_texts_lose_their_literals_and_comments(server):
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(administrator(server))
        client.execute(f"select 'it''s', 42, E'a\\'b', $tag$secret$tag$ as x1 /*traceparent='{TRACE}',route='secret'*/")
        traced = stack.enter_context(reader(server, query_text="traceparent")).read()
        text = stack.enter_context(reader(server, query_text="normalized")).read()
        nothing = stack.enter_context(reader(server)).read()

    assert traced.seen[client.backend_pid].query_text == TRACE
    assert text.seen[client.backend_pid].query_text.split() == ["select", "?,", "?,", "E?,", "?", "as", "x1"]
    assert nothing.seen[client.backend_pid].query_text is None


def test_the_ledger_names_the_slots_the_database_does_not_list(server, tmp_path):
    with stuck(server, 6), administrator(server):
        time.sleep(0.2)
        text = scan(server, tmp_path)
        (ledger,) = json.loads(scan(server, tmp_path, "--format", "json"))["ledgers"]

    assert (ledger["used"], ledger["database_sees"], ledger["gap"]) == (8, 2, 6)
    assert ledger["holders"]["authenticating"] == 6
    assert ledger["cause"] == "6 clients never sent their password"
    assert "pg_stat_activity would say 2: 6 clients never sent their password" in " ".join(text.split())
    assert "login" in text


def test_a_leak_is_linked_to_the_trace_that_left_it(server, tmp_path):
    login = f", postgresql: {{endpoint: '127.0.0.1:{server.port}', username: watcher, collection_interval: 1s, "
    agent = Agent(tmp_path, f"[{{name: db, port: {server.port}}}]", receivers=f"{login}query_text: traceparent}}")
    try:
        with administrator(server) as client:
            client.execute("begin")
            client.execute(f"insert into t values (2) /*traceparent='{TRACE}'*/")
            told = agent.wait_event("idle_in_transaction", "opened", lambda told: True, 8)["attributes"]
        assert told["pgsonar.traceparent"] == TRACE
        assert told["pgsonar.evidence.locks"] >= 1
        assert told["pgsonar.evidence.transaction_seconds"] > 1
        (span,) = agent.wait_for(agent.spans, 6, "no span")
        _, trace, parent, _ = TRACE.split("-")
        assert [(link["traceId"], link["spanId"]) for link in span["links"]] == [(trace, parent)]
    finally:
        agent.stop()


def test_without_a_gap_there_is_no_cause(server, tmp_path):
    with administrator(server):
        (ledger,) = json.loads(scan(server, tmp_path, "--format", "json"))["ledgers"]

    assert (ledger["used"], ledger["database_sees"], ledger["gap"], ledger["cause"]) == (2, 2, 0, None)


def test_a_role_without_pg_monitor_says_what_it_misses_and_claims_no_gap(server):
    with administrator(server), reader(server, "stranger") as ask:
        reading = ask.read()

    assert not reading.sees_all
    assert any("pg_monitor" in sentence for sentence in reading.missing)


def test_a_locked_catalog_costs_names_and_nothing_else(server):
    with contextlib.ExitStack() as stack:
        ask = stack.enter_context(reader(server))
        before = ask.read()
        ask._next = 0.0
        locker = stack.enter_context(administrator(server))
        locker.execute("begin; lock pg_authid in access exclusive mode")
        during = ask.read()
        locker.execute("rollback")
        ask._next = 0.0
        after = ask.read()

    assert before.missing == after.missing == ()
    assert any("locked" in sentence for sentence in during.missing)
    assert during.seen[locker.backend_pid].user == "postgres"
    assert during.own_pid == before.own_pid, "the connection was kept"


def test_a_full_server_is_told_and_found_again_when_there_is_room(server):
    with contextlib.ExitStack() as stack:
        ask = stack.enter_context(reader(server))
        held = []
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                held.append(WireClient(server.port, "stranger"))
        with pytest.raises(LoginError) as refused:
            ask.read()
        for client in held:
            client.close()
        wait_for(lambda: succeeds(ask.read), 5)

    assert refused.value.state == "53300"
    assert "slot" in refused.value.hint


def test_it_comes_back_after_a_restart_with_one_connection(server):
    with reader(server) as ask:
        first = ask.read()
        server.stop()
        with pytest.raises(LoginError):
            ask.read()
        server.start()
        second = wait_for(lambda: succeeds(ask.read), 5)
        third = ask.read()

    assert second.own_pid != first.own_pid
    assert second.started > first.started
    assert third.own_pid == second.own_pid
    assert sum(session.application == "pgsonar" for session in third.sessions) == 1


def test_a_server_that_hangs_delays_nobody_and_is_asked_once(server):
    with reader(server) as ask:
        poller = Poller("receivers.postgresql", ask.read, lambda: None, 0.2)
        poller.start()
        wait_for(lambda: poller.answers, 5)
        own = poller.take().own_pid
        os.kill(own, signal.SIGSTOP)
        try:
            time.sleep(0.5)
            answers = poller.answers
            time.sleep(1.0)
            assert poller.answers == answers
            begun = time.monotonic()
            poller.stop(0.1)
            assert time.monotonic() - begun < 2, "the statement would be given up after three seconds"
        finally:
            os.kill(own, signal.SIGCONT)


def test_a_password_is_asked_for_anew_at_each_connection_and_stands_in_no_error(server, tmp_path):
    with administrator(server) as admin:
        admin.execute(f"grant pg_monitor to {STUCK_USER}")
    calls = tmp_path / "calls"
    program = tmp_path / "token"
    program.write_text(
        f"#!/bin/sh\necho x >> {calls}\n"
        f"if [ $(wc -l < {calls}) -gt 1 ]; then echo 'never sent'; else echo hunter2; fi\n"
    )
    program.chmod(0o755)
    with reader(server, STUCK_USER, password_command=str(program)) as ask:
        with pytest.raises(LoginError) as refused:
            ask.read()
        reading = ask.read()

    assert refused.value.state == "28000"
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"
    assert reading.sees_all
    assert calls.read_text().count("x") == 2


def test_tls_is_verified_when_asked_for(tmp_path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ["-subj", "/CN=db.example", "-addext", "subjectAltName=DNS:db.example"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    with postgres(15) as secure:
        for name in (key, certificate):
            place = secure.data_directory / name.name
            place.write_bytes(name.read_bytes())
            place.chmod(0o600)
            os.chown(place, secure.data_directory.stat().st_uid, secure.data_directory.stat().st_gid)
        secure.stop()
        secure.start("-c", "ssl=on", "-c", "ssl_key_file=key", "-c", "ssl_cert_file=certificate")
        good = TlsClient(ca_file=str(certificate), server_name_override="db.example")
        wrong = TlsClient(ca_file=str(certificate), server_name_override="other.example")
        with reader(secure, "postgres", tls=good) as ask:
            assert ask.read().sees_all
        with reader(secure, "postgres", tls=wrong) as ask, pytest.raises(LoginError, match="certificate"):
            ask.read()


def test_nobody_listening_is_an_error_with_a_hint():
    login = Login("postgresql/a", PostgresqlReceiver(endpoint=f"127.0.0.1:{free_port()}"), database="postgres")
    with pytest.raises(LoginError, match="refused") as error:
        ActivityReader(login).read()
    assert "receivers.postgresql/a" in error.value.hint


def wait_for(look, seconds):
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def succeeds(read):
    with contextlib.suppress(LoginError):
        return read()
