"""One exporter: a bounded queue, and a thread that empties it into a transport.

The rule: the caller never waits. What cannot be sent is tried again with growing pauses for as long as the queue's
bounds allow; what falls out of the queue, the oldest first, is counted and said.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from pgsonar.config.schema import RetryOnFailure, SendingQueue
from pgsonar.exporters.delivery import Refused, Retryable, Transport
from pgsonar.exporters.encoding import encode
from pgsonar.signals.rows import Batch, MetricRow

log = logging.getLogger("pgsonar")

SAY_EVERY = 60.0  # seconds between two lines about the same trouble
HURRY = 0.25  # between attempts while the agent stops
POINT_BYTES = 200  # what a point, record or span is taken to weigh in the queue, before it is encoded
RECORD_BYTES = 3000


class Waiting(NamedTuple):
    batch: Batch
    items: int
    size: int
    since: float  # monotonic


@dataclass(slots=True)
class ExporterStats:
    """Counts of points, records and spans by signal; `failing_since` is on time.monotonic()."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)  # refused by the other side
    dropped: Counter[str] = field(default_factory=Counter)  # fell out of the queue
    retries: int = 0
    queue_requests: int = 0
    queue_bytes: int = 0
    failing_since: float | None = None
    last_error: str = ""


class Exporter:
    """Queues batches and sends them in order."""

    def __init__(self, name: str, transport: Transport, retry: RetryOnFailure, queue: SendingQueue) -> None:
        self.name = name
        self.stats = ExporterStats()
        self._transport = transport
        self._retry = retry
        self._bounds = queue
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._closing_at: float | None = None
        self._said: dict[str, float] = {}
        self._thread = threading.Thread(target=self._work, name=f"pgsonar-{name}", daemon=True)
        self._thread.start()

    def export(self, batch: Batch) -> None:
        """Puts a batch in the queue; drops the oldest when that is full."""
        items = _items(batch)
        size = items * (POINT_BYTES if batch.signal == "metrics" else RECORD_BYTES)
        with self._changed:
            self._waiting.append(Waiting(batch, items, size, time.monotonic()))
            self.stats.queue_bytes += size
            self._keep_bounds()
            self._changed.notify()

    def close(self, seconds: float) -> int:
        """Sends what can be sent within `seconds`; returns how many items are left unsent."""
        with self._changed:
            self._closing_at = time.monotonic() + seconds
            self._changed.notify()
        self._thread.join(seconds + 0.2)
        self._transport.close()
        with self._changed:
            return sum(waiting.items for waiting in self._waiting)

    def _keep_bounds(self) -> None:
        oldest_allowed = time.monotonic() - self._bounds.max_age
        while self._waiting and (
            len(self._waiting) > self._bounds.queue_size
            or self.stats.queue_bytes > self._bounds.max_bytes
            or self._waiting[0].since < oldest_allowed
        ):
            dropped = self._take()
            self.stats.dropped[dropped.batch.signal] += dropped.items
            self._say("queue", f"exporter {self.name}: the queue is full, the oldest data is dropped and counted")
        self.stats.queue_requests = len(self._waiting)

    def _take(self) -> Waiting:
        taken = self._waiting.popleft()
        self.stats.queue_bytes -= taken.size
        self.stats.queue_requests = len(self._waiting)
        return taken

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and self._closing_at is None:
                    self._changed.wait()
                if not self._waiting:
                    return
                waiting = self._waiting[0]
            if not self._send(waiting):
                return
            with self._changed:
                # The queue may have dropped it meanwhile.
                if self._waiting and self._waiting[0] is waiting:
                    self._take()

    def _send(self, waiting: Waiting) -> bool:
        """Sends one batch, as often as it takes; False when the exporter closes before that."""
        signal = waiting.batch.signal
        pause, started = float(self._retry.initial_interval), time.monotonic()
        try:
            request = encode(waiting.batch)
        except Exception as error:  # noqa: BLE001 - one batch that cannot be encoded must not stop the others
            self._fail(signal, waiting.items, f"a batch of {signal} could not be encoded: {error!r}", "")
            return True
        while True:
            try:
                rejected, reason = self._transport.deliver(request)
            except Retryable as error:
                self._note_failure(str(error))
                if self._retry.max_elapsed_time and time.monotonic() - started > self._retry.max_elapsed_time:
                    self._fail(signal, waiting.items, f"given up after retries: {error}", "")
                    return True
                jitter = random.uniform(0.5, 1.0)  # noqa: S311 - agents of a fleet must not all come back at once
                if not self._pause(pause * jitter if error.wait is None else error.wait, waiting):
                    return self._closing_at is None
                pause = min(pause * self._retry.multiplier, self._retry.max_interval)
            except Refused as error:
                self._fail(signal, waiting.items, str(error), error.hint)
                return True
            else:
                self.stats.sent[signal] += waiting.items - rejected
                if rejected:
                    self.stats.failed[signal] += rejected
                    self._say("partial", f"exporter {self.name}: {rejected} items of {signal} were rejected: {reason}")
                self._note_success()
                return True

    def _pause(self, seconds: float, waiting: Waiting) -> bool:
        """Waits before the next attempt; False when there is none, because of the end or of a full queue."""
        self.stats.retries += 1
        started = time.monotonic()
        with self._changed:
            while True:
                now = time.monotonic()
                closing = self._closing_at is not None
                if self._closing_at is not None and now >= self._closing_at:
                    return False
                if not self._waiting or self._waiting[0] is not waiting:
                    return False
                wait = min(seconds, HURRY) if closing else seconds
                if now - started >= wait:
                    return True
                self._changed.wait(started + wait - now)

    def _note_failure(self, reason: str) -> None:
        self.stats.last_error = reason
        if self.stats.failing_since is None:
            self.stats.failing_since = time.monotonic()
        self._say("failing", f"exporter {self.name}: {reason}; it is tried again, what waits is kept")

    def _note_success(self) -> None:
        if self.stats.failing_since is not None:
            log.info("exporter %s works again after %.0f s", self.name, time.monotonic() - self.stats.failing_since)
            self._said.pop("failing", None)
        self.stats.failing_since = None

    def _fail(self, signal: str, items: int, reason: str, hint: str) -> None:
        self.stats.failed[signal] += items
        self.stats.last_error = reason
        if self.stats.failing_since is None:
            self.stats.failing_since = time.monotonic()
        self._say("refused", f"exporter {self.name}: {items} items of {signal} are lost: {reason}", hint)

    def _say(self, what: str, message: str, hint: str = "") -> None:
        """One line a minute for each kind of trouble."""
        now = time.monotonic()
        if now - self._said.get(what, -SAY_EVERY) >= SAY_EVERY:
            self._said[what] = now
            log.warning("%s%s", message, f" ({hint})" if hint else "")


def _items(batch: Batch) -> int:
    rows = (row for _, resource_rows in batch.resources for row in resource_rows)
    return sum(len(row.points) if isinstance(row, MetricRow) else 1 for row in rows)
