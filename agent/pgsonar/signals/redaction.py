"""What is told of clients outside this host: their addresses and user names as they are, numbered, or hashed.

The rule: findings are rewritten before they become episodes, so no event, span, sentence or line of the log holds the
address or the user of a client; metrics are rewritten as rows. Different names stay different, or leaks of two would
become one. What applications call themselves is told.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace

from pgsonar.config.schema import Redaction as Settings
from pgsonar.detectors.evidence import Evidence
from pgsonar.model import LOCAL_HOST, ClientProcess, Endpoint, Finding, Holder, Pooling
from pgsonar.signals.rows import Attributes, MetricRow
from pgsonar.tracking.connections import OTHER

Rewrite = Callable[[str], str]

_NAMELESS = frozenset({"", "?", OTHER, LOCAL_HOST, "unix socket"})  # stand for no address and no user
_REMEMBERED = 100_000
_DIGEST = 8  # bytes: 16 characters
_APPLICATION = "postgresql.application_name"
_NO_USER = re.compile(r"pid \d+")  # detectors.evidence.who
_ADDED_HOST = re.compile(r" - (\S+):\d+$")
_POOLER, _SUBNET, _ROLE = "pgsonar.pooler", "pgsonar.network.subnet", "pgsonar.limit.role"
# Evidence that holds an address and more, or a user and more.
_TELLING = ("pgsonar.evidence.title", "pgsonar.connection.key", "db.client.connection.pool.name")


class _Numbers:
    """Names in the order in which they were met. A number is given once; only the latest names are remembered."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._known: dict[str, int] = {}
        self._given = 0

    def __call__(self, name: str) -> str:
        if name not in self._known:
            self._given += 1
            self._known[name] = self._given
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
        return f"{self._word}~{self._known[name]}"


class Redaction:
    """Rewrites findings and metrics as configured."""

    def __init__(self, settings: Settings) -> None:
        self._key = (settings.key or "").encode()
        self._is_on = settings.is_on
        self._address = self._rewrite(settings.addresses, "address")
        self._user = self._rewrite(settings.users, "user")

    def _rewrite(self, mode: str, word: str) -> Rewrite:
        if mode == "keep":
            return lambda name: name
        rewrite = _Numbers(word) if mode == "redact" else self._digest
        return lambda name: name if name in _NAMELESS else rewrite(name)

    def _digest(self, name: str) -> str:
        """Keyed: all addresses of IPv4 can be hashed in minutes."""
        return hashlib.blake2b(name.encode(), digest_size=_DIGEST, key=self._key).hexdigest()

    def address(self, name: str) -> str:
        """The word for an address."""
        return self._address(name)

    def user(self, name: str) -> str:
        """The word for a user."""
        return self._user(name)

    def application(self, name: str) -> str:
        """What an application calls itself, without the address of its host."""
        return self._application(name)

    def finding(self, finding: Finding) -> Finding:
        """The finding without what is not to be told."""
        if not self._is_on:
            return finding
        return replace(
            finding,
            identity=self._identity(finding),
            address=self._address(finding.address) if finding.address else None,
            user=self._user(finding.user) if finding.user else None,
            peer=Endpoint(self._address(finding.peer.address), finding.peer.port) if finding.peer else None,
            client=self._process(finding.client),
            holders=tuple(map(self._holder, finding.holders)),
            evidence=self._evidence(finding.evidence),
        )

    def _evidence(self, evidence: Evidence) -> Evidence:
        """What holds an address among other things, rewritten; what holds more is left out."""
        told = {key: value for key, value in evidence.items() if key not in _TELLING}
        if _APPLICATION in told:
            told[_APPLICATION] = self._application(str(told[_APPLICATION]))
        if _POOLER in told:
            told[_POOLER] = self._pooler(str(told[_POOLER]))
        for key, rewrite in ((_SUBNET, self._address), (_ROLE, self._user)):
            if key in told:
                told[key] = rewrite(str(told[key]))
        return told

    def _application(self, name: str) -> str:
        """PgBouncer's application_name_add_host appends the client."""
        return _ADDED_HOST.sub(lambda found: f" - {self._address(found[1])}", name)

    def _identity(self, finding: Finding) -> str:
        """What it is made of, rewritten: an address, a user, a network, a pooler, or two of these."""
        identity = finding.identity
        if identity == finding.user:
            return self._user(identity)
        if finding.user is not None and identity == f"role {finding.user}":
            return f"role {self._user(finding.user)}"
        if identity == finding.address or identity == finding.evidence.get(_SUBNET):
            return self._address(identity)
        if identity == finding.evidence.get(_POOLER):
            return self._pooler(identity)
        user, at, place = identity.rpartition("@")
        if at:
            return f"{self._user(user)}@{place if place == finding.database else self._address(place)}"
        return identity

    def _holder(self, holder: Holder) -> Holder:
        """Of a session whose title tells nothing, the pid is all there is; of one without a client, the user."""
        user, at, address = holder.identity.rpartition("@")
        identity = f"{self._user(user)}@{self._address(address)}" if at else holder.identity
        if not at and not _NO_USER.fullmatch(identity):
            identity = self._user(identity)
        return replace(holder, identity=identity, process=self._process(holder.process))

    def _process(self, client: ClientProcess | None) -> ClientProcess | None:
        if client is None:
            return None
        return client._replace(user=self._user(client.user) if client.user else None, dialled=None)

    def _pooler(self, label: str) -> str:
        address, _, port = label.rpartition(":")
        return f"{self._address(address)}:{port}"

    def pooling(self, pooling: Pooling) -> Pooling:
        """Pools are named by their users too."""
        if not self._is_on or pooling.reading is None:
            return pooling
        pools = tuple(pool._replace(user=self._user(pool.user)) for pool in pooling.reading.pools)
        return replace(pooling, reading=replace(pooling.reading, pools=pools))

    def rows(self, rows: list[MetricRow]) -> list[MetricRow]:
        """Metrics of clients."""
        if not self._is_on:
            return rows
        return [
            row._replace(points=[point._replace(attributes=self._attributes(point.attributes)) for point in row.points])
            for row in rows
        ]

    def _attributes(self, attributes: Attributes) -> Attributes:
        rewritten = dict(attributes)
        for key, rewrite in (
            ("client.address", self._address),
            ("user.name", self._user),
            (_APPLICATION, self._application),
        ):
            if key in rewritten:
                rewritten[key] = rewrite(str(rewritten[key]))
        return rewritten
