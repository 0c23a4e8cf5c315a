"""In what form an exporter's backend wants what it is sent.

The rule: exporters of the same form share what was encoded; whatever makes two requests differ stands here.
"""

from __future__ import annotations

from typing import NamedTuple

from pgsonar.config.schema import OtlpExporter, Section


class Form(NamedTuple):
    """The choices of one exporter."""

    temporality: str = "cumulative"


def form_of(config: Section) -> Form:
    """The form that a configured exporter asks for."""
    return Form(config.temporality) if isinstance(config, OtlpExporter) else Form()
