"""What a login tells of a server: sessions, who blocks whom, limits, settings, how sessions ended.

The rule: a catalog that is locked costs names and limits and nothing else, because what changes all the time is read
without touching a catalog. Statements stand in `sql/`, those that differ by version with the first major they suit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Literal, TypeVar

from pgsonar.errors import LoginError
from pgsonar.model import DatabaseReading, Endpoint, Limits, Session, SessionCounts
from pgsonar.sources.limits import CHILDREN, child_limit
from pgsonar.sources.login import Login, Row

OFTEN = 60.0  # seconds between two readings of names, limits and settings
_IDLE = ("idle in transaction", "idle in transaction (aborted)")
_DIRECTORY = files("pgsonar.sources") / "sql"
_LOCKED = "catalogs are locked: names and limits are those read before"

Told = TypeVar("Told")


@cache
def statement(name: str, major: int = 0) -> str:
    """The text of `sql/NAME.sql`, or of the newest `sql/NAME-MAJOR.sql` that the server is not too old for."""
    majors = [
        number
        for entry in _DIRECTORY.iterdir()
        if entry.name.startswith(f"{name}-") and (number := int(entry.name[len(name) + 1 : -4])) <= major
    ]
    return (_DIRECTORY / (f"{name}-{max(majors)}.sql" if majors else f"{name}.sql")).read_text("utf-8")


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class ActivityReader:
    """Reads one server, again and again."""

    def __init__(self, login: Login, query_text: Literal["none", "traceparent", "normalized"] = "none") -> None:
        self._login = login
        self._query_text = query_text
        self._generation = 0
        self._server: Row = {}
        self._server_at = 0
        self._settings: dict[str, Row] = {}
        self._roles: dict[int, Row] = {}
        self._databases: dict[int, Row] = {}
        self._next = 0.0  # monotonic
        self._missing: list[str] = []

    def read(self) -> DatabaseReading:
        """One complete look. Raises LoginError."""
        begun = _now()
        is_standby = self._login.ask("select pg_is_in_recovery() as yes")[0]["yes"]  # connects, if need be
        if self._generation != self._login.generation:
            self._meet()
        if time.monotonic() >= self._next:
            self._read_seldom()
        rows = self._login.ask(statement("sessions"), {"query_text": self._query_text})
        at = _now()
        if any(row["user_id"] not in self._roles for row in rows if row["user_id"]):
            self._read_names()
        locks = self._locks([row["pid"] for row in rows if row["state"] in _IDLE])
        return DatabaseReading(
            begun=begun,
            at=at,
            endpoint=Endpoint(self._login.host, self._login.port),
            own_pid=self._server["own_pid"],
            started=self._server_at - self._server["age"] * 1000,
            port=self._number("port"),
            system_identifier=self._server["system_identifier"],
            version=self._server["version"].split(" ")[0],
            role="standby" if is_standby else "primary",
            limits=self._limits(),
            sessions=tuple(self._session(row, at, locks) for row in rows),
            sees_all=bool(self._server["sees_all"]),
            settings={name: f"{row['setting']}{row['unit'] or ''}" for name, row in self._settings.items()},
            role_limits=_limited(self._roles),
            database_limits=_limited(self._databases),
            counts={
                row["name"]: SessionCounts(row["sessions"], row["abandoned"], row["fatal"], row["killed"])
                for row in self._databases.values()
                if row["sessions"] is not None
            },
            missing=tuple(self._missing),
        )

    @property
    def _major(self) -> int:
        return int(self._server["version_number"]) // 10000

    def _meet(self) -> None:
        """Learns which server a new connection leads to: after a failover it may be another one."""
        self._server, self._server_at = self._login.ask(statement("server"))[0], _now()
        self._generation = self._login.generation
        self._settings, self._roles, self._databases = {}, {}, {}
        self._next = 0.0

    def _read_seldom(self) -> None:
        self._missing = [] if self._server["sees_all"] else ["sessions of other roles: grant pg_monitor to it"]
        self._settings = {row["name"]: row for row in self._login.ask(statement("settings"))}
        self._next = time.monotonic() + OFTEN
        self._read_names()

    def _read_names(self) -> None:
        """Names and limits of roles and databases; while a catalog is locked the old ones stand."""
        self._roles = self._patiently(lambda: _by_id(self._login.ask(statement("roles")))) or self._roles
        read = statement("databases", self._major)
        self._databases = self._patiently(lambda: _by_id(self._login.ask(read))) or self._databases

    def _patiently(self, ask: Callable[[], Told]) -> Told | None:
        try:
            return ask()
        except LoginError as error:
            if error.state not in {"55P03", "57014"}:  # lock_timeout, statement_timeout
                raise
            if _LOCKED not in self._missing:
                self._missing.append(_LOCKED)
            self._next = 0.0
            return None

    def _locks(self, pids: list[int]) -> dict[int, int]:
        if not pids:
            return {}
        return {row["pid"]: row["locks"] for row in self._login.ask(statement("locks"), {"pids": pids})}

    def _limits(self) -> Limits:
        reserved = sum(self._number(name) or 0 for name in self._settings if name.endswith("reserved_connections"))
        settings = {name: self._number(name) or 0 for name in ("max_connections", *CHILDREN)}
        return Limits(self._number("max_connections"), reserved, "login", children=child_limit(self._major, settings))

    def _number(self, name: str) -> int | None:
        return int(self._settings[name]["setting"]) if name in self._settings else None

    def _session(self, row: Row, at: int, locks: dict[int, int]) -> Session:
        port = row["client_port"]
        return Session(
            pid=row["pid"],
            kind=row["backend_type"] or "unknown",  # of other roles it is not for everybody to see
            started=_ago(at, row["age"]) or 0,
            user=_name(self._roles, row["user_id"]),
            database=_name(self._databases, row["database_id"]),
            application=_readable(row["application_name"]) or None,
            client_address=row["client_address"],
            client_port=port if port is not None and port >= 0 else None,
            state=row["state"],
            state_since=_ago(at, row["state_age"]),
            transaction_since=_ago(at, row["transaction_age"]),
            wait_event_type=row["wait_event_type"],
            wait_event=row["wait_event"],
            blocked_by=tuple(row["blocked_by"] or ()),
            locks=locks.get(row["pid"], 0) if row["state"] in _IDLE else None,
            query_text=_readable(row["query_text"]),
            is_superuser=bool(self._roles.get(row["user_id"], {}).get("is_superuser")),
        )


def _by_id(rows: list[Row]) -> dict[int, Row]:
    return {row["id"]: row for row in rows}


def _name(rows: dict[int, Row], number: int | None) -> str | None:
    return _readable(rows[number]["name"]) if number in rows else None


def _limited(rows: dict[int, Row]) -> dict[str, int]:
    return {row["name"]: row["connection_limit"] for row in rows.values() if row["connection_limit"] >= 0}


def _ago(at: int, age: int | None) -> int | None:
    """The instant so many microseconds before, on our clock: the server's own is not asked for the time of day."""
    return None if age is None else at - age * 1000


def _readable(text: str | None) -> str | None:
    r"""Names are chosen by others: control characters escaped as \xNN."""
    return None if text is None else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
