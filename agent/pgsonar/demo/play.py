"""The demonstration as it is played: what goes wrong, what must be said of it, and whether it was.

The rule: what counts is what arrived over OTLP, compared with what the demonstration itself did and when.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pgsonar.demo.clients import WireClient, error_code
from pgsonar.demo.sessions import Administrator, BusyPool
from pgsonar.errors import PgsonarError

SLOTS = 30
POOL = 6
PROMPT = 5.0  # seconds from the threshold within which a leak must be named
AFTER = {"idle_in_transaction": 3.0, "orphaned_backend": 2.0, "orphaned_backend_no_socket": 2.0, "auth_stuck": 3.0}
USERS = ["shop", "checkout", "reports", "billing"]
STUCK_USER = "legacy_etl"
ENDLESS = "select pg_sleep(600)"

Record = dict[str, Any]


@dataclass
class Leak:
    """One thing that goes wrong: what it is called, who is to blame, when it began."""

    kind: str
    story: str
    pids: set[int] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    onset: float = 0.0  # seconds since the epoch
    opened: float | None = None  # when its event arrived
    record: Record = field(default_factory=dict)
    resolved: bool = False

    @property
    def seen_after(self) -> float:
        return (self.opened or 0.0) - self.onset

    @property
    def prompt(self) -> bool:
        """Named within the promised time of its threshold."""
        return self.opened is not None and self.seen_after <= AFTER.get(self.kind, 0.0) + PROMPT


class Stage:
    """What goes wrong on a server, and what arrives of it. `say` prints a line of the story."""

    def __init__(self, port: int, say: Callable[[str], None]) -> None:
        self.leaks: dict[str, Leak] = {}
        self.unexpected: list[Record] = []
        self.critical = False
        self.exhausted = 0  # episodes of pool_exhausted
        self._port = port
        self._say = say
        self._stuck: list[WireClient] = []
        self._pool: BusyPool | None = None

    # --- what goes wrong -----------------------------------------------------------------------------------------

    @contextmanager
    def play(self, administrator: Administrator) -> Iterator[None]:
        """Plays the four leaks; all of them stand inside the block and are cleaned up behind it."""
        with ExitStack() as stack:
            self._pool = stack.enter_context(BusyPool(self._port, "shop", POOL))
            self._say(f"a healthy pool of {POOL} runs short transactions without pause (user shop)")
            stack.callback(self._leave_transaction_open().close)
            time.sleep(0.5)
            self._kill_during_query(administrator, stack)
            time.sleep(0.5)
            self._reset_with_unread_replies(administrator, stack)
            time.sleep(0.5)
            stack.callback(self._release_logins)
            self._stick_in_authentication(administrator)
            yield

    def _begin(self, leak: Leak) -> None:
        leak.onset = time.time()
        self.leaks[leak.kind] = leak
        self._say(leak.story)

    def _leave_transaction_open(self) -> WireClient:
        client = WireClient(self._port, "checkout")
        client.execute("begin")
        client.execute("update stock set n = n + 1")
        story = "checkout updates a row and never commits"
        self._begin(Leak("idle_in_transaction", story, {client.backend_pid or 0}, {client.port}))
        return client

    def _kill_during_query(self, administrator: Administrator, stack: ExitStack) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgsonar.demo.clients", str(self._port), "reports", ENDLESS],
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        line = process.stdout.readline() if process.stdout else ""
        pid, port = (int(word) for word in line.split())
        time.sleep(0.3)
        process.kill()
        process.wait()
        self._begin(Leak("orphaned_backend", "the client of reports is killed during a query", {pid}, {port}))
        stack.callback(administrator.terminate, pid)

    def _reset_with_unread_replies(self, administrator: Administrator, stack: ExitStack) -> None:
        client = WireClient(self._port, "billing")
        pid, port = client.backend_pid or 0, client.port
        client.send_query("select generate_series(1, 100)")
        time.sleep(0.4)  # the reply lies unread, and the scanner has seen the connection
        client.send_query(ENDLESS)
        time.sleep(0.2)
        client.reset()
        story = "the client of billing dies with replies unread: reset, no socket is left"
        self._begin(Leak("orphaned_backend_no_socket", story, {pid}, {port}))
        stack.callback(administrator.terminate, pid)

    def _stick_in_authentication(self, administrator: Administrator) -> None:
        leak = Leak("auth_stuck", f"{STUCK_USER} begins to log in, again and again, and never sends its password")
        self._begin(leak)
        while (code := self._fresh_connection()) is None:
            client = WireClient(self._port, STUCK_USER, login=False)
            self._stuck.append(client)
            leak.ports.add(client.port)
            if len(self._stuck) > 2 * SLOTS:
                raise PgsonarError("the server never ran out of slots", "is max_connections of the demo's server 30?")
            time.sleep(0.03)
        self._say(f"a new client, superuser even, is refused with {code} (too many clients)")
        self._say(f"pg_stat_activity shows {administrator.sessions()} sessions; {SLOTS} slots are taken")

    def _fresh_connection(self) -> str | None:
        """The SQLSTATE that refuses a superuser's fresh connection, None when it was let in."""
        try:
            client = WireClient(self._port, "postgres", login=False)
            while True:
                kind, body = client.message()
                if kind == b"E":
                    return error_code(body)
                if kind == b"Z":
                    client.close()
                    return None
        except ConnectionError:
            return None

    def _release_logins(self) -> None:
        for client in self._stuck:
            client.socket.close()

    @property
    def healthy_transactions(self) -> int:
        """How many transactions the healthy pool has run meanwhile."""
        return self._pool.transactions if self._pool is not None else 0

    # --- what is said of it --------------------------------------------------------------------------------------

    def hear(self, record: Record) -> None:
        """Takes in one leak event as it arrives over OTLP."""
        attributes = record["attributes"]
        kind, name = attributes["pgsonar.leak.kind"], record["event_name"]
        if name != "pgsonar.leak.updated" or attributes["pgsonar.leak.fired_because"] == "severity":
            self._say(f"pgsonar: {record['body']}")
        if kind == "pool_exhausted":
            self.exhausted += name == "pgsonar.leak.opened"
            self.critical |= attributes["pgsonar.leak.severity"] == "critical"
            return
        leak = self.leaks.get(kind)
        if leak is None or not _names(record, leak):
            self.unexpected.append(record)
        elif name == "pgsonar.leak.opened":
            if leak.opened is not None:
                self.unexpected.append(record)
            leak.opened, leak.record = time.time(), record
        elif name == "pgsonar.leak.resolved":
            leak.resolved = True

    @property
    def all_named(self) -> bool:
        return len(self.leaks) == len(AFTER) and all(leak.opened for leak in self.leaks.values()) and self.critical

    @property
    def all_resolved(self) -> bool:
        return all(leak.resolved for leak in self.leaks.values())

    def complaints(self) -> list[str]:
        """What was not said as it should have been; empty when all is well."""
        wrong = [f"{kind} was not named" for kind in AFTER if kind not in self.leaks or self.leaks[kind].opened is None]
        wrong += [
            f"{leak.kind} was named after {leak.seen_after:.1f} s, promised is {AFTER[leak.kind] + PROMPT:.1f} s"
            for leak in self.leaks.values()
            if leak.opened is not None and not leak.prompt
        ]
        if self.exhausted != 1:
            wrong.append(f"{self.exhausted} episodes of pool_exhausted were opened, not 1")
        if not self.critical:
            wrong.append("pool_exhausted did not reach critical")
        wrong += [f"{leak.kind} was not resolved" for leak in self.leaks.values() if leak.opened and not leak.resolved]
        return wrong + [f"nobody did this: {record['body']}" for record in self.unexpected]


def _names(record: Record, leak: Leak) -> bool:
    """Whether a record blames the backends or the client ports that are to blame, and no others."""
    for member in record["attributes"]["pgsonar.leak.member_list"]:
        pid, _, port, _ = member.split()
        if leak.pids and int(pid) not in leak.pids:
            return False
        # A login that opens after the record was made is not in the list yet; one that is must be ours.
        if leak.ports and int(port) not in leak.ports:
            return False
    return True
