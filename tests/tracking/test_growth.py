"""Idle connections that grow are told from pools that rest, warm up, are replaced, or work by night."""

from dataclasses import replace

import pytest

from build import START, backend, title
from episode import EPISODE
from pgsonar.detectors.evidence import who
from pgsonar.model import SECOND, Finding, Member, PoolerClient, Severity, Via
from pgsonar.tracking.earlier import EarlierRun
from pgsonar.tracking.growth import IdleGrowth

MINUTE = 60 * SECOND
IDLE_AFTER, WINDOW = 35 * MINUTE, 10 * MINUTE
APP = "app@10.0.0.7"


class Pool:
    """Sessions of one user from one address, looked at once a minute."""

    def __init__(self):
        self.earlier = EarlierRun()
        self.growth = IdleGrowth(who, self.earlier, idle_after=IDLE_AFTER, window=WINDOW)
        self.sessions = {}
        self.pids = iter(range(1, 100_000))
        self.minute = 0

    @property
    def at(self):
        return START + self.minute * MINUTE

    def open(self, number=1, **what):
        for _ in range(number):
            pid = next(self.pids)
            self.sessions[pid] = backend(title(**what), pid=pid, started=self.at, since=self.at)

    def close(self, number):
        for pid in list(self.sessions)[:number]:
            del self.sessions[pid]

    def use(self):
        for session in self.sessions.values():
            session.still_since = self.at

    def watch(self, minutes, each_minute=lambda minute: None):
        """What grows after so many minutes, and whether anything ever did."""
        ever = False
        for _ in range(minutes):
            self.minute += 1
            each_minute(self.minute)
            found = self.growth.observe("s1", self.sessions.values(), self.at)
            ever = ever or bool(found)
        return found, ever


@pytest.fixture
def pool():
    return Pool()


def every(minutes, act):
    return lambda minute: act() if minute % minutes == 0 else None


def test_connections_that_are_opened_and_never_used_again_grow(pool):
    pool.open(5)
    found, _ = pool.watch(90, every(5, pool.open))
    (identity,) = found

    assert identity == APP
    growth = found[APP]
    assert growth.onset == START + 31 * MINUTE, "the window in which the first were idle for 35 minutes"
    assert (growth.closed, growth.all) == (0, len(pool.sessions))
    assert len(growth.members) == 5 + (90 - 35) // 5
    assert growth.normal == 0


def test_roles_with_blanks_that_grow_are_told_apart(pool):
    """Nobody can tell the user from the database; both together are told."""
    names = ("Prod DB Readonly Sales DB", "Prod DB Readonly Stock DB")

    def open_each():
        for name in names:
            pool.open(user=None, database=None)
            last = pool.sessions[max(pool.sessions)]
            last.title = last.title._replace(names=name)

    pool.open(5)  # of a pool at rest beside them
    found, _ = pool.watch(90, every(5, open_each))

    assert set(found) == {f"{name}@10.0.0.7" for name in names}


def test_three_windows_must_show_it_and_the_onset_is_the_first(pool):
    pool.open()
    _, early = pool.watch(60, every(5, pool.open))
    assert not early, "35 minutes until they count, and the third window that grew is not over"
    found, _ = pool.watch(1)
    assert found


def test_a_plateau_of_three_windows_ends_it(pool):
    pool.open()
    pool.watch(90, every(5, pool.open))
    found, _ = pool.watch(20)
    assert found
    found, _ = pool.watch(25)
    assert found == {}


def test_a_fixed_pool_that_rests_is_silent(pool):
    pool.open(50)
    assert pool.watch(600) == ({}, False)


def test_a_pool_that_warms_up_to_its_maximum_is_silent(pool):
    _, ever = pool.watch(12, lambda _: pool.open(2))
    assert not ever
    assert pool.watch(300) == ({}, False)


