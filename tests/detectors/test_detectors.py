"""Each detector on its symptom, and on the near miss that must stay silent."""

import pytest

from build import PORT, START, backend, connection, database_reading, server, sight, tcp, title
from pgsonar.config.schema import LeakKind, LeaksProcessor, ShareKind
from pgsonar.config.units import Duration
from pgsonar.detectors import Rule, rules
from pgsonar.detectors.accept_queue import AcceptQueue
from pgsonar.detectors.auth_stuck import AuthStuck
from pgsonar.detectors.backend_busy_unread_input import BackendBusyUnreadInput
from pgsonar.detectors.client_socket_leak import ClientSocketLeak
from pgsonar.detectors.connection_thrash import ConnectionThrash
from pgsonar.detectors.half_open import HalfOpen
from pgsonar.detectors.idle_in_transaction import IdleInTransaction
from pgsonar.detectors.idle_leak import IdleLeak
from pgsonar.detectors.long_query import LongQuery
from pgsonar.detectors.network_path import NetworkPath
from pgsonar.detectors.orphaned_backend import OrphanedBackend
from pgsonar.detectors.orphaned_backend_no_socket import OrphanedBackendNoSocket
from pgsonar.detectors.pool_exhausted import PoolExhausted
from pgsonar.detectors.pooler_forgotten_server import PoolerForgottenServer
from pgsonar.detectors.pooler_pinned import PoolerPinned
from pgsonar.detectors.pooler_waiting import PoolerWaiting
from pgsonar.detectors.prestartup_stuck import PrestartupStuck
from pgsonar.detectors.role_or_database_limit import RoleOrDatabaseLimit
from pgsonar.detectors.slow_reader import SlowReader
from pgsonar.detectors.unaccounted import Unaccounted
from pgsonar.model import (
    SECOND,
    BackendKind,
    ClientProcess,
    ClientSight,
    Details,
    Endpoint,
    Growth,
    Limits,
    Pool,
    PoolerClient,
    PoolerReading,
    PoolerSight,
    Severity,
    Socket,
    TcpState,
    Thrash,
    Via,
)

NOW = START + 60 * SECOND


def find(detector, *args, **kwargs):
    return list(detector.examine(sight(*args, at=NOW, **kwargs)))


LISTENER = connection(tcp(0, TcpState.LISTEN))
BY_LOGIN = {"role_or_database_limit", "unaccounted"}
BY_SOCKETS = {
    *("orphaned_backend", "orphaned_backend_no_socket", "accept_queue", "half_open", "network_path", "slow_reader"),
    *("backend_busy_unread_input", "connection_thrash", "pooler_forgotten_server"),
}
BY_BACKENDS = {
    *("orphaned_backend_no_socket", "backend_busy_unread_input", "slow_reader", "pooler_forgotten_server"),
}
BY_PROCESSES = {"prestartup_stuck", "unaccounted"}
BY_TITLES = {"idle_in_transaction", "idle_leak", "auth_stuck", "long_query"}
SEES_ALL = {"connections": [LISTENER], "backends": [backend(title())]}


@pytest.mark.parametrize(
    ("missing", "silent"),
    [
        ({}, BY_LOGIN),
        ({"connections": []}, BY_SOCKETS | BY_LOGIN),
        ({"of": server(netns=0, pid=0), "reading": database_reading()}, BY_SOCKETS | BY_PROCESSES | {"auth_stuck"}),
        (
            {"of": server(netns=0, pid=0, version="18beta1"), "reading": database_reading(version="18beta1")},
            BY_SOCKETS | BY_PROCESSES,
        ),
        (
            {"of": server(pid=0), "backends": []},
            {*BY_TITLES, *BY_PROCESSES, *BY_LOGIN, *BY_BACKENDS, "pool_exhausted"},
        ),
        ({"backends": [backend(title(None))]}, {"backend_busy_unread_input"} | BY_TITLES | BY_LOGIN),
        (
            {"backends": [backend(title()), backend(title(None)._replace(is_cut=True))]},
            {"backend_busy_unread_input"} | BY_TITLES | BY_LOGIN,
        ),
        ({"backends": [backend(title("idle in transaction")._replace(is_cut=True))]}, BY_LOGIN),
        ({"of": server(limits=Limits())}, {"pool_exhausted"} | BY_LOGIN),
        ({"of": server(port=None)}, BY_SOCKETS | BY_LOGIN),
        ({"reading": database_reading(sees_all=False)}, {"unaccounted"}),
        ({"backends": [backend(title("SELECT"))]}, {"long_query"} | BY_LOGIN),
    ],
    ids=[
        "all is seen",
        "no sockets",
        "elsewhere",
        "elsewhere, 18",
        "sidecar",
        "titles off",
        "some titles cut",
        "cut behind all that matters",
        "no limit",
        "no port",
        "half seen",
        "busy",
    ],
)
def test_a_detector_that_cannot_see_says_so(missing, silent):
    seen = sight(at=NOW, **(SEES_ALL | missing))
    reasons = {rule.kind: rule.detector.cannot_tell(seen) for rule in rules(LeaksProcessor()).servers}

    assert {kind for kind, reason in reasons.items() if reason} == silent
    assert all(": " in reason for reason in reasons.values() if reason), "each says what would change that"


