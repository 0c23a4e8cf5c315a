"""Detectors made a little worse: each would be fooled by the near miss of its scenario, so the near miss can fail."""

import pytest

from pgsonar.config.schema import LeakKind
from pgsonar.config.units import Duration
from pgsonar.detectors import idle_in_transaction, long_query
from pgsonar.tracking import churn, connections, growth, poolers, stillness
from pgsonar.tracking.connections import ConnectionTable
from scenarios import events, leaks


def title_alone(monkeypatch):
    """Equal titles in successive samples are taken for rest, whatever a login says."""
    monkeypatch.setattr(stillness, "note_switches", lambda *what: None)
    still = {"onset_source": "observed"}
    monkeypatch.setattr(idle_in_transaction, "_onset", lambda b, told_at: still | {"onset": b.still_since})


def age_alone(monkeypatch):
    """Idle connections are a leak, whether they grow or not."""
    monkeypatch.setattr(growth._Kind, "is_growing", True)


def bytes_are_not_looked_at(monkeypatch):
    """A closed window counts since it closed, and input since it came, whatever was taken meanwhile."""
    renew = ConnectionTable._renew

    def since_the_first(self, connection, socket, at):
        unsent, unread = connection.unsent_since, connection.unread_since
        renew(self, connection, socket, at)
        connection.unsent_since = unsent or connection.unsent_since
        connection.unread_since = unread or connection.unread_since
        connection.compared_at = at

    monkeypatch.setattr(ConnectionTable, "note", lambda *what: None)
    monkeypatch.setattr(ConnectionTable, "_renew", since_the_first)
    monkeypatch.setattr("pgsonar.detectors.slow_reader._is_stuck", lambda connection: True)


def a_busy_title_is_one_statement(monkeypatch):
    monkeypatch.setattr(long_query, "_begun", lambda backend, sight: (backend.activity_since, sight.at))


def a_timer_is_a_symptom(monkeypatch):
    """Every session of PostgreSQL has its keepalive armed."""
    note = connections._note_waiting

    def armed(connection, socket, at):
        note(connection, socket, at)
        connection.silent_since = connection.silent_since or (at if socket.timer == 2 else None)

    monkeypatch.setattr(connections, "_note_waiting", armed)


def all_waiting_is_long(monkeypatch):
    monkeypatch.setattr(poolers, "LONG_WAIT", 0.0)


def some_connections_are_many(monkeypatch):
    monkeypatch.setattr(churn, "RATE", 1)


@pytest.mark.parametrize(
    ("kind", "mutation"),
    [
        ("idle_in_transaction", title_alone),
        ("idle_leak", age_alone),
        ("slow_reader", bytes_are_not_looked_at),
        ("backend_busy_unread_input", bytes_are_not_looked_at),
        ("long_query", a_busy_title_is_one_statement),
        ("network_path", a_timer_is_a_symptom),
        ("pooler_waiting", all_waiting_is_long),
        ("connection_thrash", some_connections_are_many),
    ],
)
def test_a_worse_detector_falls_for_the_near_miss(kind, mutation, monkeypatch):
    mutation(monkeypatch)
    assert kind in {row.attributes["pgsonar.leak.kind"] for row in events(f"{kind}.near.rec")}


@pytest.mark.parametrize("kind", ["auth_stuck", "prestartup_stuck", "accept_queue"])
def test_a_hasty_threshold_falls_for_the_near_miss(kind):
    hasty = leaks(**{kind: LeakKind(after=Duration(0.1))})
    assert kind in {row.attributes["pgsonar.leak.kind"] for row in events(f"{kind}.near.rec", hasty)}
