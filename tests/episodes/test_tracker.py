"""The life of an episode: pending, open, escalated, resolved, lost from sight."""

import itertools
from dataclasses import replace

import pytest

from build import START, server
from pgsonar.episodes.tracker import TRANSITIONS, EpisodeTracker
from pgsonar.model import SECOND, EpisodeState, Finding, Moment, Severity, Slots
from pgsonar.tracking.earlier import EarlierRun

SLOTS = Slots(5, 27)
WALL = 1_700_000_000 * SECOND


@pytest.fixture
def tracker():
    ids = itertools.count(1)
    return EpisodeTracker(lambda bits: next(ids), EarlierRun())


def going_on(episodes, at):
    """The tracker of a run after the one that left these open."""
    earlier = EarlierRun()
    earlier.leave(episodes, at)
    later = EpisodeTracker(lambda bits: 77, earlier)
    later.restore(episodes)
    return later


def moment(seconds: float) -> Moment:
    at = round(seconds * SECOND)
    return Moment(START + at, WALL + at)


def stuck(port=1, onset=0.0, severity=Severity.HIGH, **changes):
    return Finding(
        kind="auth_stuck",
        server="s1",
        identity="10.0.0.7",
        pid=port + 1000,
        address="10.0.0.7",
        port=port,
        onset=START + round(onset * SECOND),
        after=5 * SECOND,
        severity=severity,
        **changes,
    )


def full(severity=Severity.WARNING, *, opens=True):
    return Finding(kind="pool_exhausted", server="s1", identity="", onset=None, severity=severity, opens=opens)


def look(tracker, seconds, *findings, seen=True):
    sights = {"s1": (server(), SLOTS)} if seen else {}
    return [(e.name, e.because) for e in tracker.update(findings, sights, moment(seconds))]


def test_a_finding_younger_than_its_threshold_tells_nothing(tracker):
    assert look(tracker, 4.9, stuck()) == []
    assert tracker.open == []


def test_it_opens_at_the_threshold_with_the_onset_of_the_first_symptom(tracker):
    assert look(tracker, 5.0, stuck()) == [("opened", "threshold")]

    (episode,) = tracker.open
    assert (episode.onset, episode.onset_unix, episode.state) == (START, WALL, EpisodeState.OPEN)


def test_a_symptom_that_ends_before_its_threshold_opens_nothing(tracker):
    look(tracker, 4.5, stuck())

    assert look(tracker, 6.0) == []


def test_members_of_one_identity_make_one_episode_the_oldest_first(tracker):
    assert look(tracker, 10, stuck(2, 3), stuck(1, 1)) == [("opened", "threshold")]
    assert [member.port for member in tracker.open[0].members] == [1, 2]


def test_a_member_stays_in_its_episode_when_more_is_learned_of_it_and_not_when_it_begins_anew(tracker):
    look(tracker, 5, stuck())
    learned = replace(stuck(), identity="app@10.9.9.9", address="10.9.9.9")
    assert look(tracker, 6, learned) == []
    (episode,) = tracker.open
    assert (episode.identity, episode.members[0].address) == ("10.0.0.7", "10.9.9.9")

    anew = replace(learned, onset=START + 7 * SECOND)
    assert look(tracker, 13, anew) == [("opened", "threshold"), ("resolved", "resolved")]


def test_a_worse_finding_escalates_and_a_better_one_does_not_calm_down(tracker):
    look(tracker, 5, stuck())

    assert look(tracker, 6, stuck(severity=Severity.CRITICAL)) == [("updated", "severity")]
    assert look(tracker, 7, stuck()) == []
    assert tracker.open[0].state == EpisodeState.ESCALATED
    assert tracker.open[0].severity == Severity.CRITICAL


def test_one_late_look_does_not_end_an_episode(tracker):
    look(tracker, 5, stuck())
    assert look(tracker, 5.5) == []
    assert look(tracker, 5.9, stuck()) == []
    assert look(tracker, 6.4) == []
    assert look(tracker, 7.0) == [("resolved", "resolved")]


def test_it_ends_when_the_last_member_was_seen(tracker):
    look(tracker, 5, stuck())
    episode = tracker.open[0]
    look(tracker, 9, stuck())
    look(tracker, 10.5)

    assert (episode.state, episode.end_reason) == (EpisodeState.RESOLVED, "resolved")
    assert episode.ended_unix == WALL + 9 * SECOND


