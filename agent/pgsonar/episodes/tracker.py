"""Findings become episodes: things that begin, are told, grow worse, and end.

The rule: everything that moves an episode from one state to another stands in TRANSITIONS and in EpisodeTracker. An
episode is keyed by (server, kind, identity); it opens when a member's age reaches its rule's `after`, and always ends:
resolved, lost from sight, or because the agent stops.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from pgsonar.episodes.causes import Causes
from pgsonar.model import (
    SECOND,
    Episode,
    EpisodeEvent,
    EpisodeState,
    Finding,
    Member,
    Moment,
    Server,
    Severity,
    Slots,
)
from pgsonar.signals.leak_metrics import LeakReading
from pgsonar.tracking.earlier import EarlierRun, EpisodeKey, key_of

HOLD = SECOND  # an episode resolves when no member has stood for this long: one late look ends nothing
# What has come back FLAPS times within FLAP_WITHIN, each time within BACK_WITHIN of its end and with the same members,
# is held open for FLAP_HOLD: it will come back, and is told once. Another session that leaks is another leak.
FLAPS = 3
BACK_WITHIN = 60 * SECOND
FLAP_WITHIN = 600 * SECOND
FLAP_HOLD = 60 * SECOND
LOST_AFTER = 5 * SECOND  # a server unseen for this long has taken its episodes out of sight
REMEMBERED = 1000  # ends
UPDATE_PAUSE = 5 * SECOND  # between two events that only say that members were added
HEARTBEATS = tuple(60 * SECOND * 2**n for n in range(6))  # 1, 2, 4 ... 32 min after the last event, then hourly
HOUR = 3600 * SECOND

# (state, what happened) -> state. Anything not listed cannot happen.
TRANSITIONS: dict[tuple[EpisodeState, str], EpisodeState] = {
    (EpisodeState.PENDING, "threshold"): EpisodeState.OPEN,
    (EpisodeState.OPEN, "severity"): EpisodeState.ESCALATED,
    (EpisodeState.ESCALATED, "severity"): EpisodeState.ESCALATED,
    (EpisodeState.OPEN, "resolved"): EpisodeState.RESOLVED,
    (EpisodeState.ESCALATED, "resolved"): EpisodeState.RESOLVED,
    (EpisodeState.OPEN, "lost_from_sight"): EpisodeState.LOST,
    (EpisodeState.ESCALATED, "lost_from_sight"): EpisodeState.LOST,
    (EpisodeState.OPEN, "agent_stopped"): EpisodeState.LOST,
    (EpisodeState.ESCALATED, "agent_stopped"): EpisodeState.LOST,
}

_CHANGE_NOTHING = ("members", "heartbeat", "page", "cause")

MemberKey = tuple[str, str, str, int | None, str | None, int | None]


class _End(NamedTuple):
    """The last end of an episode that was resolved."""

    at: int
    pids: frozenset[int | None]  # None stands for what is about no session


class EpisodeTracker:
    """Keeps the episodes. `new_id(bits)` draws a random non-zero identifier, `max_duration` (ns) limits a span."""

    def __init__(self, new_id: Callable[[int], int], earlier: EarlierRun, max_duration: int = 6 * HOUR) -> None:
        self._new_id = new_id
        self._earlier = earlier
        self._max_duration = max_duration
        self._episodes: dict[EpisodeKey, Episode] = {}
        self._first_heard: dict[MemberKey, int] = {}  # of findings that do not know their own onset
        self._server_seen: dict[str, int] = {}
        self._ended: dict[EpisodeKey, _End] = {}  # the last time
        self._returned: dict[EpisodeKey, deque[int]] = {}  # when it came back, the last times
        self._causes = Causes()
        self.opened: Counter[tuple[str, str, Severity]] = Counter()  # (server, kind, severity at opening), ever
        self.subjects: dict[str, Server] = {}  # what has, or had, an episode
        self.told = 0  # events, ever
        self.flaps: Counter[tuple[str, str]] = Counter()  # (server, kind): ends that were no ends, ever

    @property
    def open(self) -> list[Episode]:
        return list(self._episodes.values())

    def restore(self, episodes: Iterable[Episode]) -> None:
        """Goes on with what an earlier run left open."""
        self._episodes |= {key_of(episode): episode for episode in episodes}

    def configure(self, max_duration: int) -> None:
        """Another limit of a span, ns."""
        self._max_duration = max_duration

    def hold(self, at: int) -> None:
        """What is open has the time to be met again: all that was known of connections is forgotten."""
        for episode in self._episodes.values():
            episode.is_restored = True
        self._earlier.wait_for(self._episodes.values(), at)

    def update(
        self, findings: Iterable[Finding], sights: Mapping[str, tuple[Server, Slots | None]], now: Moment
    ) -> list[EpisodeEvent]:
        """Takes one look at all servers in `sights` in; returns what is to be told, in order.

        Findings are settled: each has its `after`.
        """
        self._earlier.expire(now.at, sights.keys())
        standing = self._standing(findings, now.at)
        events: list[EpisodeEvent] = []
        self._server_seen.update(dict.fromkeys(sights, now.at))
        if len(self._server_seen) > REMEMBERED:  # there is no end to databases elsewhere
            self._server_seen = {key: at for key, at in self._server_seen.items() if now.at - at < HOUR}
        for key, members in standing.items():
            server, slots = sights[key[0]]
            episode = self._episodes.get(key)
            self._earlier.meet(key)
            if episode is not None:
                self._note_return(key, episode, now)
                self._look(episode, members, server, slots, now)
            elif any(finding.opens for finding, _ in members):
                self._begin(key, members, server, slots, now)
        self._settle(now.at)
        begun = {key: episode for key, episode in self._episodes.items() if episode.state is EpisodeState.PENDING}
        for episode in begun.values():
            self.opened[episode.server.id, episode.kind, episode.severity] += 1
            events.append(self._tell("opened", episode, "threshold", now))
        for key, episode in list(self._episodes.items()):
            if key not in begun:
                events += self._continue(episode, now) if key in standing else self._miss(key, episode, now)
        for episode in self._episodes.values():
            events += self._cut(episode, now)
        return events

    def end_all(self, reason: str, now: Moment) -> list[EpisodeEvent]:
        """Ends what is open because the agent stops."""
        return [self._end(key, episode, reason, now) for key, episode in list(self._episodes.items())]

    def _standing(self, findings: Iterable[Finding], at: int) -> dict[EpisodeKey, list[tuple[Finding, int]]]:
        """Findings old enough to count, by episode, the oldest first, each with its onset."""
        standing: dict[EpisodeKey, list[tuple[Finding, int]]] = defaultdict(list)
        heard: dict[MemberKey, int] = {}
        # Whatever more is learned of a member, such as who it is behind a pooler, it stays in the episode it is in.
        stays: dict[tuple[str, str, int | None, int], str] = {
            (server, kind, member.pid, member.onset): identity
            for (server, kind, identity), episode in self._episodes.items()
            for member in episode.members
            if member.pid is not None
        }
        # What an earlier run saw begin, this one has only met.
        restored = {key: episode for key, episode in self._episodes.items() if episode.is_restored}
        remembered = {
            (server, kind, member.pid, member.port): member.onset
            for (server, kind, _), episode in restored.items()
            for member in episode.members
        }
        for finding in findings:
            onset = finding.onset
            if onset is None:
                member = (finding.server, finding.kind, finding.identity, finding.pid, finding.address, finding.port)
                whole = restored.get((finding.server, finding.kind, finding.identity))
                # What only holds an episode open is no symptom yet.
                if not finding.opens and member not in self._first_heard and whole is None:
                    continue
                onset = heard[member] = self._first_heard.get(member, at if whole is None else whole.onset)
            elif finding.onset_source == "estimated" and restored:
                whole = restored.get((finding.server, finding.kind, finding.identity)) if finding.pid is None else None
                known = remembered.get((finding.server, finding.kind, finding.pid, finding.port))
                onset = whole.onset if whole is not None else onset if known is None else known
            until = at if finding.counts_until is None else min(at, finding.counts_until)
            if until - onset >= (finding.after or 0):
                identity = stays.get((finding.server, finding.kind, finding.pid, onset), finding.identity)
                standing[finding.server, finding.kind, identity].append((finding, onset))
        self._first_heard = heard
        for members in standing.values():
            members.sort(key=lambda pair: pair[1])
        return standing

    def _settle(self, at: int) -> None:
        causes = self._causes.settle(self._episodes.values(), at)
        for episode in self._episodes.values():
            episode.root, episode.pages, episode.causes = causes[episode.id]

    def _begin(
        self, key: EpisodeKey, members: list[tuple[Finding, int]], server: Server, slots: Slots | None, now: Moment
    ) -> None:
        onset = members[0][1]
        episode = Episode(
            kind=key[1],
            server=server,
            identity=key[2],
            trace_id=self._new_id(128),
            span_id=self._new_id(64),
            state=EpisodeState.PENDING,
            severity=Severity.INFO,
            onset=onset,
            onset_unix=now.unix_of(onset),
            seen_at=now.at,
            findings=[],
            members=[],
            opened_at=now.at,
            opened_unix=now.unix,
        )
        self._episodes[key] = episode
        self._look(episode, members, server, slots, now)
        episode.severity = _severity(episode)
        last = self._ended.get(key)
        if last is not None and now.at - last.at <= BACK_WITHIN and last.pids & {m.pid for m in episode.members}:
            self._returned.setdefault(key, deque(maxlen=FLAPS)).append(now.at)

    def _continue(self, episode: Episode, now: Moment) -> list[EpisodeEvent]:
        """What of an open episode is worth telling now."""
        severity = _severity(episode)
        if severity > episode.severity:
            episode.severity = severity
            self._settle(now.at)  # a higher severity may wake somebody
            return [self._tell("updated", episode, "severity", now)]
        told = now.at - episode.updated_at
        if episode.pages and not episode.told_page:
            return [self._tell("updated", episode, "page", now)]
        if episode.root != episode.told_root and told >= UPDATE_PAUSE:
            return [self._tell("updated", episode, "cause", now)]
        if len(episode.members) > episode.told_members and (
            told >= UPDATE_PAUSE or len(episode.members) >= 2 * episode.told_members
        ):
            return [self._tell("updated", episode, "members", now)]
        due = HEARTBEATS[episode.heartbeats] if episode.heartbeats < len(HEARTBEATS) else HOUR
        if told >= due:
            episode.heartbeats += 1
            return [self._tell("updated", episode, "heartbeat", now)]
        return []

    def _cut(self, episode: Episode, now: Moment) -> list[EpisodeEvent]:
        """Ends a span that has become long, and begins the next: backends refuse spans of days."""
        if now.unix - episode.span_start_unix < self._max_duration:
            return []
        ended = replace(episode, ended_unix=now.unix, end_reason="max_duration")
        episode.previous_span, episode.span_id = episode.span_id, self._new_id(64)
        episode.segment, episode.segment_unix = episode.segment + 1, now.unix
        self.told += 1
        return [EpisodeEvent("continued", ended, "max_duration", now)]

    def _look(
        self,
        episode: Episode,
        members: list[tuple[Finding, int]],
        server: Server,
        slots: Slots | None,
        now: Moment,
    ) -> None:
        episode.server = self.subjects[server.id] = server
        if len(self.subjects) > REMEMBERED:
            del self.subjects[next(iter(self.subjects))]
        episode.seen_at = now.at
        episode.findings = [finding for finding, _ in members]
        episode.members = [Member(f.pid, f.address, f.port, onset) for f, onset in members]
        episode.peak_members = max(episode.peak_members, len(members))
        episode.slots = slots
        episode.is_shadow = all(finding.is_shadow for finding in episode.findings)

    def _note_return(self, key: EpisodeKey, episode: Episode, now: Moment) -> None:
        """Counts an episode that had gone and is back."""
        if now.at - episode.seen_at >= HOLD and key in self._returned:
            episode.flaps += 1
            self.flaps[episode.server.id, episode.kind] += 1

    def _hold(self, key: EpisodeKey, at: int) -> int:
        """How long no member may stand before an episode ends: longer where that happens again and again."""
        returned = self._returned.get(key)
        is_flapping = returned is not None and len(returned) == FLAPS and at - returned[0] <= FLAP_WITHIN
        return FLAP_HOLD if is_flapping else HOLD

    def _miss(self, key: EpisodeKey, episode: Episode, now: Moment) -> list[EpisodeEvent]:
        if self._earlier.is_awaited(key):
            return []
        seen = self._server_seen.get(key[0], 0)
        if seen < now.at:  # the server was not looked at: absence says nothing yet
            return [self._end(key, episode, "lost_from_sight", now)] if now.at - seen >= LOST_AFTER else []
        if now.at - episode.seen_at < self._hold(key, now.at):
            return []
        return [self._end(key, episode, "resolved", now)]

    def _end(self, key: EpisodeKey, episode: Episode, reason: str, now: Moment) -> EpisodeEvent:
        del self._episodes[key]
        if reason == "resolved":
            self._ended.pop(key, None)
            self._ended[key] = _End(now.at, frozenset(member.pid for member in episode.members))
            if len(self._ended) > REMEMBERED:
                self._returned.pop(oldest := next(iter(self._ended)), None)
                del self._ended[oldest]
        episode.end_reason = reason
        episode.ended_at = episode.seen_at if reason == "resolved" else now.at
        episode.ended_unix = now.unix_of(episode.ended_at)
        return self._tell("resolved", episode, reason, now)

    def _tell(self, name: str, episode: Episode, because: str, now: Moment) -> EpisodeEvent:
        if because not in _CHANGE_NOTHING:
            episode.state = TRANSITIONS[episode.state, because]
        self.told += 1
        episode.updated_at = now.at
        episode.told_members = len(episode.members)
        episode.told_page, episode.told_root = episode.pages, episode.root
        return EpisodeEvent(name, episode, because, now)


def _severity(episode: Episode) -> Severity:
    return max(finding.severity for finding in episode.findings)


def leak_readings(
    tracker: EpisodeTracker, silenced: Mapping[tuple[str, str], int], servers: Mapping[str, Server]
) -> list[LeakReading]:
    """The episodes of everything that ever had one, or has findings that are held back."""
    held_back = {key for key, _ in silenced}
    subjects = tracker.subjects | {key: server for key, server in servers.items() if key in held_back}
    return [
        LeakReading(
            server,
            Counter((episode.kind, episode.severity) for episode in tracker.open if episode.server.id == key),
            {(kind, severity): n for (of, kind, severity), n in tracker.opened.items() if of == key},
            {kind: n for (of, kind), n in tracker.flaps.items() if of == key},
            {kind: n for (of, kind), n in silenced.items() if of == key},
        )
        for key, server in subjects.items()
    ]