class TestPrestartupStuck:
    @staticmethod
    def silent(number=3):
        kind = title(None, kind=BackendKind.PRESTARTUP, user=None, database=None, host=None, port=None)
        return [backend(kind, pid=n, started=NOW - 6 * SECOND, bound=connection(tcp(n))) for n in range(1, number + 1)]

    def test_each_waits_since_its_fork(self):
        found = find(PrestartupStuck(), self.silent())

        assert [(f.identity, f.onset, f.severity) for f in found] == [("10.0.0.7", NOW - 6 * SECOND, Severity.INFO)] * 3
        assert [f.port for f in found] == [1, 2, 3]

    def test_near_the_limit_of_children_it_is_critical(self):
        limits = Limits(30, 3, "pg_control", children=10)
        near = find(PrestartupStuck(), self.silent(9), of=server(limits=limits))
        far = find(PrestartupStuck(), self.silent(8), of=server(limits=limits))

        assert {f.severity for f in near} == {Severity.CRITICAL}
        assert {f.severity for f in far} == {Severity.INFO}

    def test_sessions_and_workers_are_none(self):
        others = [backend(title()), backend(title("authentication")), backend(title(kind=BackendKind.WORKER))]
        assert find(PrestartupStuck(), others) == []


class TestIdleInTransaction:
    def test_onset_is_the_last_movement_not_the_first_sight_of_the_title(self):
        moved = START + 20 * SECOND
        found = find(IdleInTransaction(), [backend(title("idle in transaction"), still=moved)])

        assert [(f.onset, f.onset_source, f.pid) for f in found] == [(moved, "observed", 4711)]

    def test_a_transaction_already_open_at_first_sight_has_an_estimated_onset(self):
        found = find(IdleInTransaction(), [backend(title("idle in transaction"), first_seen=START)])

        assert found[0].onset_source == "estimated"

    def test_without_context_switches_a_title_alone_is_not_believed(self):
        assert find(IdleInTransaction(), [backend(title("idle in transaction"), switches=None)]) == []

    @pytest.mark.parametrize("activity", ["idle", "SELECT", None, "authentication", "idle in transactions"])
    def test_other_activities_are_silent(self, activity):
        assert find(IdleInTransaction(), [backend(title(activity))]) == []

    def test_an_aborted_transaction_is_marked(self):
        found = find(IdleInTransaction(), [backend(title("idle in transaction (aborted)"))])

        assert found[0].evidence["pgsonar.leak.aborted"] is True

    def test_one_alone_is_a_warning_and_a_waiter_in_the_same_database_makes_it_high(self):
        alone = backend(title("idle in transaction"), still=NOW - SECOND)
        waiter = backend(title("UPDATE", waiting=True), pid=2)
        elsewhere = backend(title("UPDATE", waiting=True, database="other"), pid=3)

        assert find(IdleInTransaction(), [alone])[0].severity == Severity.WARNING
        assert find(IdleInTransaction(), [alone, elsewhere])[0].severity == Severity.WARNING
        assert find(IdleInTransaction(), [alone, waiter])[0].severity == Severity.HIGH

    def test_a_tenth_of_the_ceiling_is_high_only_once_it_has_stood(self):
        old = [backend(title("idle in transaction", user=f"u{n}"), pid=n, still=NOW - 31 * SECOND) for n in range(3)]
        young = [backend(title("idle in transaction", user=f"u{n}"), pid=n, still=NOW - 29 * SECOND) for n in range(3)]

        assert {f.severity for f in find(IdleInTransaction(), old)} == {Severity.HIGH}
        assert {f.severity for f in find(IdleInTransaction(), young)} == {Severity.WARNING}

    def test_half_of_a_pool_that_stands_is_high_though_it_is_little_of_the_ceiling(self):
        of = server(limits=Limits(500, 3, "pg_control"))
        pool = [backend(title("idle", port=n), pid=n) for n in (1, 2)]
        held = [backend(title("idle in transaction", port=n), pid=n, still=NOW - 31 * SECOND) for n in (3, 4)]

        assert find(IdleInTransaction(), pool + held, of=of)[0].severity == Severity.HIGH
        assert find(IdleInTransaction(), [*pool, *pool, *held], of=of)[0].severity == Severity.WARNING

    def test_the_leader_of_a_parallel_dump_is_information(self):
        leader = backend(title("idle in transaction"))
        worker = backend(title("COPY"), pid=2, started=START + SECOND)

        assert find(IdleInTransaction(), [leader, worker])[0].severity == Severity.INFO


