"""Each detector on its symptom, and on the near miss that must stay silent."""

import pytest

from build import START, backend, connection, database_reading, server, sight, tcp, title
from pgsonar.config.schema import LeakKind, LeaksProcessor, ShareKind
from pgsonar.config.units import Duration
from pgsonar.detectors import Rule, rules
from pgsonar.detectors.accept_queue import AcceptQueue
from pgsonar.detectors.auth_stuck import AuthStuck
from pgsonar.detectors.idle_in_transaction import IdleInTransaction
from pgsonar.detectors.orphaned_backend import OrphanedBackend
from pgsonar.detectors.orphaned_backend_no_socket import OrphanedBackendNoSocket
from pgsonar.detectors.pool_exhausted import PoolExhausted
from pgsonar.detectors.prestartup_stuck import PrestartupStuck
from pgsonar.model import SECOND, BackendKind, Limits, Severity, TcpState

NOW = START + 60 * SECOND


def find(detector, *args, **kwargs):
    return list(detector.examine(sight(*args, at=NOW, **kwargs)))


LISTENER = connection(tcp(0, TcpState.LISTEN))
BY_LOGIN = {"role_or_database_limit", "unaccounted"}
BY_SOCKETS = {
    *("orphaned_backend", "orphaned_backend_no_socket", "accept_queue", "half_open", "network_path", "slow_reader"),
    *("backend_busy_unread_input", "connection_thrash", "pooler_forgotten_server"),
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
            {*BY_TITLES, *BY_PROCESSES, *BY_LOGIN, "orphaned_backend_no_socket", "pool_exhausted"},
        ),
        ({"backends": [backend(title(None))]}, BY_TITLES | BY_LOGIN),
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
        "paths",
        "seeing",
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
    assert by_kind["pool_exhausted"].detector.warning == 0.5
