"""Which values of a configuration are secrets, and what is shown in their place.

The rule: a value under a key of the list is one, and so is what a URL holds besides its place. A reference to a
variable is shown as it was written, because it tells where the secret lies and reads back as the same.
"""

from __future__ import annotations

import re

from pgsonar.config.addresses import display

_KEYS = {"headers", "password", "password_command"}
# Long enough to be accepted as a key of service.telemetry.redaction, so that what is printed stays a configuration.
REDACTED = "[redacted: --show-secrets]"
# With a default a reference may hold the secret itself; before it nothing but the scheme of an Authorization header.
_SAFE = re.compile(r"((Basic|Bearer|Api-?Key|Api-?Token)\s+)?\$\{env:[A-Za-z_][A-Za-z0-9_]*\}", re.IGNORECASE)


def may_be_secret(key: str) -> bool:
    """Whether an error must not quote the value of a key. `redaction` holds a key besides its words."""
    return any(part in _KEYS or part == "redaction" for part in key.split("."))


def in_its_place(key: str, value: object, written: str | None) -> str | None:
    """What is shown instead of a value, or None where it can be shown. `written` is its text with references."""
    if not isinstance(value, str):
        return None
    is_secret = any(part in _KEYS for part in key.split(".")) or key.endswith(".redaction.key")
    shown = REDACTED
    if not is_secret and ("://" in value or key.endswith(("endpoint", "_url"))):
        shown = display(value)
        is_secret = shown != value
    if not is_secret:
        return None
    return written if written is not None and _SAFE.fullmatch(written) else shown