def test_the_same_key_after_the_end_is_a_new_episode(tracker):
    look(tracker, 5, stuck())
    first = tracker.open[0].id
    look(tracker, 8)
    look(tracker, 20, stuck(onset=12))

    assert tracker.open[0].id != first
    assert sum(tracker.opened.values()) == 2


def test_a_server_out_of_sight_is_lost_not_resolved(tracker):
    look(tracker, 5, stuck())
    episode = tracker.open[0]
    assert look(tracker, 8, seen=False) == []
    assert look(tracker, 10.1, seen=False) == [("resolved", "lost_from_sight")]
    assert episode.state == EpisodeState.LOST


def test_a_server_that_comes_back_in_time_keeps_its_episode(tracker):
    look(tracker, 5, stuck())
    look(tracker, 8, seen=False)

    assert look(tracker, 9, stuck()) == []
    assert len(tracker.open) == 1


def test_the_end_of_the_agent_ends_what_is_open(tracker):
    look(tracker, 5, stuck())

    assert [(e.name, e.because) for e in tracker.end_all("agent_stopped", moment(6))] == [("resolved", "agent_stopped")]
    assert tracker.open == []


def test_twice_the_members_are_told_at_once_and_fewer_after_a_pause(tracker):
    look(tracker, 5, stuck(1), stuck(2))
    assert look(tracker, 5.5, stuck(1), stuck(2), stuck(3)) == []
    assert look(tracker, 6, *(stuck(n) for n in range(1, 5))) == [("updated", "members")]
    assert look(tracker, 8, *(stuck(n) for n in range(1, 6))) == []
    assert look(tracker, 11.1, *(stuck(n) for n in range(1, 6))) == [("updated", "members")]


def test_heartbeats_come_after_one_two_and_four_minutes(tracker):
    look(tracker, 5, stuck())
    told = [s for s in range(6, 600) if look(tracker, s, stuck()) == [("updated", "heartbeat")]]

    assert told == [65, 185, 425]


def test_what_has_no_onset_of_its_own_begins_when_it_is_first_heard_of(tracker):
    assert look(tracker, 3, full()) == [("opened", "threshold")]
    assert tracker.open[0].onset == moment(3).at


def test_hysteresis_keeps_an_episode_open_but_opens_none(tracker):
    assert look(tracker, 1, full(opens=False)) == []
    look(tracker, 2, full())
    assert look(tracker, 9, full(opens=False)) == []
    assert look(tracker, 11) == [("resolved", "resolved")]


def test_every_open_state_can_end_in_every_way():
    for state in (EpisodeState.OPEN, EpisodeState.ESCALATED):
        assert TRANSITIONS[state, "resolved"] == EpisodeState.RESOLVED
        assert {TRANSITIONS[state, end] for end in ("lost_from_sight", "agent_stopped")} == {EpisodeState.LOST}


def cycle(tracker, begin, number):
    """Opens and ends it so many times; the events, and the second it is then."""
    told, second = [], begin
    for _ in range(number):
        told += look(tracker, second, stuck(onset=second - 5))
        told += look(tracker, second + 2)
        second += 10
    return told, second


def test_what_comes_back_again_and_again_is_held_open_told_once_and_counted(tracker):
    told, second = cycle(tracker, 5, 3)
    assert told == [("opened", "threshold"), ("resolved", "resolved")] * 3
    told, second = cycle(tracker, second, 3)
    assert told == [("opened", "threshold")], "the third return"
    (episode,) = tracker.open
    assert episode.flaps == 2
    assert tracker.flaps == {("s1", "auth_stuck"): 2}
    assert look(tracker, second + 60) == [("resolved", "resolved")], "and it ends a minute after the last time"


def test_other_sessions_of_the_same_client_are_other_leaks(tracker):
    second = 5
    for port in range(1, 8):
        assert look(tracker, second, stuck(port, second - 5)) == [("opened", "threshold")]
        assert look(tracker, second + 2) == [("resolved", "resolved")]
        second += 5


def test_what_comes_back_late_is_no_flapping(tracker):
    second = 5
    for _ in range(6):
        assert look(tracker, second, stuck(onset=second - 5)) == [("opened", "threshold")]
        assert look(tracker, second + 2) == [("resolved", "resolved")]
        second += 70