class TestOrphanedBackend:
    def orphan(self, *, inode=5, rx=1, waiting=False, state=TcpState.CLOSE_WAIT):
        gone = connection(tcp(40000, state, rx=rx, inode=inode), state_since=START + 5 * SECOND)
        return [backend(title("SELECT", waiting=waiting), bound=gone)], [gone]

    def test_close_wait_with_an_owner_is_an_orphan_since_the_fin(self):
        found = find(OrphanedBackend(), *self.orphan())

        assert [(f.pid, f.port, f.onset, f.severity) for f in found] == [
            (4711, 40000, START + 5 * SECOND, Severity.HIGH)
        ]

    def test_a_cut_title_is_taken_for_a_clients_and_its_address_from_the_socket(self):
        (one,), sockets = self.orphan()
        cut = title(None, kind=BackendKind.UNKNOWN, user=None, database=None, host=None, port=None)
        one.title = cut._replace(is_cut=True)
        found = find(OrphanedBackend(), [one], sockets)
        one.title = cut

        assert [(f.pid, f.identity, f.is_protected) for f in found] == [(4711, "?@10.0.0.7", True)]
        assert find(OrphanedBackend(), [one], sockets) == []

    def test_a_client_that_gave_up_in_the_accept_queue_is_none(self):
        assert find(OrphanedBackend(), *self.orphan(inode=0)) == []

    @pytest.mark.parametrize("state", [TcpState.ESTABLISHED, TcpState.FIN_WAIT_2, TcpState.TIME_WAIT])
    def test_other_states_are_silent(self, state):
        assert find(OrphanedBackend(), *self.orphan(state=state)) == []

    def test_a_waiter_for_a_lock_is_critical(self):
        assert find(OrphanedBackend(), *self.orphan(waiting=True))[0].severity == Severity.CRITICAL

    @pytest.mark.parametrize(("rx", "word"), [(1, "died"), (6, "clean close by libpq"), (52, "TLS"), (30, "29 bytes")])
    def test_the_departure_is_told_by_what_lies_unread(self, rx, word):
        assert word in find(OrphanedBackend(), *self.orphan(rx=rx))[0].evidence["pgsonar.evidence.departure"]

    def test_without_a_known_backend_the_client_is_named_all_the_same(self):
        _, sockets = self.orphan()
        found = find(OrphanedBackend(), [], sockets)

        assert [(f.pid, f.address, f.port) for f in found] == [(None, "10.0.0.7", 40000)]

    def test_a_backend_that_has_just_ended_leaves_no_orphan_without_one(self):
        _, sockets = self.orphan()
        sockets[0].is_left = True

        assert find(OrphanedBackend(), [], sockets) == []

    def test_a_walsender_is_not_judged(self):
        gone = connection(tcp(40000, TcpState.CLOSE_WAIT, rx=1))
        sender = backend(title("streaming 0/1", kind=BackendKind.WALSENDER), bound=gone)

        assert find(OrphanedBackend(), [sender], [gone]) == []


class TestOrphanedBackendNoSocket:
    def test_a_backend_seen_alive_after_its_row_vanished(self):
        lost = START + 7 * SECOND
        found = find(OrphanedBackendNoSocket(), [backend(title("SELECT"), lost=lost)])

        assert [(f.pid, f.onset) for f in found] == [(4711, lost)]

    def test_a_backend_not_seen_since_is_ending_and_silent(self):
        lost = START + 7 * SECOND

        assert find(OrphanedBackendNoSocket(), [backend(title("SELECT"), lost=lost, seen_at=lost)]) == []

    def test_a_title_whose_row_was_never_seen_proves_nothing(self):
        assert find(OrphanedBackendNoSocket(), [backend(title("SELECT"))]) == []


