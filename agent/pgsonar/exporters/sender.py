"""One exporter: a bounded queue, and a thread that empties it into a transport.

The rule: the caller never waits. What cannot be sent is tried again with growing pauses for as long as the queue's
bounds allow; what falls out of the queue, the oldest first, is counted and said. Each signal is a lane of its own: a
backend that refuses logs for now still gets its metrics. Whatever was put in is sent, failed, dropped, or still waits.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pgsonar.config.schema import RetryOnFailure, SendingQueue
from pgsonar.exporters.delivery import Refused, Retryable, TooLarge, Transport
from pgsonar.exporters.encoding import Encoded, halves
from pgsonar.exporters.queue import SIGNALS, Entry, Queue
from pgsonar.signals.rows import Signal

log = logging.getLogger("pgsonar")

SAY_EVERY = 60.0  # seconds between two lines about the same trouble
HURRY = 0.25  # between attempts while the agent stops


@dataclass(slots=True)
class ExporterStats:
    """Counts of points, records and spans by signal; `failing_since` is on time.monotonic()."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)  # refused by the other side, or could not become a request
    dropped: Counter[str] = field(default_factory=Counter)  # fell out of the queue
    waiting: dict[Signal, int] = field(default_factory=dict)
    retries: int = 0
    queue_capacity: int | None = None  # requests; None: it has no queue
    queue_requests: int = 0
    queue_bytes: int = 0
    failing_since: float | None = None
    last_error: str = ""


@dataclass(slots=True)
class Lane:
    """How far the oldest request of one signal is. Times are on time.monotonic()."""

    signal: Signal
    entry: Entry | None = None
    pieces: deque[Encoded] = field(default_factory=deque)  # of it, that have not been dealt with
    is_on_its_way: bool = False
    since: float = 0.0  # it was the oldest
    pause: float | None = None  # before the next attempt but one, seconds; None after a success
    way: int = 0  # the number of the configuration it was sent by
    tried_at: float = 0.0
    resume_at: float = 0.0
    failing_since: float | None = None  # it is put off

    @property
    def items_left(self) -> int:
        """Of the request in hand; part of it may have arrived."""
        return sum(piece.items for piece in self.pieces) or (self.entry.items if self.entry is not None else 0)