def test_when_it_comes_to_wake_somebody_that_is_told(tracker):
    orphans = [replace(stuck(port), kind="orphaned_backend", identity="app", onset=START) for port in range(1, 6)]
    assert look(tracker, 5, *orphans[:4]) == [("opened", "threshold")]
    assert not tracker.open[0].pages
    assert look(tracker, 6, *orphans) == [("updated", "page")]
    assert look(tracker, 6.5, *orphans) == []


def test_a_cause_that_is_found_later_is_told_once(tracker):
    look(tracker, 1, full(Severity.CRITICAL))
    leaks = [stuck(port, onset=-10) for port in range(1, 11)]
    look(tracker, 2, full(Severity.CRITICAL), *leaks)
    assert look(tracker, 7, full(Severity.CRITICAL), *leaks) == [("updated", "cause")]
    exhausted, cause = tracker.open
    assert exhausted.root == cause.id
    assert look(tracker, 8, full(Severity.CRITICAL), *leaks) == []


def test_a_finding_counts_no_longer_than_it_is_proven(tracker):
    unproven = stuck(counts_until=START + 4 * SECOND)
    assert look(tracker, 60, unproven) == []
    assert look(tracker, 60, replace(unproven, counts_until=START + 5 * SECOND)) == [("opened", "threshold")]


class TestSegments:
    """A long episode is told in several spans, so that none is too long or too old for a backend."""

    @pytest.fixture
    def events(self):
        ids = itertools.count(1)
        tracker = EpisodeTracker(lambda bits: next(ids), EarlierRun(), max_duration=100 * SECOND)
        told = []
        for second in (5, 99, 100, 150, 199.5, 200, 250, 260):
            findings = [stuck()] if second < 250 else []
            told += tracker.update(findings, {"s1": (server(), SLOTS)}, moment(second))
        return told

    def test_a_segment_ends_when_it_is_long_and_the_next_begins_there(self, events):
        spans = [event.episode for event in events if event.name in ("continued", "resolved")]

        assert [(s.span_start_unix - WALL, s.ended_unix - WALL) for s in spans] == [
            (0, 100 * SECOND),
            (100 * SECOND, 200 * SECOND),
            (200 * SECOND, 200 * SECOND),  # it was seen last then
        ]
        assert [s.end_reason for s in spans] == ["max_duration", "max_duration", "resolved"]

    def test_each_is_linked_to_the_one_before_in_the_same_trace(self, events):
        spans = [event.episode for event in events if event.name in ("continued", "resolved")]

        assert {s.trace_id for s in spans} == {1}
        assert [s.span_id for s in spans] == [2, 3, 4]
        assert [s.previous_span for s in spans] == [None, 2, 3]

    def test_an_episode_that_ends_before_has_one_span(self, tracker):
        look(tracker, 5, stuck())
        look(tracker, 6 * 3600 - 1, stuck())
        assert tracker.open[0].segment == 1
        assert ("continued", "max_duration") in look(tracker, 6 * 3600, stuck())


class TestRestored:
    """Left open by an earlier run: known by what it saw begin."""

    @pytest.fixture
    def restored(self, tracker):
        look(tracker, 5, stuck())
        (episode,) = tracker.open
        return going_on([replace(episode, is_restored=True)], moment(100).at)

    def test_it_goes_on_with_the_onset_that_was_seen_and_nothing_new_opens(self, restored):
        met = stuck(onset=100, onset_source="estimated")
        assert look(restored, 101, met) == [("updated", "heartbeat")]
        (episode,) = restored.open
        assert (episode.onset, episode.trace_id) == (START, 1)
        assert look(restored, 102, met) == []

    def test_it_has_the_time_to_be_seen_again(self, restored):
        for second in range(101, 130):
            assert look(restored, second) == []
        assert look(restored, 131) == [("resolved", "resolved")]

    def test_what_only_holds_it_open_holds_it_still(self, tracker):
        look(tracker, 5, full())
        (episode,) = tracker.open
        later = going_on([replace(episode, is_restored=True)], moment(100).at)
        assert look(later, 101, full(opens=False)) == [("updated", "heartbeat")]
        assert look(later, 140, full(opens=False)) == []
        assert [one.trace_id for one in later.open] == [episode.trace_id]

    def test_a_server_that_does_not_come_back_has_taken_it_out_of_sight(self, restored):
        for second in (101, 130, 159):
            assert look(restored, second, seen=False) == []
        assert look(restored, 161, seen=False) == [("resolved", "lost_from_sight")]
