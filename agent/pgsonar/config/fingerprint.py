"""A short name for a configuration, by which a fleet can be checked for who runs with which.

The rule: it tells nothing of secrets, and does not change with them: whoever knows the rest could try them out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from pgsonar.config.schema import Config
from pgsonar.config.secrets import in_its_place

_LENGTH = 12  # hexadecimal digits: 48 bits tell a fleet's configurations apart


def config_hash(config: Config) -> str:
    """The same for configurations that differ in nothing but secrets and remarks."""
    told = msgspec.to_builtins(config, enc_hook=str)
    del told["warnings"]
    text = json.dumps(_without_secrets("", told), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _without_secrets(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(key, inner) for inner in value]
    instead = in_its_place(key, value, None)
    return value if instead is None else instead
