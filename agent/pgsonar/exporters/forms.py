"""In what form an exporter's backend wants what it is sent.

The rule: exporters of the same form share what was encoded; whatever makes two requests differ stands here.
"""

from __future__ import annotations

from typing import NamedTuple

from pgsonar.config.presets import PRESETS, Size, Sizes
from pgsonar.config.schema import OtlpExporter, Section
from pgsonar.signals.rows import Kind, MetricRow, Signal


class Form(NamedTuple):
    """The choices of one exporter."""

    temporality: str = "cumulative"
    profile: str = "standard"
    on_points: tuple[str, ...] = ()  # attributes of the resource that each point repeats
    value_length: int | None = None  # characters of an attribute of an event or a span
    sizes: Sizes = Sizes()

    def is_delta(self, kind: Kind) -> bool:
        """Whether metrics of a kind tell what they have grown by.

        `lowmemory` is OpenTelemetry's word for delta where the SDK records and cumulative where it reads: all that
        pgsonar counts is read, and its histograms are counted by others.
        """
        if kind == "histogram":
            return self.temporality in ("delta", "lowmemory")
        return kind == "counter" and self.temporality == "delta"

    def carries(self, row: MetricRow) -> bool:
        """Whether the profile has a place for a metric."""
        if self.profile == "lean":
            return row.folded is not None
        return self.profile == "full" or not row.only_full

    def size(self, signal: Signal) -> Size:
        """How large a request may be."""
        size: Size = getattr(self.sizes, signal)
        return size


def form_of(config: Section) -> Form:
    """The form that a configured exporter asks for."""
    if not isinstance(config, OtlpExporter):
        return Form()
    form = Form(config.temporality, config.profile)
    if config.preset is None:
        return form
    preset = PRESETS[config.preset]
    sizes = preset.sizes if config.compression == "gzip" else Sizes(*map(Size.unpacked, preset.sizes))
    return form._replace(on_points=preset.on_points, value_length=preset.value_length, sizes=sizes)
