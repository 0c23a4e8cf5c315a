"""Findings become episodes: things that begin, are told, grow worse, and end.

The rule: everything that moves an episode from one state to another stands in TRANSITIONS and in EpisodeTracker. An
episode is keyed by (server, kind, identity); it opens when a member's age reaches its rule's `after`, and always ends:
resolved, lost from sight, or because the agent stops.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from pgsonar.detectors import Rule
from pgsonar.model import (
    SECOND,
    Episode,
    EpisodeEvent,
    EpisodeState,
    Finding,
    Ledger,
    Member,
    Moment,
    Server,
    Severity,
)

HOLD = SECOND  # an episode resolves when no member has stood for this long: one late look ends nothing
LOST_AFTER = 5 * SECOND  # a server unseen for this long has taken its episodes out of sight
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

EpisodeKey = tuple[str, str, str]  # server, kind, identity
MemberKey = tuple[str, str, str, int | None, str | None, int | None]


class EpisodeTracker:
    """Keeps the episodes. `new_id(bits)` draws a random non-zero identifier."""

    def __init__(self, rules: Iterable[Rule], new_id: Callable[[int], int]) -> None:
        self._rules = {rule.kind: rule for rule in rules}
        self._new_id = new_id
        self._episodes: dict[EpisodeKey, Episode] = {}
        self._first_heard: dict[MemberKey, int] = {}  # of findings that do not know their own onset
        self._server_seen: dict[str, int] = {}
        self.opened: Counter[tuple[str, str, Severity]] = Counter()  # (server, kind, severity at opening), ever

    @property
    def open(self) -> list[Episode]:
        return list(self._episodes.values())

    def update(
        self, findings: Iterable[Finding], sights: Mapping[str, tuple[Server, Ledger]], now: Moment
    ) -> list[EpisodeEvent]:
        """Takes one look at all servers in `sights` in; returns what is to be told, in order."""
        standing = self._standing(findings, now.at)
        events: list[EpisodeEvent] = []
        self._server_seen.update(dict.fromkeys(sights, now.at))
        for key, members in standing.items():
            server, ledger = sights[key[0]]
            episode = self._episodes.get(key)
            if episode is not None:
                events += self._continue(episode, members, server, ledger, now)
            elif any(finding.opens for finding, _ in members):
                events.append(self._begin(key, members, server, ledger, now))
        for key, episode in list(self._episodes.items()):
            if key not in standing:
                events += self._miss(key, episode, now)
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
        for finding in findings:
            onset = finding.onset
            if onset is None:
                member = (finding.server, finding.kind, finding.identity, finding.pid, finding.address, finding.port)
                # What only holds an episode open is no symptom yet.
                if not finding.opens and member not in self._first_heard:
                    continue
                onset = heard[member] = self._first_heard.get(member, at)
            if at - onset >= self._rules[finding.kind].after:
                identity = stays.get((finding.server, finding.kind, finding.pid, onset), finding.identity)
                standing[finding.server, finding.kind, identity].append((finding, onset))
        self._first_heard = heard
        for members in standing.values():
            members.sort(key=lambda pair: pair[1])
        return standing

    def _begin(
        self, key: EpisodeKey, members: list[tuple[Finding, int]], server: Server, ledger: Ledger, now: Moment
    ) -> EpisodeEvent:
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
        self._look(episode, members, server, ledger, now)
        episode.severity = self._severity(episode)
        self.opened[server.id, episode.kind, episode.severity] += 1
        return self._tell("opened", episode, "threshold", now)

    def _continue(
        self, episode: Episode, members: list[tuple[Finding, int]], server: Server, ledger: Ledger, now: Moment
    ) -> list[EpisodeEvent]:
        self._look(episode, members, server, ledger, now)
        severity = self._severity(episode)
        if severity > episode.severity:
            episode.severity = severity
            return [self._tell("updated", episode, "severity", now)]
        told = now.at - episode.updated_at
        if len(episode.members) > episode.told_members and (
            told >= UPDATE_PAUSE or len(episode.members) >= 2 * episode.told_members
        ):
            return [self._tell("updated", episode, "members", now)]
        due = HEARTBEATS[episode.heartbeats] if episode.heartbeats < len(HEARTBEATS) else HOUR
        if told >= due:
            episode.heartbeats += 1
            return [self._tell("updated", episode, "heartbeat", now)]
        return []

    def _look(
        self, episode: Episode, members: list[tuple[Finding, int]], server: Server, ledger: Ledger, now: Moment
    ) -> None:
        episode.server = server
        episode.seen_at = now.at
        episode.findings = [finding for finding, _ in members]
        episode.members = [Member(f.pid, f.address, f.port, onset) for f, onset in members]
        episode.peak_members = max(episode.peak_members, len(members))
        episode.slots = (ledger.used, ledger.limits.ceiling)

    def _severity(self, episode: Episode) -> Severity:
        fixed = self._rules[episode.kind].severity
        return fixed if fixed is not None else max(finding.severity for finding in episode.findings)

    def _miss(self, key: EpisodeKey, episode: Episode, now: Moment) -> list[EpisodeEvent]:
        seen = self._server_seen.get(key[0], 0)
        if seen < now.at:  # the server was not looked at: absence says nothing yet
            return [self._end(key, episode, "lost_from_sight", now)] if now.at - seen >= LOST_AFTER else []
        if now.at - episode.seen_at < HOLD:
            return []
        return [self._end(key, episode, "resolved", now)]

    def _end(self, key: EpisodeKey, episode: Episode, reason: str, now: Moment) -> EpisodeEvent:
        del self._episodes[key]
        episode.end_reason = reason
        episode.ended_at = episode.seen_at if reason == "resolved" else now.at
        episode.ended_unix = now.unix_of(episode.ended_at)
        return self._tell("resolved", episode, reason, now)

    def _tell(self, name: str, episode: Episode, because: str, now: Moment) -> EpisodeEvent:
        if because not in ("members", "heartbeat"):
            episode.state = TRANSITIONS[episode.state, because]
        episode.updated_at = now.at
        episode.told_members = len(episode.members)
        return EpisodeEvent(name, episode, because, now)
