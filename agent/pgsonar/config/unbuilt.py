"""What the schema knows and this version does not do yet. A later version deletes lines here, and nothing else.

The rule: what would change the result is refused with "not in this version", where it is written.
"""

from __future__ import annotations

from pgsonar.config.problems import Problems

COMPONENTS: dict[str, frozenset[str]] = {
    "receivers": frozenset(),
    "processors": frozenset({"owners"}),
    "exporters": frozenset(),
    "extensions": frozenset({"status_page"}),
}


def refuse_component(kind: str, component_type: str, key: str, problems: Problems) -> bool:
    """Whether a component of this type (`kind` is receivers, processors, ...) was refused."""
    if component_type not in COMPONENTS[kind]:
        return False
    problems.error(key, f"the {kind.removesuffix('s')} {component_type} is not in this version", f"remove {key}")
    return True
