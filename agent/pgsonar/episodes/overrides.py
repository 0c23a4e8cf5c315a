"""What the configuration says of a finding: whether it counts, from when on, how severe it is.

The rule: the first override that matches wins, and what it does not say is as for the kind. A finding that is silenced
is as if nobody had found it, until the silence ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from pgsonar.config.schema import LeaksProcessor, Match, Override
from pgsonar.detectors import Rules
from pgsonar.model import Finding, Server, Severity


class Overrides:
    """Settles findings by the rules and by `processors.leaks.overrides`."""

    def __init__(self, rules: Rules, leaks: LeaksProcessor) -> None:
        self._rules = {rule.kind: rule for rule in rules.all}
        self._overrides = leaks.overrides
        self.silenced: Counter[tuple[str, str]] = Counter()  # findings held back at the last look: (server, kind)

    def settle(self, findings: Iterable[Finding], servers: Mapping[str, Server], unix: int) -> list[Finding]:
        """The findings that count, with their `after` and severity."""
        self.silenced.clear()
        settled = (self._settle(finding, servers[finding.server], unix) for finding in findings)
        return [finding for finding in settled if finding is not None]

    def _settle(self, finding: Finding, server: Server, unix: int) -> Finding | None:
        rule = self._rules[finding.kind]
        is_on, is_shadow, after, severity = rule.is_on, rule.is_shadow, rule.after, rule.severity
        for override in self._overrides:
            if not _matches(override, finding, server) or _has_passed(override, unix):
                continue
            if override.silence_until is not None and unix < override.silence_until:
                self.silenced[finding.server, finding.kind] += 1
                return None
            is_on = is_on if override.enabled is None else override.enabled
            is_shadow = is_shadow if override.shadow is None else override.shadow
            after = after if override.after is None else rule.nanoseconds(override.after)
            severity = severity if override.severity is None else Severity[override.severity.upper()]
            break
        if not is_on:
            return None
        chosen = Severity.INFO if is_shadow else finding.severity if severity is None else severity
        if (chosen, after, is_shadow) == (finding.severity, finding.after, finding.is_shadow):
            return finding
        return replace(finding, severity=chosen, after=after, is_shadow=is_shadow)


def _has_passed(override: Override, unix: int) -> bool:
    """Whether all it said was a silence, and that has ended."""
    says = (override.enabled, override.after, override.severity, override.shadow)
    return override.silence_until is not None and unix >= override.silence_until and says == (None,) * len(says)


def _matches(override: Override, finding: Finding, server: Server) -> bool:
    if override.kinds and finding.kind not in override.kinds:
        return False
    match, client = override.match, finding.client
    application = finding.evidence.get("postgresql.application_name")
    names: dict[str, Iterable[object]] = {
        "server": (server.name, server.label, server.id),
        "database": (finding.database,),
        "user": (finding.user,),
        "application": (application,),
        "client": (finding.address, *((client.command, client.unit) if client is not None else ())),
    }
    return all(_is_one(getattr(match, key), names[key]) for key in Match.__struct_fields__)


def _is_one(glob: str | None, names: Iterable[object]) -> bool:
    return glob is None or any(name is not None and fnmatchcase(str(name), glob) for name in names)
