"""What one look says: leaks older than their `after`, and nothing that it cannot date."""

from build import START, backend, connection, settled, sight, tcp, title
from pgsonar.config.schema import LeakKind, LeaksProcessor, ShareKind
from pgsonar.config.units import Duration
from pgsonar.detectors import rules
from pgsonar.episodes.verdicts import untold, verdicts
from pgsonar.model import SECOND, Severity, TcpState

NOW = START + 1000 * SECOND
RULES = rules(LeaksProcessor())


def found(*backends, connections=()):
    seen = sight(backends, connections, at=NOW)
    return verdicts(settled(seen), NOW)


def in_transaction(pid, seconds, user="app"):
    return backend(title("idle in transaction", user=user), pid=pid, since=NOW - seconds * SECOND)


def test_a_leak_is_what_the_daemon_would_open_an_episode_for():
    assert found(in_transaction(1, 299)) == []
    (one,) = found(in_transaction(1, 300), in_transaction(2, 301))

    assert (one.kind, one.identity, len(one.findings)) == ("idle_in_transaction", "app@10.0.0.7", 2)
    assert one.onset == NOW - 301 * SECOND


def test_the_most_members_come_first_and_the_worst_severity_is_the_verdicts():
    gone = connection(tcp(1, TcpState.CLOSE_WAIT), opened=NOW - 60 * SECOND, state_since=NOW - 50 * SECOND)
    two = found(
        *(in_transaction(n, 400) for n in range(1, 4)),
        backend(title("UPDATE", user="other", waiting=True), pid=9, bound=gone),
        connections=[gone],
    )

    assert [(v.kind, len(v.findings)) for v in two] == [("idle_in_transaction", 3), ("orphaned_backend", 1)]
    assert [v.severity for v in two] == [Severity.HIGH, Severity.CRITICAL]


def test_nothing_that_only_keeps_an_episode_open_is_a_verdict():
    assert found(*(backend(title(), pid=n) for n in range(21))) == []  # 77 % of 27
    assert [v.kind for v in found(*(backend(title(), pid=n) for n in range(22)))] == ["pool_exhausted"]


def test_the_configuration_says_how_severe_it_is_and_how_long_it_must_stand():
    chosen = LeaksProcessor(
        idle_in_transaction=LeakKind(severity="critical"), pool_exhausted=ShareKind(after=Duration(5))
    )
    seen = sight([*(in_transaction(n, 400) for n in range(26))], at=NOW)
    told = verdicts(settled(seen, chosen), NOW)

    assert [(v.kind, v.severity) for v in told] == [("idle_in_transaction", Severity.CRITICAL)]


def test_what_cannot_be_told_is_by_kind():
    told = untold(sight([], [], at=NOW), RULES)

    assert {"orphaned_backend", "accept_queue", "half_open"} <= told.keys()
    assert "idle_in_transaction" not in told
