"""One cause, one page."""

from itertools import permutations

import pytest

from build import START, server
from pgsonar.episodes.causes import TIGHT_FOR, Causes
from pgsonar.model import SECOND, Episode, EpisodeState, Finding, Member, Severity, Slots

AT = START + 1000 * SECOND


def episode(kind, members=1, severity=Severity.HIGH, *, pids=None, slots=None, of=None, onset=START, **finding):
    pids = list(range(members)) if pids is None else pids
    found = Finding(kind=kind, server="s1", identity=f"{kind}'s", onset=onset, severity=severity, **finding)
    return Episode(
        kind=kind,
        server=of or server(),
        identity=found.identity,
        trace_id=hash((kind, tuple(pids))) & (1 << 127) | 1 << 100 | len(kind),
        span_id=1,
        state=EpisodeState.OPEN,
        severity=severity,
        onset=onset,
        onset_unix=0,
        seen_at=AT,
        findings=[found],
        members=[Member(pid, None, None, onset) for pid in pids],
        slots=slots or Slots(10, 100),
    )


def settled(*episodes, at=AT, causes=None):
    """The episodes as the tracker has them: each with its cause."""
    told = (causes or Causes()).settle(episodes, at)
    for one in episodes:
        one.root, one.pages, one.causes = told[one.id]
    return episodes


def test_slots_that_run_out_point_at_the_leak_that_holds_most_of_them():
    full = episode("pool_exhausted", 1, Severity.CRITICAL, pids=[], slots=Slots(97, 100))
    big, small = episode("idle_in_transaction", 44), episode("orphaned_backend", 5)
    settled(full, small, big)

    assert (full.root, big.root, small.root) == (big.id, None, None)
    assert full.causes == (
        "44 slots: idle_in_transaction of idle_in_transaction's",
        "5 slots: orphaned_backend of orphaned_backend's",
    )
    assert (full.pages, big.pages) == (False, True)


def test_a_leak_too_small_to_have_filled_the_slots_is_no_root():
    full = episode("pool_exhausted", 1, Severity.CRITICAL, pids=[], slots=Slots(97, 100))
    settled(full, episode("idle_in_transaction", 3))

    assert full.root is None
    assert full.pages


def test_what_its_root_does_not_say_loudly_enough_it_says_itself():
    full = episode("pool_exhausted", 1, Severity.CRITICAL, pids=[], slots=Slots(97, 100))
    idle = episode("idle_leak", 60, Severity.WARNING)
    settled(full, idle)

    assert (full.root, full.pages, idle.pages) == (idle.id, True, False)


@pytest.mark.parametrize(
    ("kind", "root"),
    [
        ("pooler_forgotten_server", "orphaned_backend"),
        ("unaccounted", "auth_stuck"),
        ("half_open", "network_path"),
        ("idle_in_transaction", "half_open"),
    ],
)
def test_the_same_sessions_under_another_name_point_at_it(kind, root):
    one, cause = episode(kind, pids=[7, 8]), episode(root, pids=[8])
    settled(one, cause)
    assert one.root == cause.id
    settled(other := episode(kind, pids=[9]), cause)
    assert other.root is None


def test_the_cause_of_the_cause_is_the_root():
    path, silent, open_ = (episode(k, pids=[1]) for k in ("network_path", "half_open", "idle_in_transaction"))
    settled(silent, open_, path)
    assert (silent.root, open_.root) == (path.id, path.id)


def test_another_servers_leak_is_no_cause():
    full = episode("pool_exhausted", pids=[], slots=Slots(97, 100))
    settled(full, episode("idle_in_transaction", 50, of=server(id="s2")))
    assert full.root is None


@pytest.mark.parametrize(
    ("kind", "severity", "wakes"),
    [
        ("pool_exhausted", Severity.CRITICAL, True),
        ("pool_exhausted", Severity.HIGH, False),
        ("auth_stuck", Severity.CRITICAL, True),
        ("auth_stuck", Severity.HIGH, False),
        ("accept_queue", Severity.CRITICAL, True),
        ("idle_in_transaction", Severity.HIGH, True),
        ("idle_in_transaction", Severity.WARNING, False),
        ("network_path", Severity.HIGH, True),
        ("pooler_waiting", Severity.HIGH, True),
        ("half_open", Severity.HIGH, False),
        ("slow_reader", Severity.WARNING, False),
        ("long_query", Severity.INFO, False),
        ("orphaned_backend", Severity.HIGH, False),
    ],
)
def test_who_is_woken(kind, severity, wakes):
    (one,) = settled(episode(kind, severity=severity))
    assert one.pages is wakes


def test_orphans_wake_when_a_lock_waits_when_they_are_many_or_when_slots_are_short_for_long():
    assert settled(episode("orphaned_backend", evidence={"pgsonar.leak.waits_for_lock": True}))[0].pages
    assert not settled(episode("orphaned_backend", 4))[0].pages
    assert settled(episode("orphaned_backend", 5))[0].pages

    causes, short = Causes(), episode("orphaned_backend", slots=Slots(85, 100))
    settled(short, causes=causes)
    assert not short.pages
    settled(short, at=AT + TIGHT_FOR, causes=causes)
    assert short.pages


def test_a_shadow_wakes_nobody():
    one = episode("accept_queue")
    one.is_shadow = True
    settled(one)
    assert not one.pages


def test_the_root_of_a_long_chain_is_its_end_in_any_order():
    chain = {
        "pool_exhausted": episode("pool_exhausted", severity=Severity.CRITICAL, pids=[], slots=Slots(97, 100)),
        "idle_in_transaction": episode("idle_in_transaction", 30),
        "half_open": episode("half_open", 30),
        "network_path": episode("network_path", 30),
    }
    for order in permutations(chain.values()):
        settled(*order)
        assert {one.root for one in chain.values()} == {chain["network_path"].id, None}
        assert [one.kind for one in chain.values() if one.pages] == ["network_path"]