def test_a_pool_that_falls_idle_bit_by_bit_without_opening_is_silent(pool):
    pool.open(30)
    quiet = iter(list(pool.sessions))

    def fewer(minute):
        done = set(list(pool.sessions)[: minute // 4])
        for pid, session in pool.sessions.items():
            if pid not in done:
                session.still_since = pool.at

    assert next(quiet)
    assert pool.watch(200, fewer) == ({}, False)


def test_a_pool_whose_members_are_used_is_silent_however_it_grows(pool):
    def scale_out(minute):
        pool.use()
        if minute % 5 == 0:
            pool.open(2)

    assert pool.watch(300, scale_out) == ({}, False)


def test_members_that_are_replaced_as_they_age_are_silent(pool):
    pool.open(20)

    def replaced():
        pool.close(2)
        pool.open(2)

    assert pool.watch(600, every(5, replaced)) == ({}, False)


def test_a_nightly_batch_that_opens_works_and_closes_is_silent(pool):
    def batch(minute):
        if minute % 240 == 1:
            pool.open(40)
        if minute % 240 == 60:
            pool.close(40)

    assert pool.watch(960, batch) == ({}, False)


def test_what_is_normally_idle_for_hours_is_judged_by_its_own_lifetimes(pool):
    for _ in range(30):  # of which each lives eight hours
        pool.open()
        pool.minute += 480
        pool.growth.observe("s1", pool.sessions.values(), pool.at)
        pool.close(1)
        pool.growth.observe("s1", pool.sessions.values(), pool.at)
    found, ever = pool.watch(240, every(5, pool.open))

    assert not ever, "none is idle for eight hours yet"
    assert found == {}


def test_a_poolers_own_connections_are_never_judged(pool):
    def grow():
        pool.open()
        for session in pool.sessions.values():
            session.via = Via(
                "10.4.1.7:6432", PoolerClient("p", None, "app", "shop", "idle", None, None, None, None, 0)
            )

    assert pool.watch(200, every(5, grow)) == ({}, False)


def test_each_address_is_judged_by_itself(pool):
    hosts = iter(range(1, 1000))

    def another_host():
        pool.open(1, host=f"10.0.1.{next(hosts)}")

    assert pool.watch(200, every(5, another_host)) == ({}, False)


def test_what_was_opened_within_the_minute_counts_though_it_has_closed(pool):
    pool.open(3)  # stand there before anybody looks
    pool.minute = 5
    pool.watch(1)
    assert pool.growth.opened_lately("s1") == {}

    def come_and_go(minute):
        pool.open(4)
        pool.sessions.popitem()

    pool.watch(2, come_and_go)
    assert pool.growth.opened_lately("s1") == {APP: 3}
    pool.watch(1)
    assert pool.growth.opened_lately("s1") == {}


def test_growth_that_an_earlier_run_saw_goes_on(pool):
    pool.open(8)
    pool.minute = 100
    told = Finding(
        kind="idle_leak",
        server="s1",
        identity="hidden",  # as it was told, which need not be who it is
        onset=START,
        severity=Severity.WARNING,
        evidence={"pgsonar.leak.normal": 3, "pgsonar.leak.opened": 5, "pgsonar.leak.closed": 1},
    )
    members = [Member(pid, None, None, START) for pid in list(pool.sessions)[:2]]
    onset = START + 40 * MINUTE
    pool.earlier.leave([replace(EPISODE, kind="idle_leak", onset=onset, findings=[told], members=members)], pool.at)
    found, _ = pool.watch(5)

    growth = found[APP]
    assert (growth.onset, growth.normal, growth.opened, growth.closed) == (START + 40 * MINUTE, 3, 5, 1)
    assert pool.watch(40)[0] == {}, "three windows without growth end it"


def test_the_order_in_which_kinds_grow_is_the_order_in_which_they_were_met(pool):
    for host in ("10.0.0.9", "10.0.0.1", "10.0.0.5"):
        pool.open(1, host=host)
    grow = every(5, lambda: [pool.open(1, host=host) for host in ("10.0.0.5", "10.0.0.1", "10.0.0.9")])
    found, _ = pool.watch(90, grow)
    assert list(found) == ["app@10.0.0.9", "app@10.0.0.1", "app@10.0.0.5"]
