"""What waits for one backend: encoded requests in order, by signal, in memory or in a file that survives the agent.

The rule: the bounds hold always, and what they drop, the oldest first, is returned to be counted. What is being sent is
not dropped meanwhile, so that nothing counts as both. A file that cannot be written is no reason to lose anything: the
request waits in memory, until the file takes it. Bodies are kept compressed; bounds are on what they are without.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from pgsonar.config.schema import SendingQueue
from pgsonar.exporters.encoding import Encoded
from pgsonar.signals.rows import Signal

SIGNALS: tuple[Signal, ...] = ("logs", "traces", "metrics")  # what is told of leaks goes before the figures

LARGE = 1 << 20  # bytes that are worth giving back to the disk
AT_ONCE = 64  # requests written again when a full disk has room


@dataclass(slots=True, eq=False)
class Entry:
    """A request that waits. `body` is None while the store holds it."""

    number: int
    signal: Signal
    items: int
    size: int  # bytes, uncompressed
    since: float  # s since the epoch
    body: bytes | None = None


class Store(Protocol):
    """Where the bodies of one exporter's requests survive the agent. Nothing here raises."""

    def load(self) -> list[Entry] | None:
        """What an earlier run left, the oldest first, without bodies; None while it cannot be read."""

    def put(self, entries: Collection[Entry]) -> bool:
        """Writes requests; False where that cannot be done now."""

    def body(self, number: int) -> bytes | None:
        """A request's body; None where it was lost."""

    def remove(self, number: int) -> None:
        """Forgets a request."""

    def shrink(self) -> None:
        """Gives the room of what was removed back to the disk. Takes its time."""


class Queue:
    """The requests of one exporter. Not thread-safe: its exporter's lock is held by whoever calls."""

    def __init__(self, bounds: SendingQueue, store: Store | None = None) -> None:
        self.bounds = bounds
        self._store = store
        self._lanes: dict[Signal, deque[Entry]] = {signal: deque() for signal in SIGNALS}
        self.bytes = 0
        self.waiting: Counter[Signal] = Counter()  # points, records and spans
        self._most = 0  # bytes, since it was empty
        self._is_emptied = False  # after it had grown large
        self._is_loaded = False
        self._in_memory: list[Entry] = []  # that the store could not take yet
        self._number = 0
        if store is not None:
            self._load(store)

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def items(self) -> int:
        """Points, records and spans that wait."""
        return self.waiting.total()

    def items_at_risk(self) -> int:
        """Those that would not survive the agent."""
        if self._store is None:
            return self.items()
        return sum(entry.items for entry in self._in_memory)

    def put(self, encoded: Encoded) -> None:
        """Adds a request."""
        body = zlib.compress(encoded.body, 1)
        entry = Entry(self._number + 1, encoded.signal, encoded.items, len(encoded.body), time.time(), body)
        self._append(entry)
        if self._store is not None:
            self._in_memory.append(entry)
            self._write(self._store)

    def _load(self, store: Store) -> None:
        """Takes in what an earlier run left, as soon as it can be read: before all that is here since."""
        found = store.load()
        if found is None:
            return
        self._is_loaded = True
        since, self._lanes = self._lanes, {signal: deque() for signal in SIGNALS}
        self.bytes = 0
        self.waiting.clear()
        for entry in found:
            self._append(entry)
        for entry in sorted((e for lane in since.values() for e in lane), key=attrgetter("number")):
            entry.number = self._number + 1  # the store has this run's numbers, from the run before
            self._append(entry)

    def _write(self, store: Store) -> None:
        """Gives the store what it could not take before, some at a time."""
        if not self._is_loaded:
            self._load(store)
            if not self._is_loaded:
                return
        oldest = self._in_memory[:AT_ONCE]
        if store.put(oldest):
            for entry in oldest:
                entry.body = None
            del self._in_memory[:AT_ONCE]

    def first(self, signal: Signal) -> Entry | None:
        """The oldest request of a signal."""
        lane = self._lanes[signal]
        return lane[0] if lane else None

    def read(self, entry: Entry) -> Encoded | None:
        """What is to be sent; None where the file that held it was lost."""
        body = entry.body
        if body is None and self._store is not None:
            body = self._store.body(entry.number)
        try:
            return None if body is None else Encoded(entry.signal, zlib.decompress(body), entry.items)
        except zlib.error:  # pages of a file have no checksum of their own
            return None

    def remove(self, entry: Entry) -> None:
        """A request is dealt with."""
        self._lanes[entry.signal].remove(entry)
        self.bytes -= entry.size
        self.waiting[entry.signal] -= entry.items
        if self._store is None:
            return
        if entry.body is None:
            self._store.remove(entry.number)
        else:
            self._in_memory.remove(entry)
        if not self.bytes and self._most > LARGE:
            self._most, self._is_emptied = 0, True

    def tidy(self) -> None:
        """Gives the room of a queue that had grown large back to the disk. Takes its time, and needs no lock."""
        if self._is_emptied and self._store is not None:
            self._is_emptied = False
            self._store.shrink()

    def expire(self, sending: Collection[Entry]) -> list[tuple[Entry, str]]:
        """Drops, the oldest first, what is too old or too much, and says why. What is being sent does not count."""
        allowed = time.time() - self.bounds.max_age
        most, most_bytes = self.bounds.queue_size + len(sending), self.bounds.max_bytes + sum(e.size for e in sending)
        dropped = []
        while (entry := self._oldest(sending)) is not None:
            is_too_much = len(self) > most or self.bytes > most_bytes
            if not is_too_much and entry.since >= allowed:
                break
            self.remove(entry)
            dropped.append((entry, "the queue is full" if is_too_much else "what waits has reached max_age"))
        return dropped

    def shed(self, sending: Collection[Entry]) -> list[Entry]:
        """Drops the older half of what waits in memory only, but for what is being sent; returns it."""
        mine = sorted(
            (e for lane in self._lanes.values() for e in lane if e.body is not None), key=attrgetter("number")
        )
        dropped = [entry for entry in mine[: (len(mine) + 1) // 2] if entry not in sending]
        for entry in dropped:
            self.remove(entry)
        return dropped

    def _oldest(self, sending: Collection[Entry]) -> Entry | None:
        """Only the first of a lane is ever being sent."""
        firsts = (next((e for e in lane if e not in sending), None) for lane in self._lanes.values())
        return min((e for e in firsts if e is not None), key=attrgetter("number"), default=None)

    def _append(self, entry: Entry) -> None:
        self._number = max(self._number, entry.number)
        self._lanes[entry.signal].append(entry)
        self.bytes += entry.size
        self.waiting[entry.signal] += entry.items
        self._most = max(self._most, self.bytes)
