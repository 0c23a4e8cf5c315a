"""What the schema knows and this version does not do yet. A later version deletes lines here, and nothing else.

The rule: what would change the result is refused with "not in this version", where it is written and never for a
default.
"""

from __future__ import annotations

from pgsonar.config import schema
from pgsonar.config.problems import Problems

COMPONENTS: dict[str, frozenset[str]] = {
    "receivers": frozenset(),
    "processors": frozenset({"owners"}),
    "exporters": frozenset(),
    "extensions": frozenset({"status_page"}),
}

# Section, key, and the values that are refused; None refuses every value that is not empty.
REFUSED: tuple[tuple[type[schema.Section], str, tuple[object, ...] | None], ...] = (
)


def refuse_component(kind: str, component_type: str, key: str, problems: Problems) -> bool:
    """Whether a component of this type (`kind` is receivers, processors, ...) was refused."""
    if component_type not in COMPONENTS[kind]:
        return False
    problems.error(key, f"the {kind.removesuffix('s')} {component_type} is not in this version", f"remove {key}")
    return True


def remark(section: type[schema.Section], name: str, value: object, key: str, problems: Problems) -> None:
    """Refuses a value that was written at `key`, when this version does nothing with it."""
    for owner, refused_name, refused in REFUSED:
        if not issubclass(section, owner) or name != refused_name:
            continue
        if refused is None and value not in (None, [], {}):
            problems.error(key, "is not in this version", f"remove {key}")
        elif refused is not None and value in refused:
            shown = str(value).lower() if isinstance(value, bool) else value
            problems.error(key, f"{shown} is not in this version", f"remove {key}")
