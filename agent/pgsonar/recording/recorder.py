"""Writes down what the pipeline reads, tick by tick.

The rule: the recorder changes nothing. An answer is passed on as it came, and whatever fails in writing it down is
counted and never felt.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pgsonar import __version__
from pgsonar.config.schema import Config, LeaksProcessor
from pgsonar.model import Moment, Sight
from pgsonar.pipeline.pipeline import Pipeline
from pgsonar.pipeline.reporting import Reporter
from pgsonar.pipeline.world import Sources
from pgsonar.recording.hiding import Hiding
from pgsonar.recording.taps import tapped
from pgsonar.sources.answers import Answers
from pgsonar.sources.entries import AnyFact, KeyFrame, Stage, Tick, encode
from pgsonar.sources.recording import Header, Parts

log = logging.getLogger("pgsonar")


class Sink(Protocol):
    """Where entries go. They are encoded, so that nothing changes them later."""

    def wants_key_frame(self, at: int) -> bool: ...
    def begin(self, header: Header, key_frame: bytes, at: int) -> None: ...
    def write(self, encoded: list[bytes], at: int) -> None: ...


def header_of(config: Config, hiding: Hiding, host: str, started_unix: int) -> Header:
    """What a recording with this configuration says of itself."""
    has_sides = config.sockets.side != "server"
    return Header(
        version=__version__,
        host=hiding.host(host),
        started_unix=started_unix,
        id=secrets.token_hex(8),
        parts=Parts(
            databases=len(config.postgresql),
            consoles=len(config.pgbouncer),
            applications=has_sides,
            names=has_sides,
            logs=bool(config.serverlog),
            sees_servers=config.sockets.side != "client",
        ),
        hidden=hiding.hidden,
    )


class Recorder:
    """Takes facts in, and hands them to a sink at the end of each tick."""

    def __init__(self, sink: Sink, hiding: Hiding, header: Header) -> None:
        self.answers = Answers()
        self.failures = 0
        self._sink = sink
        self._hiding = hiding
        self._header = header
        self._waiting: list[bytes] = []
        self._moment = Moment(0, 0)
        self._has_begun = False

    def put(self, fact: AnyFact) -> None:
        """Notes what differs from the last answer."""
        with self._unfelt():
            self.answers.apply(fact)
            self._waiting.append(encode(self._hiding.fact(fact)))

    def begin_anew(self, config: Config, host: str, unix: int) -> None:
        """The sources are others from here on: a key frame says what is known of them."""
        self._header = header_of(config, self._hiding, host, unix)
        self._has_begun = False

    def end_of(self, stage: Stage, moment: Moment | None, pipeline: Pipeline) -> None:
        """A tick has ended: what it was told is handed on, and then that it was."""
        if stage is Stage.FAST and not self._waiting:  # as most of them
            return
        self._moment = moment or self._moment
        waiting, self._waiting = self._waiting, []
        with self._unfelt():
            waiting.append(encode(Tick(stage, self._moment)))
            self._hand_on(stage, waiting, pipeline)

    def moment_of(self, at: int) -> Moment:
        """For ticks that are told one clock only."""
        return Moment(at, self._moment.unix_of(at))

    def _hand_on(self, stage: Stage, waiting: list[bytes], pipeline: Pipeline) -> None:
        at = self._moment.at
        if self._has_begun:
            self._sink.write(waiting, at)
        if not self._has_begun or (stage is Stage.SLOW and self._sink.wants_key_frame(at)):
            self._sink.begin(self._header, encode(self._key_frame(pipeline)), at)
            self._has_begun = True

    def _key_frame(self, pipeline: Pipeline) -> KeyFrame:
        hiding = self._hiding
        return KeyFrame(
            self._moment,
            [hiding.fact(fact) for fact in self.answers.facts()],
            [hiding.connection(connection) for connection in pipeline.connections.connections.values()],
            [hiding.backend(b) for server in pipeline.servers for b in pipeline.backends.of_server(server)],
        )

    @contextmanager
    def _unfelt(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.failures += 1
            if self.failures == 1:
                log.exception("what was read cannot be recorded; the agent goes on")


class RecordedPipeline(Pipeline):
    """The pipeline with a recorder beside it."""

    def __init__(self, sources: Sources, leaks: LeaksProcessor | None, reporter: Reporter, recorder: Recorder) -> None:
        super().__init__(tapped(sources, recorder.put, recorder.answers), leaks, reporter)
        self._recorder = recorder

    def reconfigure(self, sources: Sources, leaks: LeaksProcessor | None, at: int) -> None:
        super().reconfigure(tapped(sources, self._recorder.put, self._recorder.answers), leaks, at)

    def discover(self, now: Moment) -> None:
        try:
            super().discover(now)
        finally:
            self._recorder.end_of(Stage.DISCOVER, now, self)

    def fast_tick(self) -> None:
        try:
            super().fast_tick()
        finally:
            self._recorder.end_of(Stage.FAST, None, self)

    def title_tick(self, at: int) -> None:
        try:
            super().title_tick(at)
        finally:
            self._recorder.end_of(Stage.TITLE, self._recorder.moment_of(at), self)

    def slow_tick(self, now: Moment) -> list[Sight]:
        try:
            return super().slow_tick(now)
        finally:
            self._recorder.end_of(Stage.SLOW, now, self)

    def export_tick(self, now: Moment) -> None:
        try:
            super().export_tick(now)
        finally:
            self._recorder.end_of(Stage.EXPORT, now, self)

    def stop(self, now: Moment, *, ends: bool = True) -> None:
        try:
            super().stop(now, ends=ends)
        finally:
            self._recorder.end_of(Stage.STOP, now, self)