class TestAuthStuck:
    def stuck(self, number, activity="authentication"):
        return [backend(title(activity, port=50000 + n), pid=n + 1) for n in range(number)]

    def test_members_are_grouped_by_client_address(self):
        assert {f.identity for f in find(AuthStuck(), self.stuck(4))} == {"10.0.0.7"}

    def test_severity_grows_with_the_share_and_is_critical_when_no_slot_is_left(self):
        assert find(AuthStuck(), self.stuck(2))[0].severity == Severity.WARNING
        assert find(AuthStuck(), self.stuck(3))[0].severity == Severity.HIGH
        assert find(AuthStuck(), self.stuck(30))[0].severity == Severity.CRITICAL

    @pytest.mark.parametrize("activity", ["idle", "SELECT", None])
    def test_sessions_that_are_in_are_silent(self, activity):
        assert find(AuthStuck(), self.stuck(3, activity)) == []

    def test_a_lock_on_a_catalog_is_named_as_the_other_explanation(self):
        waits = backend(title("startup", waiting=True))

        assert "lock" in find(AuthStuck(), [waits])[0].alternative


class TestPoolExhausted:
    def used(self, number, **changes):
        backends = [backend(title(port=n), pid=n) for n in range(1, number + 1)]
        return find(PoolExhausted(), backends, of=server(**changes))

    @pytest.mark.parametrize(
        ("number", "severity"),
        [
            (22, Severity.WARNING),
            (24, Severity.WARNING),
            (25, Severity.HIGH),
            (26, Severity.CRITICAL),
            (30, Severity.CRITICAL),
        ],
    )
    def test_severity_by_share_of_what_applications_can_have(self, number, severity):
        found = self.used(number)

        assert [(f.severity, f.opens) for f in found] == [(severity, True)]

    def test_below_the_first_share_it_only_keeps_an_open_episode_open(self):
        assert [f.opens for f in self.used(21)] == [False]
        assert self.used(20) == []

    def test_it_names_who_holds_most_whether_that_is_a_leak_or_not(self):
        many = [
            *(backend(title("idle", user="checkout"), pid=n) for n in range(1, 16)),
            *(backend(title("SELECT", user="checkout"), pid=n) for n in range(16, 19)),
            *(backend(title("authentication", user="etl", host="10.0.0.9"), pid=n) for n in range(20, 25)),
            *(backend(title("idle", user=f"u{n}"), pid=n) for n in range(30, 36)),
            backend(title(None, user=None, host=None, port=None, kind=BackendKind.WORKER), pid=99),
        ]
        (found,) = find(PoolExhausted(), many, opened={"checkout@10.0.0.7": 12})

        assert [holder.text for holder in found.holders] == [
            "checkout@10.0.0.7 18 15 12 -",
            "etl@10.0.0.9 5 0 0 -",
            "u30@10.0.0.7 1 1 0 -",
            "u31@10.0.0.7 1 1 0 -",
            "u32@10.0.0.7 1 1 0 -",
        ]
        assert found.holders[0].pids == (1, 2, 3)

    def test_without_a_ceiling_there_is_no_verdict(self):
        assert self.used(500, limits=Limits()) == []

    def test_refusals_are_critical_at_once_whatever_the_share(self):
        full = find(PoolExhausted(), [backend(title())], refused=3)
        unknown = find(PoolExhausted(), [], of=server(limits=Limits()), refused=1)

        assert [(f.severity, f.opens, f.evidence["pgsonar.refused"]) for f in full] == [(Severity.CRITICAL, True, 3)]
        assert [(f.severity, f.opens) for f in unknown] == [(Severity.CRITICAL, True)]

    def test_walsenders_and_workers_take_no_slot(self):
        others = [
            backend(title(kind=kind), pid=n) for n, kind in enumerate([BackendKind.WALSENDER, BackendKind.WORKER] * 20)
        ]

        assert find(PoolExhausted(), others) == []


class TestAcceptQueue:
    def queue(self, backlog, waiting):
        listener = connection(tcp(0, TcpState.LISTEN, rx=backlog))
        return [listener, *(connection(s, opened=START + 2 * SECOND) for s in waiting)]

    def test_those_who_wait_are_named_since_the_kernel_connected_them(self):
        waiting = [tcp(1, inode=0), tcp(2, TcpState.CLOSE_WAIT, inode=0, rx=1)]
        found = find(AcceptQueue(), [], self.queue(2, waiting))

        assert [(f.port, f.onset) for f in found] == [(1, START + 2 * SECOND), (2, START + 2 * SECOND)]
        assert {f.evidence["pgsonar.leak.phase"] for f in found} == {"backlog"}

    def test_a_queue_the_kernel_drops_from_is_an_overflow(self):
        found = find(AcceptQueue(), [], self.queue(105, [tcp(1, inode=0)]), overflowing=True)

        assert found[0].evidence["pgsonar.leak.phase"] == "overflow"

    def test_accepted_connections_and_an_empty_queue_are_silent(self):
        assert find(AcceptQueue(), [], self.queue(3, [tcp(1, inode=9)])) == []
        assert find(AcceptQueue(), [], self.queue(0, [tcp(1, inode=0)])) == []


