"""From batches of rows to encoded requests in the queues, in a thread of its own.

The rule: whoever hands a batch over never waits, and a batch is encoded once for all exporters that want it in the same
form. `settle` tells when everything handed over so far waits in the queues.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from pgsonar.exporters.encoding import Encoder
from pgsonar.exporters.forms import Form
from pgsonar.exporters.sender import Exporter
from pgsonar.signals.rows import Batch, MetricRow, Signal

log = logging.getLogger("pgsonar")

MOST = 100  # exports that have piled up behind an encoder that does not get the processor


class Outbox:
    """Encodes for the exporters of each signal. `routes` gives them with the form that each wants."""

    def __init__(self, routes: Mapping[Signal, Sequence[tuple[Exporter, Form]]]) -> None:
        self._encoders: dict[Form, Encoder] = {}  # they remember what was encoded last
        self._routes: dict[Signal, dict[Form, list[Exporter]]] = {}
        self.route(routes)
        self._batches: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._handed_over = 0
        self._done = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="pgsonar-outbox", daemon=True)
        self._thread.start()

    def route(self, routes: Mapping[Signal, Sequence[tuple[Exporter, Form]]]) -> None:
        """Other exporters from the next batch on."""
        by_form: dict[Signal, dict[Form, list[Exporter]]] = {}
        encoders: dict[Form, Encoder] = {}
        for signal, exporters in routes.items():
            for exporter, form in exporters:
                encoders[form] = self._encoders.get(form) or encoders.get(form) or Encoder(form)
                by_form.setdefault(signal, {}).setdefault(form, []).append(exporter)
        self._encoders, self._routes = self._encoders | encoders, by_form

    def export(self, batch: Batch) -> None:
        """Takes a batch."""
        with self._changed:
            self._batches.append(batch)
            self._handed_over += 1
            dropped = self._oldest_metrics() if len(self._batches) > MOST else None
            if dropped is not None:
                self._batches.remove(dropped)
                self._done += 1
            self._changed.notify_all()
        if dropped is not None:
            self.lose(dropped, "the encoder is behind")

    def _oldest_metrics(self) -> Batch | None:
        """What is told of leaks is never given up for want of time."""
        return next((batch for batch in self._batches if batch.signal == "metrics"), None)

    def settle(self, seconds: float) -> bool:
        """Waits until what was handed over is in the queues; False when that takes longer."""
        deadline = time.monotonic() + seconds
        with self._changed:
            aim = self._handed_over
            while self._done < aim:
                if not self._changed.wait(deadline - time.monotonic()):
                    return self._done >= aim
            return True

    def close(self, seconds: float) -> None:
        """Encodes what is left, and ends."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._batches and not self._closing:
                    self._changed.wait()
                if not self._batches:
                    return
                batch = self._batches.popleft()
            self._encode(batch)
            with self._changed:
                self._done += 1
                self._changed.notify_all()

    def _encode(self, batch: Batch) -> None:
        for form, exporters in self._routes.get(batch.signal, {}).items():
            try:
                requests = self._encoders[form].encode(batch)
            except Exception as error:
                log.exception("a batch of %s could not be encoded", batch.signal)
                self.lose(batch, f"could not be encoded: {error!r}", form)
                continue
            for exporter in exporters:
                for request in requests:
                    exporter.put(request)

    def lose(self, batch: Batch, reason: str, only: Form | None = None) -> None:
        """Counts a batch that is not sent to the exporters of its signal."""
        rows = [row for _, resource_rows in batch.resources for row in resource_rows]
        items = sum(len(row.points) if isinstance(row, MetricRow) else 1 for row in rows)
        for form, exporters in self._routes.get(batch.signal, {}).items():
            for exporter in exporters if only in (None, form) else ():
                exporter.lose(batch.signal, items, reason)
