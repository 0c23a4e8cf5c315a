"""A scrape endpoint: the last batch of metrics, for Prometheus to fetch.

The rule: the pipeline hands a batch over and goes on; rendering, and listening anew where the port was in use, are done
in threads of the endpoint. A series that leaves the batch leaves the answer, and a batch that no other follows is not
told for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgsonar.exporters.sender import ExporterStats
from pgsonar.model import Resource
from pgsonar.serving import Answer, LocalServer
from pgsonar.signals.rows import AttributeValue, Batch, Exemplar, MetricRow, Point

if TYPE_CHECKING:
    from pgsonar.exporters.exposition import Rendered, Resources

log = logging.getLogger("pgsonar")

LISTEN_AGAIN = 10.0  # seconds until a port that was in use is tried again
STALE_AFTER = 300.0  # seconds without another batch, or three times what lay between the last two
_PATH = "/metrics"
_Series = tuple[tuple[str, AttributeValue], ...]
_Exemplars = dict[tuple[Resource, str], dict[_Series, tuple[Exemplar, ...]]]  # by whose they are and their metric
_OPENMETRICS = "application/openmetrics-text"


@dataclass(slots=True)
class _Held:
    """A batch, and what it has been rendered to, by whether that is OpenMetrics."""

    resources: Resources = field(default_factory=list)
    stale_at: float = 0.0  # monotonic
    rendered: dict[bool, Rendered] = field(default_factory=dict)


class PrometheusExposition:
    """Serves what it was handed last at `host:port`. `key` is where that is configured."""

    def __init__(self, key: str, endpoint: str) -> None:
        self.stats = ExporterStats()
        self._key = key
        self.endpoint = endpoint
        self._held = _Held()
        self._exemplars: _Exemplars = {}
        self._taken_at = time.monotonic()
        self._rendering = threading.Lock()
        self._closing = threading.Event()
        self._server = self._listen()
        self._thread = threading.Thread(target=self._work, name=f"pgsonar-{key}", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int | None:
        """What it listens on; None while it cannot."""
        return self._server.port if self._server is not None else None

    def export(self, batch: Batch) -> None:
        """Puts a batch in the place of the one before."""
        resources = [(r, [row for row in rows if isinstance(row, MetricRow)]) for r, rows in batch.resources]
        before, self._exemplars = self._exemplars, {}
        resources = [(r, [self._recall(r, row, before) for row in rows]) for r, rows in resources]
        last, self._taken_at = self._taken_at, time.monotonic()
        self._held = _Held(resources, self._taken_at + max(STALE_AFTER, 3 * (self._taken_at - last)))
        self.stats.sent["metrics"] += sum(len(row.points) for _, rows in resources for row in rows)

    def _recall(self, resource: Resource, row: MetricRow, before: _Exemplars) -> MetricRow:
        """The row with the exemplars of earlier batches: each is in one batch only, and a scrape may come late."""
        new = {_series(point): point.exemplars for point in row.points if point.exemplars}
        known = before.get((resource, row.name), {}) | new
        if not known:
            return row
        self._exemplars[resource, row.name] = known
        points = [point._replace(exemplars=known.get(_series(point), ())) for point in row.points]
        return row._replace(points=points)

    def close(self, seconds: float) -> None:
        """Listens no more, within half a second, for which it is waited as long as is said."""
        self._closing.set()
        self._thread.join(seconds)

    def _listen(self) -> LocalServer | None:
        try:
            server = LocalServer(self._key, self.endpoint, self._answer)
        except OSError as error:
            if self.stats.failing_since is None:
                self.stats.failing_since = time.monotonic()
                self.stats.last_error = f"cannot listen at {self.endpoint}: {(error.strerror or str(error)).lower()}"
                log.warning("%s (set %s to another port); it is tried again", self.stats.last_error, self._key)
            return None
        if self.stats.failing_since is not None:
            self.stats.failing_since = None
            log.info("listening at %s now", self.endpoint)
        return server

    def _work(self) -> None:
        while self._server is None:
            if self._closing.wait(LISTEN_AGAIN):
                return
            self._server = self._listen()
        self._server.serve(self._closing)

    def _answer(self, path: str, accept: str) -> Answer:
        if path != _PATH:
            return Answer(404, "text/plain; charset=utf-8", f"metrics are at {_PATH}\n".encode())
        is_openmetrics = _OPENMETRICS in accept
        held = self._held
        if time.monotonic() > held.stale_at:
            held = _Held()
        with self._rendering:  # each batch once, however many scrape
            if is_openmetrics not in held.rendered:
                from pgsonar.exporters.exposition import render  # noqa: PLC0415 - for those who are scraped

                held.rendered[is_openmetrics] = render(held.resources, openmetrics=is_openmetrics)
        return Answer(200, *held.rendered[is_openmetrics])


def _series(point: Point) -> _Series:
    """What tells a point from the others of its metric."""
    return tuple(sorted(point.attributes.items()))