def test_every_file_of_the_package_is_in_the_list():
    from pathlib import Path

    import pgsonar.detectors

    files = {path.stem for path in Path(pgsonar.detectors.__file__).parent.glob("*.py")} - {
        "__init__",
        "evidence",
        "holders",
        "paths",
        "seeing",
        "shares",
    }

    assert {rule.kind for rule in rules(LeaksProcessor()).all} == files


def test_a_rule_takes_its_threshold_from_the_configuration_but_never_below_the_minimum():
    quick = LeakKind(after=Duration(0.2), severity="info")

    assert Rule(OrphanedBackend(), LeakKind()).after == 2 * SECOND
    assert Rule(OrphanedBackend(), quick).after == SECOND
    assert Rule(AuthStuck(), quick).after == SECOND // 5
    assert Rule(AuthStuck(), quick).severity == Severity.INFO


def test_a_kind_switched_off_has_no_rule_and_shares_come_from_the_configuration():
    leaks = LeaksProcessor(auth_stuck=LeakKind(enabled=False), pool_exhausted=ShareKind(warning=0.5))
    by_kind = {rule.kind: rule for rule in rules(leaks).all}

    assert "auth_stuck" not in by_kind
    assert by_kind["pool_exhausted"].detector.shares.warning == 0.5


def socket_of(port=40000, *, timer=2, tx=0, rx=0, probes=0, retransmits=0, since=None, address="10.0.0.7", **marks):
    row = tcp(port, tx=tx, rx=rx, address=address)._replace(timer=timer, probes=probes, retransmits=retransmits)
    made = connection(row, state_since=since)
    for name, value in marks.items():
        setattr(made, name, value)
    return made


def session_on(bound, activity="SELECT", pid=4711, **who):
    return backend(title(activity, port=bound.socket.remote.port, **who), pid=pid, bound=bound)


AGO = NOW - 30 * SECOND


class TestHalfOpen:
    def test_a_peer_that_answers_no_more_is_named_since_it_fell_silent(self):
        bound = socket_of(timer=1, retransmits=5, tx=65, silent_since=AGO)
        (found,) = find(HalfOpen(), [session_on(bound, "idle")], [bound])

        assert (found.pid, found.onset, found.severity, found.opens) == (4711, AGO, Severity.HIGH, True)
        assert found.evidence["pgsonar.evidence.unanswered"] == "a reply is not acknowledged"

    def test_who_answers_is_silent_and_so_is_a_walsender_and_a_row_without_process(self):
        answers = socket_of(timer=1, retransmits=4)
        assert find(HalfOpen(), [session_on(answers)], [answers]) == []
        bound = socket_of(timer=2, probes=1, silent_since=AGO)
        standby = backend(title(kind=BackendKind.WALSENDER), bound=bound)
        assert find(HalfOpen(), [standby], [bound]) == []
        nobody = socket_of(silent_since=AGO)
        nobody.socket = nobody.socket._replace(inode=0)
        assert find(HalfOpen(), [], [nobody]) == []

    def test_a_network_that_falls_silent_together_is_one_path_and_no_leaks(self):
        there = [
            socket_of(n, timer=2, probes=1, silent_since=AGO + n * SECOND, address=f"10.0.0.{n}") for n in range(1, 6)
        ]
        sessions = [session_on(one, pid=one.socket.remote.port) for one in there]
        paths = find(NetworkPath(), sessions, there)

        assert {f.opens for f in find(HalfOpen(), sessions, there)} == {False}
        assert {f.identity for f in paths} == {"10.0.0.0/24"}
        assert [f.pid for f in paths] == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("case", ["few", "spread", "minority"])
    def test_a_few_peers_are_no_path(self, case):
        number = 4 if case == "few" else 5
        step = 20 * SECOND if case == "spread" else 0
        there = [socket_of(n, probes=1, silent_since=AGO + n * step) for n in range(1, number + 1)]
        there += [socket_of(n) for n in range(10, 16 if case == "minority" else 10)]
        sessions = [session_on(one, pid=one.socket.remote.port) for one in there]

        assert find(NetworkPath(), sessions, there) == []
        assert {f.opens for f in find(HalfOpen(), sessions, there)} == {True}


