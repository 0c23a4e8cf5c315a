"""What is told of clients outside this host: their addresses and user names as they are, numbered, or hashed.

The rule: findings are rewritten before they become episodes, so no event, span, sentence or line of the log can hold
what was taken out; metrics are rewritten as rows. Different names stay different, or leaks of two would become one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from pgsonar.config.schema import Redaction as Settings
from pgsonar.connections import OTHER
from pgsonar.model import LOCAL_HOST, Endpoint, Finding, Pooling
from pgsonar.signals.rows import Attributes, MetricRow

Rewrite = Callable[[str], str]

_NAMELESS = frozenset({"", "?", OTHER, LOCAL_HOST, "unix socket"})  # stand for no address and no user
_DIGEST = 8  # bytes: 16 characters
_TELLING = ("pgsonar.evidence.title", "pgsonar.connection.key")  # evidence that holds both


class _Numbers:
    """Names in the order in which they were met. They last as long as the agent."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._known: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        return f"{self._word}~{self._known.setdefault(name, len(self._known) + 1)}"


class Redaction:
    """Rewrites findings and metrics as configured."""

    def __init__(self, settings: Settings) -> None:
        self._key = (settings.key or "").encode()
        self.is_on = (settings.addresses, settings.users) != ("keep", "keep")
        self._address = self._rewrite(settings.addresses, "client")
        self._user = self._rewrite(settings.users, "user")

    def _rewrite(self, mode: str, word: str) -> Rewrite:
        if mode == "keep":
            return lambda name: name
        rewrite = _Numbers(word) if mode == "redact" else self._digest
        return lambda name: name if name in _NAMELESS else rewrite(name)

    def _digest(self, name: str) -> str:
        """Keyed: all addresses of IPv4 can be hashed in minutes."""
        return hashlib.blake2b(name.encode(), digest_size=_DIGEST, key=self._key).hexdigest()

    def finding(self, finding: Finding) -> Finding:
        """The finding without what is not to be told."""
        if not self.is_on:
            return finding
        client = finding.client
        return replace(
            finding,
            identity=self._identity(finding),
            address=self._address(finding.address) if finding.address else None,
            user=self._user(finding.user) if finding.user else None,
            peer=Endpoint(self._address(finding.peer.address), finding.peer.port) if finding.peer else None,
            client=client._replace(user=self._user(client.user) if client.user else None, dialled=None)
            if client
            else None,
            evidence={key: value for key, value in finding.evidence.items() if key not in _TELLING},
        )

    def _identity(self, finding: Finding) -> str:
        """It is `user@address`, an address or a user; see detectors.evidence.who."""
        user, at, address = finding.identity.rpartition("@")
        if at:
            return f"{self._user(user)}@{self._address(address)}"
        if address == finding.user:
            return self._user(address)
        return self._address(address) if address == finding.address else address

    def pooling(self, pooling: Pooling) -> Pooling:
        """Pools are named by their users too."""
        if not self.is_on or pooling.reading is None:
            return pooling
        pools = tuple(pool._replace(user=self._user(pool.user)) for pool in pooling.reading.pools)
        return replace(pooling, reading=replace(pooling.reading, pools=pools))

    def rows(self, rows: list[MetricRow]) -> list[MetricRow]:
        """Metrics of clients."""
        if not self.is_on:
            return rows
        return [
            row._replace(points=[point._replace(attributes=self._attributes(point.attributes)) for point in row.points])
            for row in rows
        ]

    def _attributes(self, attributes: Attributes) -> Attributes:
        rewritten = dict(attributes)
        for key, rewrite in (("client.address", self._address), ("user.name", self._user)):
            if key in rewritten:
                rewritten[key] = rewrite(str(rewritten[key]))
        return rewritten