class Exporter:
    """Queues requests and sends those of each signal in order."""

    def __init__(
        self,
        name: str,
        transport: Transport,
        retry: RetryOnFailure,
        queue: Queue,
        stats: ExporterStats | None = None,
    ) -> None:
        self.name = name
        self.stats = stats or ExporterStats()
        self._transport = transport
        self._retry = retry
        self._queue = queue
        self._lanes: dict[Signal, Lane] = {signal: Lane(signal) for signal in SIGNALS}
        self._changed = threading.Condition()
        self._closing_at: float | None = None  # it ends then at the latest
        self._closed_at = 0.0
        self._way = 0  # how many times it was configured anew
        self._refused_since: float | None = None  # no request has arrived since
        self._said: dict[str, float] = {}
        self._remark = ""  # the backend's last one
        self._note_queue()
        if queue.items():
            log.info("exporter %s: %d items wait since before the start", name, queue.items())
        self._thread = threading.Thread(target=self._work, name=f"pgsonar-{name}", daemon=True)
        self._thread.start()

    def put(self, encoded: Encoded) -> None:
        """Puts a request in the queue; drops the oldest when that is full."""
        with self._changed:
            self._queue.put(encoded)
            self._keep_bounds()
            self._changed.notify()

    def configure(self, transport: Transport, retry: RetryOnFailure, bounds: SendingQueue) -> None:
        """Goes on with what waits, another way. What another backend could not do says nothing of this one."""
        with self._changed:
            before, self._transport, self._retry = self._transport, transport, retry
            self._queue.bounds = bounds
            self._way += 1
            self._refused_since = None
            for lane in self._lanes.values():
                lane.resume_at, lane.pause, lane.failing_since = 0.0, None, None
            self._settle_failing()
            self._changed.notify()
        before.close()

    def lose(self, signal: Signal, items: int, reason: str) -> None:
        """Counts what never became a request."""
        with self._changed:
            self._fail(signal, items, reason, "")

    def shed(self) -> None:
        """Gives up half of what waits in memory only, the oldest first."""
        with self._changed:
            for dropped in self._queue.shed(self._on_their_way()):
                self._note_dropped(dropped, "the agent is at its memory limit")
            self._note_queue()

    def close(self, seconds: float, *, keeps: bool = True) -> int:
        """Sends what can be sent within `seconds`; returns how many items are lost because they are still unsent.

        What a file holds is not lost, unless nobody will send it: then `keeps` is False.
        """
        with self._changed:
            self._closed_at = time.monotonic()
            self._closing_at = self._closed_at + seconds
            self._changed.notify()
        self._thread.join(seconds + 0.2)
        self._transport.close()
        self._thread.join(0.1)  # what that cut off is noted
        with self._changed:
            if not keeps:
                return self._give_up()
            waiting, lost = self._queue.items(), self._queue.items_at_risk()
            if waiting > lost:
                log.info("exporter %s: %d items wait for the next start", self.name, waiting - lost)
            return lost

    def _give_up(self) -> int:
        """Drops all that waits; how many items that are."""
        before = self.stats.dropped.total()
        for signal, lane in self._lanes.items():
            while (entry := self._queue.first(signal)) is not None:
                self.stats.dropped[signal] += lane.items_left if lane.entry is entry else entry.items
                self._queue.remove(entry)
            lane.entry = None
        self._note_queue()
        return self.stats.dropped.total() - before

    # --- the sender's thread -------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (lane := self._next()) is not None:
            try:
                self._send(lane)
            except Exception as error:  # a request nobody can deal with must not hold up the others
                log.exception("exporter %s", self.name)
                with self._changed:
                    lane.is_on_its_way = False
                    self._lose(lane, f"unexpected {type(error).__name__}")
                    self._finish(lane)

    def _next(self) -> Lane | None:
        """The lane to send of next, when it is time; None at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._closing_at is not None and now >= self._closing_at:
                    return None
                self._keep_bounds()
                for signal, lane in self._lanes.items():
                    if lane.entry is None:
                        self._begin(lane, self._queue.first(signal))
                waiting = [lane for lane in self._lanes.values() if lane.entry is not None]
                if self._closing_at is not None and self._may_end(waiting):
                    return None
                due = min((self._due(lane), number) for number, lane in enumerate(waiting)) if waiting else None
                if due is not None and due[0] <= now:
                    lane = waiting[due[1]]
                    lane.is_on_its_way, lane.tried_at, lane.way = True, now, self._way
                    return lane
                self._changed.wait(None if due is None else due[0] - now)

    def _may_end(self, waiting: list[Lane]) -> bool:
        """Nothing is left, or nothing that the next start would not find, and the backend does not take it now."""
        is_safe = self._queue.items_at_risk() == 0
        return all(is_safe and lane.failing_since is not None and lane.tried_at >= self._closed_at for lane in waiting)

    def _begin(self, lane: Lane, entry: Entry | None) -> None:
        """Takes the oldest request in hand, unless there is none."""
        if entry is None:
            return
        encoded = self._queue.read(entry)
        lane.entry, lane.since = entry, time.monotonic()
        lane.pieces = deque(() if encoded is None else (encoded,))

    def _due(self, lane: Lane) -> float:
        """When it is tried (again). An agent that stops does not wait long."""
        return lane.resume_at if self._closing_at is None else min(lane.resume_at, lane.tried_at + HURRY)

    def _send(self, lane: Lane) -> None:
        """Tries the next piece of a lane once."""
        outcome = self._deliver(lane)
        with self._changed:
            lane.is_on_its_way = False
            outcome()
            if not lane.pieces:
                self._finish(lane)
        self._queue.tidy()

    def _deliver(self, lane: Lane) -> Callable[[], None]:
        """Gives it to the transport, without the lock; what is to be noted of that, under it."""
        if not lane.pieces:
            return partial(self._lose, lane, "could not be read back")
        piece = lane.pieces[0]
        try:
            rejected, reason = self._transport.deliver(piece)
        except Retryable as error:
            return partial(self._put_off, lane, error)
        except TooLarge as error:
            return partial(self._cut, lane, piece, str(error))
        except Refused as error:
            return partial(self._refused, lane, piece, error)
        except Exception as error:  # what nobody foresaw must not end the thread, nor lose anything
            log.debug("exporter %s", self.name, exc_info=True)
            return partial(self._put_off, lane, Retryable(f"unexpected {type(error).__name__}"))
        return partial(self._arrived, lane, piece, rejected, reason)

    def _finish(self, lane: Lane) -> None:
        """The request in hand is dealt with."""
        if lane.entry is not None:
            self._queue.remove(lane.entry)
        lane.entry = None
        lane.resume_at = 0.0
        self._rest(lane)
        self._note_queue()

    def _rest(self, lane: Lane) -> None:
        """A lane in which nothing waits puts nothing off."""
        if self._queue.first(lane.signal) is None:
            lane.failing_since = None
            self._settle_failing()

    def _put_off(self, lane: Lane, error: Retryable) -> None:
        """It may be tried again, if there is time."""
        if lane.way != self._way:  # it is sent another way now, at once
            return
        now = time.monotonic()
        self.stats.last_error = str(error)
        lane.failing_since = lane.failing_since or now
        self._settle_failing()
        if self._closing_at is None or now < self._closing_at:
            self._say("failing", f"exporter {self.name}: {error}; it is tried again, what waits is kept", error.hint)
        if self._retry.max_elapsed_time and now - lane.since > self._retry.max_elapsed_time:
            self._lose(lane, f"given up after retries: {error}")
            return
        self.stats.retries += 1
        pause = float(self._retry.initial_interval) if lane.pause is None else lane.pause
        wait = pause / 2 if error.wait is None else max(error.wait, pause / 2)
        # Agents of a fleet must not all come back at once.
        lane.resume_at = now + wait * random.uniform(1.0, 2.0 if error.wait is None else 1.2)  # noqa: S311
        lane.pause = min(pause * self._retry.multiplier, self._retry.max_interval)

    def _lose(self, lane: Lane, reason: str) -> None:
        """All that is left of the request in hand is given up."""
        if lane.entry is not None:
            self._fail(lane.signal, lane.items_left, reason, "")
        lane.pieces.clear()

    def _refused(self, lane: Lane, piece: Encoded, error: Refused) -> None:
        self._fail(piece.signal, piece.items, str(error), error.hint)
        lane.pieces.popleft()
        lane.pause = lane.failing_since = None
        self._refused_since = self._refused_since or time.monotonic()
        self._settle_failing()

    def _cut(self, lane: Lane, piece: Encoded, reason: str) -> None:
        """Two smaller requests in the place of one that is too large."""
        two = halves(piece)
        lane.pieces.popleft()
        if two is None:
            self._fail(piece.signal, piece.items, f"{reason}: one item alone is larger than is accepted", "")
            return
        lane.pieces.extendleft(reversed(two))

    # --- what is counted and said, under the lock ----------------------------------------------------------------

    def _keep_bounds(self) -> None:
        for dropped, reason in self._queue.expire(self._on_their_way()):
            self._note_dropped(dropped, reason)
        self._note_queue()

    def _on_their_way(self) -> list[Entry]:
        return [lane.entry for lane in self._lanes.values() if lane.entry is not None and lane.is_on_its_way]

    def _note_dropped(self, dropped: Entry, reason: str) -> None:
        lane = self._lanes[dropped.signal]
        is_in_hand = lane.entry is dropped
        self.stats.dropped[dropped.signal] += lane.items_left if is_in_hand else dropped.items
        if is_in_hand:
            lane.entry = None
            self._rest(lane)
        self._say(reason, f"exporter {self.name}: {reason}, the oldest data is dropped and counted")

    def _note_queue(self) -> None:
        self.stats.queue_requests, self.stats.queue_bytes = len(self._queue), self._queue.bytes
        self.stats.queue_capacity = self._queue.bounds.queue_size
        self.stats.waiting = dict(self._queue.waiting)

    def _arrived(self, lane: Lane, piece: Encoded, rejected: int, reason: str) -> None:
        lane.pieces.popleft()
        lane.pause = self._refused_since = None
        self.stats.sent[piece.signal] += piece.items - rejected
        if rejected:
            self.stats.failed[piece.signal] += rejected
            self._say("partial", f"exporter {self.name}: {rejected} items of {piece.signal} were rejected: {reason}")
        elif reason and reason != self._remark:
            self._remark = reason
            log.warning("exporter %s: nothing is lost, but the backend says: %s", self.name, reason)
        lane.failing_since, since = None, self.stats.failing_since
        self._settle_failing()
        if since is not None and self.stats.failing_since is None:
            log.info("exporter %s works again after %.0f s", self.name, time.monotonic() - since)
            self._said.pop("failing", None)

    def _settle_failing(self) -> None:
        """It fails while a lane is put off, or nothing but refusals came back."""
        since = [self._refused_since, *(lane.failing_since for lane in self._lanes.values())]
        self.stats.failing_since = min((one for one in since if one is not None), default=None)

    def _fail(self, signal: str, items: int, reason: str, hint: str) -> None:
        self.stats.failed[signal] += items
        self.stats.last_error = reason
        self._say("refused", f"exporter {self.name}: {items} items of {signal} are lost: {reason}", hint)

    def _say(self, what: str, message: str, hint: str = "") -> None:
        """One line a minute for each kind of trouble."""
        now = time.monotonic()
        if now - self._said.get(what, -SAY_EVERY) >= SAY_EVERY:
            self._said[what] = now
            log.warning("%s%s", message, f" ({hint})" if hint else "")