class TestSlowReader:
    def test_a_closed_window_counts_since_the_last_byte_was_taken(self):
        bound = socket_of(timer=4, tx=1000, unsent_since=AGO, compared_at=NOW - SECOND)
        (found,) = find(SlowReader(), [session_on(bound)], [bound])

        assert (found.onset, found.counts_until, found.severity) == (AGO, NOW - SECOND, Severity.WARNING)

    def test_a_cancelled_one_looks_idle_and_is_one_all_the_same(self):
        bound = socket_of(timer=4, tx=1000, unsent_since=AGO)
        assert find(SlowReader(), [session_on(bound, "idle")], [bound]) != []

    @pytest.mark.parametrize(("timer", "probes"), [(1, 0), (2, 0), (4, 1)])
    def test_a_busy_sender_and_a_silent_peer_are_none(self, timer, probes):
        bound = socket_of(timer=timer, tx=1000, probes=probes, unsent_since=AGO)
        assert find(SlowReader(), [session_on(bound)], [bound]) == []


class TestBackendBusyUnreadInput:
    def test_input_that_lies_unread_while_a_statement_runs(self):
        bound = socket_of(rx=11050, unread_since=AGO)
        (found,) = find(BackendBusyUnreadInput(), [session_on(bound)], [bound])
        assert (found.onset, found.severity) == (AGO, Severity.INFO)

    def test_a_session_at_rest_reads_and_is_none(self):
        bound = socket_of(rx=5, unread_since=AGO)
        assert find(BackendBusyUnreadInput(), [session_on(bound, "idle")], [bound]) == []


class TestLongQuery:
    @staticmethod
    def told(last_received):
        return Details(NOW - SECOND, 0, 0, 0, 0, 0, 0, last_received, last_received, 0, 0, 0, 0)

    def test_tcp_info_tells_since_when_the_client_waits(self):
        bound = socket_of(details=self.told(20_000))
        (found,) = find(LongQuery(), [session_on(bound)], [bound])
        assert (found.onset, found.counts_until) == (NOW - 21 * SECOND, NOW - SECOND)

    def test_short_statements_behind_the_same_title_are_as_young_as_their_last_byte(self):
        bound = socket_of(details=self.told(5))
        (found,) = find(LongQuery(), [session_on(bound)], [bound])
        assert found.counts_until - found.onset < SECOND

    def test_without_either_nothing_is_said(self):
        bound = socket_of()
        assert find(LongQuery(), [session_on(bound)], [bound]) == []

    @pytest.mark.parametrize("activity", ["COPY", "VACUUM", "CREATE INDEX", "idle", "idle in transaction"])
    def test_what_is_long_by_nature_or_at_rest_is_none(self, activity):
        bound = socket_of(details=self.told(20_000))
        assert find(LongQuery(), [session_on(bound, activity)], [bound]) == []

    def test_a_statement_that_waits_for_its_client_is_not_slow(self):
        for marks in ({"timer": 4, "unsent_since": AGO}, {"timer": 1, "silent_since": AGO}):
            bound = socket_of(details=self.told(20_000), **marks)
            assert find(LongQuery(), [session_on(bound)], [bound]) == []


class TestIdleLeak:
    @staticmethod
    def growing(number, **who):
        backends = [backend(title("idle", **who), pid=n) for n in range(number)]
        growth = Growth(NOW - 40 * SECOND, frozenset((b.pid, b.started) for b in backends), number + 2, 2, number, 0)
        return {"growth": {"app@10.0.0.7": growth}}, backends

    def test_growth_is_told_of_its_members_and_counts_from_the_third_window(self):
        growth, backends = self.growing(5)
        found = find(IdleLeak(window=10), backends, **growth)

        assert [f.pid for f in found] == [0, 1, 2, 3, 4]
        assert {(f.onset, f.counts_until) for f in found} == {(NOW - 40 * SECOND, NOW - 30 * SECOND)}
        assert found[0].evidence["pgsonar.leak.connections"] == 7

    def test_fewer_than_min_members_are_none(self):
        growth, backends = self.growing(4)
        assert find(IdleLeak(), backends, **growth) == []

    def test_what_holds_sessions_on_purpose_is_information_and_said_to_be_assumed(self):
        growth, backends = self.growing(5, user="postgres_exporter")
        found = find(IdleLeak(), backends, **growth)
        assert {f.severity for f in found} == {Severity.INFO}
        assert {f.is_protected for f in found} == {True}
        assert {f.alternative for f in found} == {
            "assumed to be held open on purpose, by its role alone: anything may have the name of a known tool"
        }
        assert found[0].evidence["pgsonar.evidence.on_purpose"] == "assumed by its role, which is that of a known tool"

    @pytest.mark.parametrize("user", ["report_exporter", "patient_monitoring", "walg_reader", "patroni_club", "cron"])
    def test_a_role_that_only_has_such_a_word_is_an_application(self, user):
        growth, backends = self.growing(5, user=user)
        found = find(IdleLeak(), backends, **growth)
        assert {(f.severity, f.is_protected) for f in found} == {(Severity.WARNING, False)}
        assert found[0].alternative.startswith("a pool that is still growing")
        assert "pgsonar.evidence.on_purpose" not in found[0].evidence


