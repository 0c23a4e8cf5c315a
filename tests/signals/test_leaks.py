"""Leak events and spans: what they carry and how they read."""

import itertools
from dataclasses import replace

import pytest

from build import START, backend, connection, server, settled, sight, tcp, title
from pgsonar.config.schema import LeaksProcessor
from pgsonar.detectors import rules
from pgsonar.episodes.tracker import EpisodeTracker
from pgsonar.model import SECOND, ClientProcess, EpisodeEvent, Limits, Moment, Session, Slots, TcpState
from pgsonar.signals.advice import GUARDS, next_step
from pgsonar.signals.bodies import body
from pgsonar.signals.leaks import MEMBERS_LISTED, attributes, event_row, fingerprint, span_row
from pgsonar.tracking.earlier import EarlierRun

WALL = 1_700_000_000 * SECOND
AT = START + 400 * SECOND


def moment(at=AT):
    return Moment(at, WALL + at - START)


def told(backends, connections=(), at=AT, of=None):
    """The events of all detectors on one look, by kind, and the tracker."""
    ids = itertools.count(1)
    tracker = EpisodeTracker(lambda bits: next(ids), EarlierRun())
    looked = sight(backends, connections, at=at, of=of)
    slots = Slots(looked.ledger.used, looked.server.limits.ceiling)
    events = tracker.update(settled(looked), {"s1": (looked.server, slots)}, moment(at))
    return {event.episode.kind: event for event in events}, tracker


def idle_in_transaction(**changes):
    bound = connection(tcp(40000))
    return told([backend(title("idle in transaction"), bound=bound)], [bound], **changes)


def test_a_segment_is_linked_to_the_one_before():
    events, _ = idle_in_transaction()
    first = events["idle_in_transaction"].episode
    second = replace(first, segment=2, segment_unix=WALL + SECOND, previous_span=99, ended_unix=WALL + 2 * SECOND)
    row = span_row(second)

    assert (row.start_unix, row.end_unix) == (WALL + SECOND, WALL + 2 * SECOND)
    assert row.links == ((first.trace_id, 99),)
    assert row.attributes["pgsonar.leak.segment"] == 2
    assert "pgsonar.leak.segment" not in attributes(first)


def test_slots_that_run_out_without_a_leak_have_a_name_all_the_same():
    backends = [backend(title("idle", user="shop"), pid=n) for n in range(1, 23)]
    events, _ = told(backends)
    assert set(events) == {"pool_exhausted"}
    event = events["pool_exhausted"]
    finding = event.episode.findings[0]
    (shop,) = finding.holders
    processes = (
        (None, "shop@10.0.0.7: 22 slots, 22 idle."),
        (
            ClientProcess(9, 1, "python3"),
            "shop@10.0.0.7: 22 slots, 22 idle, 5 opened in the last minute, by python3 (pid 9).",
        ),
        (ClientProcess(9, 1, "haproxy"), "22 idle, 5 opened in the last minute, behind the proxy haproxy (pid 9)."),
    )
    for process, text in processes:
        opened = 5 if process else 0
        event.episode.findings = [replace(finding, holders=(replace(shop, process=process, opened=opened),))]
        assert event_row(event).body.endswith(text)
    assert attributes(event.episode)["pgsonar.holder.1"] == "shop@10.0.0.7 22 22 5 haproxy (pid 9)"


def test_the_record_names_backend_client_and_onset():
    events, _ = idle_in_transaction()
    row = event_row(events["idle_in_transaction"])

    assert row.event_name == "pgsonar.leak.opened"
    expected = {
        "pgsonar.leak.kind": "idle_in_transaction",
        "pgsonar.leak.severity": "warning",
        "pgsonar.leak.onset": WALL,
        "pgsonar.leak.onset_source": "estimated",
        "pgsonar.leak.members": 1,
        "pgsonar.leak.member_list": (f"4711 10.0.0.7 40000 {WALL}",),
        "pgsonar.leak.confidence": "certain",
        "postgresql.pid": 4711,
        "client.address": "10.0.0.7",
        "client.port": 40000,
        "network.peer.address": "10.0.0.7",
        "user.name": "app",
        "db.namespace": "shop",
        "server.address": "db-1",
        "server.port": 5432,
        "pgsonar.slot.ceiling": 27,
        "pgsonar.leak.fired_because": "threshold",
    }
    assert {key: row.attributes.get(key) for key in expected} == expected
    assert row.severity_number == 13


def test_the_first_hundred_characters_stand_alone():
    events, _ = idle_in_transaction()

    assert (
        event_row(events["idle_in_transaction"])
        .body[:100]
        .startswith("app@10.0.0.7 leaves transactions open: 1 of 27 slots of db-1:5432. Oldest idle 6m40s")
    )


def test_the_span_ends_the_episode_under_the_ids_of_its_first_event():
    events, tracker = idle_in_transaction()
    opened = event_row(events["idle_in_transaction"])
    looked = sight([], at=AT + 5 * SECOND)
    (resolved,) = tracker.update([], {"s1": (looked.server, looked.ledger)}, moment(AT + 5 * SECOND))
    span, last = span_row(resolved.episode), event_row(resolved)

    assert (span.trace_id, span.span_id) == (opened.trace_id, opened.span_id) == (last.trace_id, last.span_id)
    assert (span.start_unix, span.end_unix) == (WALL, moment().unix)
    assert span.attributes["error.type"] == "idle_in_transaction"
    assert span.attributes["pgsonar.leak.end_reason"] == "resolved"
    assert last.severity_number == 9
    assert "ended after 6m40s" in last.body
    assert "pgsonar.next.command" not in last.attributes


