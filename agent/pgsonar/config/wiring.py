"""Which components each signal goes through, and which extensions are on.

The rule: `service.pipelines` decides; without it every signal goes through everything declared. Whatever is declared
and not used is warned about, so that a forgotten line does not pass for a working one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pgsonar.config import unbuilt
from pgsonar.config.components import METRICS_ONLY, TYPES, Components, real_id, type_of
from pgsonar.config.presets import refused_signal, unasked
from pgsonar.config.problems import Problems, allowed_hint
from pgsonar.config.schema import SIGNALS, HealthCheck, Pipeline, Pipelines, Section

_KINDS = ("receivers", "processors", "exporters")


def wire(written: Pipelines, components: Components, problems: Problems) -> Pipelines:
    """The pipelines with every id checked."""
    given = {signal: pipeline for signal in SIGNALS if (pipeline := getattr(written, signal)) is not None}
    if given:
        wired: dict[str, Pipeline] = {
            signal: _check(signal, pipeline, components, problems) for signal, pipeline in given.items()
        }
    else:
        wired = _everything(components)
    for kind in _KINDS:
        used = {one for pipeline in wired.values() for one in getattr(pipeline, kind)}
        _warn_of_unused(kind, used, "service.pipelines", components, problems)
    return Pipelines(**wired)


def extensions_on(
    extensions: list[str] | None, components: Components, problems: Problems, *, health_by_default: bool
) -> dict[str, Section]:
    """Those that are on, by type. `extensions` is None where `service.extensions` is not written."""
    if extensions is None and health_by_default:
        found = components.of_type("extensions", "health_check")
        section = components.get("extensions", found) if found else HealthCheck()
        return {"health_check": section} if section is not None else {}
    on: dict[str, Section] = {}
    for index, extension in enumerate(extensions or []):
        key = f"service.extensions[{index}]"
        extension_type = type_of(extension)
        if extension_type not in TYPES["extensions"]:
            hint = allowed_hint(extension_type, TYPES["extensions"])
            problems.error(key, f"unknown extension {extension}", hint)
        elif extension in components.sections["extensions"]:
            section = components.get("extensions", extension)
            on |= {extension_type: section} if section is not None else {}
        elif not unbuilt.refuse_component("extensions", extension_type, key, problems):
            on[extension_type] = TYPES["extensions"][extension_type]()
    _warn_of_unused("extensions", extensions or [], "service.extensions", components, problems)
    return on


def _everything(components: Components) -> dict[str, Pipeline]:
    receivers, processors = list(components.sections["receivers"]), list(components.sections["processors"])
    exporters = list(components.sections["exporters"])
    if not exporters:
        return {}
    one_of = components.exporter_of_signal
    takers = {
        signal: [one_of[signal]] if one_of else [one for one in exporters if _takes(one, signal, components)]
        for signal in SIGNALS
    }
    return {
        signal: Pipeline(receivers=receivers, processors=processors, exporters=taking)
        for signal, taking in takers.items()
        if taking
    }


def _takes(exporter: str, signal: str, components: Components) -> bool:
    """Whether an exporter knows what to do with a signal, and wants it without being asked."""
    knows = signal == "metrics" or type_of(exporter) not in METRICS_ONLY
    return knows and signal in unasked(components.get("exporters", exporter))


def _check(signal: str, pipeline: Pipeline, components: Components, problems: Problems) -> Pipeline:
    key = f"service.pipelines.{signal}"
    checked = {kind: _known(kind, getattr(pipeline, kind), f"{key}.{kind}", components, problems) for kind in _KINDS}
    for kind in ("receivers", "exporters"):
        if not getattr(pipeline, kind):
            hint = allowed_hint("", components.sections[kind])
            problems.error(f"{key}.{kind}", f"needs at least one {kind.removesuffix('s')}", hint)
    for exporter in checked["exporters"]:
        if title := refused_signal(components.get("exporters", exporter), signal):
            problems.error(f"{key}.exporters", f"{exporter} sends to {title}, which takes no {signal}", "leave it out")
    if signal != "metrics" and all(type_of(one) != "leaks" for one in pipeline.processors):
        problems.error(
            f"{key}.processors",
            f"{signal} need the processor leaks, which makes them",
            f"write service.pipelines.{signal}.processors: [leaks]",
        )
    for exporter in checked["exporters"]:
        if signal != "metrics" and type_of(exporter) in METRICS_ONLY:
            problems.error(f"{key}.exporters", f"{exporter} takes metrics alone", f"remove {exporter} from {signal}")
    return msgspec.structs.replace(pipeline, **checked)


def _known(kind: str, ids: list[str], key: str, components: Components, problems: Problems) -> list[str]:
    known: list[str] = []
    for written_id in ids:
        component_id = real_id(kind, written_id)
        component_type = type_of(component_id)
        if component_id in known:
            problems.error(key, f"{written_id} is named twice")
        elif component_id in components.sections[kind]:
            known.append(component_id)
        elif not unbuilt.refuse_component(kind, component_type, f"{key}: {written_id}", problems):
            problems.error(key, f"{written_id} is not declared", allowed_hint(component_id, components.sections[kind]))
    return known


def _warn_of_unused(kind: str, used: Iterable[str], where: str, components: Components, problems: Problems) -> None:
    for component_id in components.sections[kind]:
        if component_id not in used and component_id not in components.undeclared:
            problems.warn(f"{kind}.{component_id}", f"declared, but not used in {where}")