class TestRoleOrDatabaseLimit:
    @staticmethod
    def using(number, **changes):
        reading = database_reading(role_limits={"app": 10}, database_limits={}, **changes)
        return find(RoleOrDatabaseLimit(), [backend(title(), pid=n) for n in range(number)], reading=reading)

    @pytest.mark.parametrize(("used", "severity"), [(8, "warning"), (9, "high"), (10, "critical")])
    def test_it_is_judged_by_its_own_limit(self, used, severity):
        (found,) = self.using(used)
        assert (found.identity, found.severity.word, found.user) == ("role app", severity, "app")

    def test_below_it_is_silent_and_in_between_only_holds(self):
        assert self.using(7) == []
        (held,) = find(
            RoleOrDatabaseLimit(),
            [backend(title(), pid=n) for n in range(31)],
            reading=database_reading(database_limits={"shop": 40}),
        )
        assert (held.identity, held.opens) == ("database shop", False)

    def test_a_refusal_tells_where_no_login_does(self):
        (found,) = find(RoleOrDatabaseLimit(), [], refused_by={("database", "shop"): 3})
        assert (found.identity, found.severity, found.opens) == ("database shop", Severity.CRITICAL, True)


class TestConnectionThrash:
    def test_the_client_is_named_with_its_rate(self):
        (found,) = find(ConnectionThrash(), [backend(title(host="10.0.0.7"))], thrash=(Thrash("10.0.0.7", AGO, 170.0),))
        assert (found.identity, found.user, found.onset) == ("10.0.0.7", "app", AGO)


class TestUnaccounted:
    def test_each_slot_that_is_not_listed_is_a_member(self):
        hidden = backend(title("authentication"), pid=7)
        (found,) = find(
            Unaccounted(), [hidden, backend(title())], reading=database_reading(), unlisted={(7, hidden.started): AGO}
        )
        assert (found.pid, found.onset, found.counts_until) == (7, AGO, START)

    def test_without_a_login_there_is_no_second_view(self):
        assert find(Unaccounted(), [backend(title("authentication"))]) == []


class TestForgottenServer:
    def test_it_is_named_after_its_pooler(self):
        bound = socket_of(since=AGO)
        bound.socket = bound.socket._replace(state=TcpState.CLOSE_WAIT)
        one = session_on(bound)
        one.via = Via("10.4.1.7:6432", has_forgotten=True)
        (found,) = find(PoolerForgottenServer(), [one], [bound])
        assert (found.identity, found.pid, found.onset) == ("10.4.1.7:6432", 4711, AGO)
        one.via = Via("10.4.1.7:6432")
        assert find(PoolerForgottenServer(), [one], [bound]) == []


