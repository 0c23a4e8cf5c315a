"""Recordings played through the pipeline: the same stages and ticks, the instants that were recorded.

The rule: what comes out depends on the recording and on the configuration, and on nothing else: no clock is read, and
ids are drawn from the recording's own. Files of one recording go on where the one before ended; any other begins anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from pgsonar.config.schema import LeaksProcessor, Telemetry
from pgsonar.model import DatabaseReading, Moment, PoolerReading
from pgsonar.pipeline.pipeline import Pipeline
from pgsonar.pipeline.reporting import Reporter
from pgsonar.pipeline.world import Sources
from pgsonar.signals.identity import Identity
from pgsonar.signals.rows import Batch, EventRow
from pgsonar.sources import entries, recorded
from pgsonar.sources.answers import Answers
from pgsonar.sources.entries import AnyFact, Entry, KeyFrame, Stage, Tick
from pgsonar.sources.recording import Header, Recording
from pgsonar.tracking.backends import bind

PROGRESS = 1000  # entries between two signs of life


@dataclass
class Played:
    """One recording, in one or more files."""

    header: Header
    began: Moment | None = None
    ended: Moment | None = None
    opened: int = 0  # episodes
    still_open: int = 0
    damage: str | None = None


class Player:
    """Plays entries; `events` are told as they happen."""

    def __init__(self, header: Header, leaks: LeaksProcessor, telemetry: Telemetry) -> None:
        self.events: list[EventRow] = []
        self.played = Played(header)
        self._answers = Answers()
        self._sampler = recorded.RecordedSampler(self._answers)
        self._databases = [recorded.RecordedPoller[DatabaseReading]() for _ in range(header.parts.databases)]
        self._consoles = [recorded.RecordedPoller[PoolerReading]() for _ in range(header.parts.consoles)]
        self._names = recorded.RecordedPoller[dict[str, str]]()
        self._drawn = 0
        identity = Identity(host=header.host, host_id=None, version=header.version, extra={})
        reporter = Reporter({"logs": [self]}, identity, header.started_unix, _not_hidden_twice(telemetry, header))
        self._pipeline = Pipeline(self._sources(header), leaks, reporter, self._draw)

    def export(self, batch: Batch) -> None:
        """Takes the events of the pipeline; see reporting.Outlet."""
        events = [row for _, rows in batch.resources for row in rows if isinstance(row, EventRow)]
        self.events += events
        self.played.opened += sum(event.event_name == "pgsonar.leak.opened" for event in events)

    def play(self, entry: Entry) -> None:
        """Takes in what was told, or calls the tick that was called."""
        if isinstance(entry, Tick):
            self._tick(entry.stage, entry.moment)
        elif not isinstance(entry, KeyFrame):
            self._apply(entry)
        elif self.played.began is None:
            self._begin(entry)

    def _begin(self, frame: KeyFrame) -> None:
        self.played.began = self.played.ended = frame.moment
        for fact in frame.facts:
            self._apply(fact)
        connections = {connection.id: connection for connection in frame.connections}
        for one in frame.connections:
            self._answers.connections.setdefault(one.netns, {})[one.id] = one.opened_at, one.socket
        for backend in frame.backends:
            if backend.connection is not None:  # one that has closed is nowhere else
                bind(backend, connections.get(backend.connection.id, backend.connection))
        self._pipeline.connections.recall(frame.connections)
        self._pipeline.backends.recall(frame.backends)
        self._pipeline.discover(frame.moment)

    def _apply(self, fact: AnyFact) -> None:
        self._answers.apply(fact)
        match fact:
            case entries.Changes(changes):
                self._sampler.waiting += changes
            case entries.Database(index, holds, reading):
                self._databases[index].put(reading, holds)
            case entries.Console(index, holds, told):
                self._consoles[index].put(told, holds)
            case entries.Names(names):
                self._names.put(names, 0)
            case _:
                pass

    def _tick(self, stage: Stage, moment: Moment) -> None:
        self.played.ended = moment
        pipeline = self._pipeline
        match stage:
            case Stage.DISCOVER:
                pipeline.discover(moment)
            case Stage.FAST:
                pipeline.fast_tick()
            case Stage.TITLE:
                pipeline.title_tick(moment.at)
            case Stage.SLOW:
                pipeline.slow_tick(moment)
            case Stage.EXPORT:
                pipeline.export_tick(moment)
            case Stage.STOP:
                pipeline.stop(moment)
        self.played.still_open = len(pipeline.episodes.open)

    def _sources(self, header: Header) -> Sources:
        answers, parts = self._answers, header.parts
        return Sources(
            sampler=self._sampler,
            finder=recorded.RecordedFinder(answers),
            backends=recorded.RecordedBackends(answers),
            owners=recorded.RecordedOwners(answers),
            clients=recorded.RecordedClients(answers),
            listen_overflows=answers.overflows.get,
            budget=recorded.RecordedPace(answers),
            poolers=recorded.RecordedPoolers(answers),
            databases=self._databases,
            consoles=self._consoles,
            applications=recorded.RecordedSides(answers) if parts.applications else None,
            names=self._names if parts.names else None,
            sees_servers=parts.sees_servers,
            logs=recorded.RecordedLogs(answers) if parts.logs else None,
        )

    def _draw(self, bits: int) -> int:
        """The next id of this recording."""
        self._drawn += 1
        digest = hashlib.sha256(f"{self.played.header.id} {self._drawn}".encode()).digest()
        return int.from_bytes(digest[: bits // 8], "big") or 1


def _not_hidden_twice(telemetry: Telemetry, header: Header) -> Telemetry:
    redaction = msgspec.structs.replace(telemetry.redaction, **dict.fromkeys(header.hidden, "keep"))
    return msgspec.structs.replace(telemetry, redaction=redaction)


Heard = Header | EventRow | Played  # in this order for each recording


def play(
    paths: list[str], leaks: LeaksProcessor, telemetry: Telemetry, progress: Callable[[int, int], None]
) -> Iterator[Heard]:
    """What comes of recordings, the oldest first. `progress` is told the bytes that are read, and all of them."""
    logging.getLogger("pgsonar").addHandler(logging.NullHandler())
    recordings = sorted(map(Recording, paths), key=_order)
    total, before = sum(recording.size for recording in recordings), 0
    player: Player | None = None
    for recording in recordings:
        if player is None or not _goes_on(player.played, recording.header):
            if player is not None:
                yield player.played
            player = Player(recording.header, leaks, telemetry)
            yield recording.header
        player.played.header = recording.header
        for number, entry in enumerate(recording.entries()):
            player.play(entry)
            yield from player.events
            player.events.clear()
            if number % PROGRESS == 0:
                progress(before + recording.position, total)
        player.played.damage = recording.damage
        before += recording.size
    if player is not None:
        yield player.played


def _order(recording: Recording) -> tuple[int, str, int]:
    header = recording.header
    return header.started_unix, header.id, header.part


def _goes_on(played: Played, header: Header) -> bool:
    same = (header.id, header.part) == (played.header.id, played.header.part + 1)
    return same and played.damage is None
