"""What can be scraped: the endpoints of `exporters.prometheus`, and the agent's own metrics.

The rule: an endpoint that another configuration leaves as it is goes on listening, and what it counts with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgsonar.config.schema import NOWHERE, Config, PrometheusExporter
from pgsonar.exporters import ExporterStats
from pgsonar.signals.rows import Batch

if TYPE_CHECKING:
    from pgsonar.exporters.prometheus import PrometheusExposition

OWN = "service.telemetry.metrics"  # the place of the endpoint that is no exporter's
FREE_WITHIN = 1.0  # seconds until a port that is given up can be listened on again


class Scraping:
    """All endpoints of a configuration, listening or trying to."""

    def __init__(self, config: Config) -> None:
        self._expositions: dict[str, PrometheusExposition] = {}  # by where they are configured
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Goes on as another configuration has it."""
        wanted = _endpoints(config)
        for key in [key for key, one in self._expositions.items() if wanted.get(key) != one.endpoint]:
            self._expositions.pop(key).close(FREE_WITHIN)
        for key in [key for key in wanted if key not in self._expositions]:
            from pgsonar.exporters.prometheus import PrometheusExposition  # noqa: PLC0415 - for those who are scraped

            self._expositions[key] = PrometheusExposition(f"{key}.endpoint", wanted[key])

    def export(self, batch: Batch) -> None:
        """Takes all metrics, for the exporters."""
        for key, exposition in self._expositions.items():
            if key != OWN:
                exposition.export(batch)

    def export_own(self, batch: Batch) -> None:
        """Takes the agent's own metrics."""
        if OWN in self._expositions:
            self._expositions[OWN].export(batch)

    def stats(self) -> dict[str, ExporterStats]:
        """What each exporter has done, by its id."""
        return {key.removeprefix("exporters."): one.stats for key, one in list(self._expositions.items()) if key != OWN}

    @property
    def problem(self) -> str | None:
        """What keeps the agent's own metrics from being scraped."""
        own = self._expositions.get(OWN)
        return f"own metrics: {own.stats.last_error}" if own is not None and own.stats.failing_since else None

    def close(self) -> None:
        """Ends all of them; nobody is waited for."""
        for exposition in self._expositions.values():
            exposition.close(0)


def _endpoints(config: Config) -> dict[str, str]:
    """By where they are configured."""
    wanted = {
        f"exporters.{name}": section.endpoint
        for name, section in config.exporters.items()
        if isinstance(section, PrometheusExporter)
    }
    own = config.telemetry.metrics.endpoint
    return wanted if own == NOWHERE else wanted | {OWN: own}