class TestPoolers:
    POOL = Pool("shop", "app", 2, 1, 2, 0, 0, 6.0, "transaction", 2)

    @staticmethod
    def client(ptr, link=None, **changes):
        known = {"state": "active", "application": None, "address": "10.0.0.9", "port": int(ptr), "local": None}
        return PoolerClient(ptr=ptr, link=link, user="app", database="shop", wait=0.0, **(known | changes))

    def seen(self, pool, *clients, waiting=None, quiet=None):
        reading = PoolerReading(
            at=NOW, endpoint=Endpoint("db", 6432), version="1.18", pools=(pool,), clients=clients, servers=()
        )
        pooler = server(id="p", what="pgbouncer", address="db", port=6432)
        return PoolerSight(pooler, reading, NOW, waiting or {}, quiet or {})

    def test_a_pool_whose_clients_wait_long_names_the_one_that_waits_longest(self):
        waits = self.client("3", state="waiting")
        seen = self.seen(self.POOL, self.client("1", "a"), waits, waiting={("shop", "app"): AGO})
        (found,) = PoolerWaiting().examine(seen)
        assert (found.identity, found.port, found.onset) == ("app@shop", 3, AGO)
        assert list(PoolerWaiting().examine(self.seen(self.POOL, waits))) == []

    def test_a_full_pool_in_session_mode_whose_holders_ask_for_nothing(self):
        pool = self.POOL._replace(mode="session", clients_waiting=0)
        clients = [self.client("1", "a"), self.client("2", "b"), self.client("3")]
        found = list(PoolerPinned().examine(self.seen(pool, *clients, quiet={"1": AGO, "2": NOW})))
        assert [(f.port, f.onset, f.severity) for f in found] == [(1, AGO, Severity.INFO), (2, NOW, Severity.INFO)]

    @pytest.mark.parametrize(
        "changes", [{"mode": "transaction"}, {"paused": True}, {"servers_active": 1}, {"size": None}]
    )
    def test_a_pool_that_shares_or_has_room_is_silent(self, changes):
        pool = self.POOL._replace(**{"mode": "session", **changes})
        clients = [self.client("1", "a"), self.client("2", "b"), self.client("3")]
        assert list(PoolerPinned().examine(self.seen(pool, *clients, quiet={"1": AGO}))) == []

    def test_a_pool_that_serves_all_is_silent(self):
        pool = self.POOL._replace(mode="session")
        assert list(PoolerPinned().examine(self.seen(pool, self.client("1", "a"), quiet={"1": AGO}))) == []


class TestClientSocketLeak:
    @staticmethod
    def seen(*connections):
        return ClientSight(server(id="to db-1:5432", what="client", pid=0), list(connections), NOW)

    @staticmethod
    def left(port, since=AGO, state=TcpState.CLOSE_WAIT, inode=7):
        row = Socket(Endpoint("10.0.0.7", port), Endpoint("10.0.0.1", PORT), state, 0, 0, 117, 0, 0, 0, inode)
        made = connection(row, state_since=since)
        made.client = ClientProcess(9, 1, "python3", unit="shop.service")
        return made

    def test_what_the_server_has_closed_and_the_application_keeps(self):
        held = self.left(1, state=TcpState.ESTABLISHED)
        (found,) = ClientSocketLeak().examine(self.seen(self.left(2), held, self.left(3, inode=0)))
        assert (found.port, found.identity, found.client.pid) == (2, "shop.service", 9)

    def test_after_a_failover_pools_have_the_time_they_need(self):
        closed = [self.left(n) for n in range(5)]
        assert list(ClientSocketLeak().examine(self.seen(*closed))) == []
        for one in closed:  # they stood at first sight, long ago, and nothing tells when they were closed
            one.opened_at = one.state_since = NOW - 61 * SECOND
        assert len(list(ClientSocketLeak().examine(self.seen(*closed)))) == 5
        old = [self.left(n, since=NOW - 36 * 60 * SECOND) for n in range(5)]
        assert len(list(ClientSocketLeak().examine(self.seen(*old)))) == 5


@pytest.mark.parametrize(("activity", "proven"), [("SELECT", 0), ("idle", 10), ("idle in transaction", 10)])
def test_a_backend_that_waits_for_its_client_is_ending_and_no_orphan_yet(activity, proven):
    gone = socket_of(since=AGO)
    gone.socket = gone.socket._replace(state=TcpState.CLOSE_WAIT)
    lost = backend(title(activity), pid=8, lost=AGO)
    (one,) = find(OrphanedBackend(), [session_on(gone, activity)], [gone])
    (other,) = find(OrphanedBackendNoSocket(), [lost], [])

    assert one.counts_until == other.counts_until == NOW - proven * SECOND


@pytest.mark.parametrize(
    ("detector", "what"),
    [
        (PrestartupStuck(), title(None, user=None, host=None, port=None, kind=BackendKind.PRESTARTUP)),
        (AuthStuck(), title("authentication")),
    ],
)
@pytest.mark.parametrize(
    ("unread", "phase"),
    [
        pytest.param(3600 * SECOND, "server_not_reading", id="for an hour"),
        pytest.param(SECOND // 2, None, id="for a moment"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_a_login_that_the_server_does_not_read_is_the_servers_delay(detector, what, unread, phase):
    socket = connection(tcp(40000, rx=36 if unread else 0))
    socket.unread_since = None if unread is None else NOW - unread
    (found,) = find(detector, [backend(what, bound=socket)], [socket])

    assert found.evidence.get("pgsonar.leak.phase") == phase