def test_a_waiting_orphan_warns_that_its_statement_will_execute():
    gone = connection(tcp(40000, TcpState.CLOSE_WAIT, rx=1))
    events, _ = told([backend(title("UPDATE", waiting=True), bound=gone)], [gone])

    assert event_row(events["orphaned_backend"]).body.endswith("when it gets it, its UPDATE WILL EXECUTE.")


def test_stuck_logins_say_that_the_database_cannot_show_them_and_18_that_it_can():
    stuck = [backend(title("authentication", port=n), pid=n) for n in range(1, 5)]
    events, _ = told(stuck)
    on_18, _ = told(stuck, of=server(version="18"))

    assert "pg_stat_activity cannot show them" in event_row(events["auth_stuck"]).body
    assert "pg_stat_activity shows them as starting" in event_row(on_18["auth_stuck"]).body


def test_a_full_server_says_by_whom():
    events, _ = told([backend(title("authentication", port=n), pid=n) for n in range(1, 28)])

    assert "is FULL for applications: 27 of 27 slots (27 authenticating)" in event_row(events["pool_exhausted"]).body


def test_clients_that_are_not_accepted_are_told_as_holding_no_slot():
    waiting = [connection(tcp(0, TcpState.LISTEN, rx=2)), connection(tcp(1, inode=0)), connection(tcp(2, inode=0))]
    events, _ = told([], waiting)
    row = event_row(events["accept_queue"])

    assert "db-1:5432 does not accept connections: 2 clients wait in its queue" in row.body
    assert "postgresql.pid" not in row.attributes


def test_unknown_is_left_out_and_never_none():
    events, _ = idle_in_transaction(of=server(limits=Limits(), port=None))

    assert None not in attributes(events["idle_in_transaction"].episode).values()
    assert "pgsonar.slot.ceiling" not in attributes(events["idle_in_transaction"].episode)


def test_the_member_list_is_bounded_and_the_count_is_not():
    many = [backend(title("authentication", port=n), pid=n) for n in range(1, 71)]
    episode = told(many)[0]["auth_stuck"].episode

    assert len(attributes(episode)["pgsonar.leak.member_list"]) == MEMBERS_LISTED
    assert attributes(episode)["pgsonar.leak.members"] == 70


def test_one_cause_on_two_servers_has_one_fingerprint():
    here, there = idle_in_transaction()[0], idle_in_transaction(of=server(address="db-2"))[0]

    assert fingerprint(here["idle_in_transaction"].episode) == fingerprint(there["idle_in_transaction"].episode)


@pytest.mark.parametrize(("user", "activity"), [("postgres", "SELECT"), ("app", "CREATE INDEX"), ("app", "COPY")])
def test_the_next_command_never_ends_superusers_ddl_or_copies(user, activity):
    gone = connection(tcp(40000, TcpState.CLOSE_WAIT, rx=1))
    events, _ = told([backend(title(activity, user=user), bound=gone)], [gone])
    command = attributes(events["orphaned_backend"].episode)["pgsonar.next.command"]

    assert "pg_stat_activity" in command
    assert "terminate" not in command


def test_every_kind_knows_what_would_have_ended_it():
    assert {rule.kind for rule in rules(LeaksProcessor()).all} == set(GUARDS)


def test_the_sentence_begins_with_the_application_and_else_with_the_process():
    one, other = (backend(title("idle in transaction"), pid=pid, bound=connection(tcp(pid))) for pid in (1, 2))
    for each in (one, other):
        each.session = Session(each.pid, "client backend", START, application="checkout")
        each.connection.client = ClientProcess(9, 0, "python3", unit="checkout.service")

    def sentence():
        episode = told([one, other])[0]["idle_in_transaction"].episode
        clients = {backend.pid: backend.client for backend in (one, other)}
        episode.findings = [replace(finding, client=clients[finding.pid]) for finding in episode.findings]
        return body(EpisodeEvent("opened", episode, "threshold", moment()))

    assert sentence().startswith("checkout (app@10.0.0.7) leaves transactions open: 2 of 27 slots of db-1:5432.")
    other.session = Session(2, "client backend", START, application="another")
    assert sentence().startswith("app@10.0.0.7, checkout.service (python3, pid 9), leaves transactions open: 2 of 27")
    one.connection.client = other.connection.client = ClientProcess(9, 0, "haproxy")
    assert sentence().startswith("app@10.0.0.7 leaves transactions open"), "a proxy is not who leaks"


def test_in_a_container_nothing_is_asked_of_a_server_of_the_host():
    contained = backend(title("idle in transaction"), pid=4711)
    contained.inner_pid = 12
    owned = backend(title("idle in transaction", user="postgres"), pid=4712)
    owned.inner_pid = 13
    told_of = {f.pid: f for f in settled(sight([contained, owned], at=AT)) if f.kind == "idle_in_transaction"}

    assert next_step(server(), 1, "idle_in_transaction", told_of[4711]).command == "sudo kill -TERM 4711"
    assert next_step(server(), 1, "idle_in_transaction", told_of[4712]).command == "pgsonar scan"
