"""Hundreds of agents: what one real agent sent, sent again by each of them as its own.

The rule: a simulated agent differs from the recorded one in what a second host would differ in (host, server, instance,
trace and span ids, times), and in nothing else. Each keeps a connection of its own open, sends on its own second of
the interval, and sends again what was not accepted.
"""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import told

_TIMES = ("start_time_unix_nano", "time_unix_nano", "observed_time_unix_nano", "end_time_unix_nano")
_OF_A_HOST = ("host.name", "host.id", "server.address")
_SENDERS = 8  # threads; each waits for one answer at a time
_AGAIN = 0.5  # seconds until what was not accepted is sent again


class Sent(NamedTuple):
    """An encoded request: its signal, what is in it, and the body as it crosses the wire."""

    signal: str
    items: int
    body: bytes


class Fleet:
    """What `agents` agents send: a request of metrics each interval, and the events and the span of `episodes`."""

    def __init__(self, recorded: list[tuple[str, bytes]], agents: int) -> None:
        """Of the recording the last request of metrics is repeated, and every event and span is taken."""
        self.agents = agents
        self._metrics = [(signal, body) for signal, body in recorded if signal == "metrics"][-1]
        self._episode = [(signal, body) for signal, body in recorded if signal != "metrics"]

    def metrics_of(self, agent: int) -> Sent:
        return _as_agent(*self._metrics, agent, 0)

    def episode_of(self, agent: int, number: int = 0) -> list[Sent]:
        """The requests of one episode from opening to span, with ids that no other episode has."""
        return [_as_agent(*request, agent, number) for request in self._episode]


def recorded(receiver: Any) -> list[tuple[str, bytes]]:
    """What a receiver of the tests was sent, for a Fleet."""
    return [(path.rpartition("/")[2], body) for path, _, body in receiver.requests]


def _as_agent(signal: str, body: bytes, agent: int, number: int) -> Sent:
    request = told.REQUESTS[signal].FromString(body)
    mask = uuid.uuid5(uuid.NAMESPACE_OID, f"{agent} {number}").bytes
    messages = list(_messages(request))
    shift = time.time_ns() - max(getattr(m, name) for m in messages for name in _TIMES if hasattr(m, name))
    for message in messages:
        _change(message, agent, mask, shift)
    items = len(list(told.rows_of(signal, told.REQUESTS[signal].FromString(body))))
    return Sent(signal, items, gzip.compress(request.SerializeToString(), 6))


def _messages(message: Any) -> Iterator[Any]:
    """A message of OTLP and all that is in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(inner)


def _change(message: Any, agent: int, mask: bytes, shift: int) -> None:
    names = message.DESCRIPTOR.fields_by_name
    for name in ("trace_id", "span_id"):
        if name in names and (given := getattr(message, name)):
            setattr(message, name, bytes(a ^ b for a, b in zip(given, mask, strict=False)))
    for name in _TIMES:
        if name in names and getattr(message, name):
            setattr(message, name, getattr(message, name) + shift)
    if message.DESCRIPTOR.name != "Resource":
        return
    for pair in message.attributes:
        if pair.key in _OF_A_HOST:
            pair.value.string_value += f"-{agent}"
        elif pair.key == "service.instance.id":
            pair.value.string_value = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{pair.value.string_value} {agent}"))


class Traffic:
    """Sends each agent's requests at its own times, each agent over its own connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self.accepted: Counter[str] = Counter()  # requests, and items by signal
        self.sent_bytes = 0
        self.repeated = 0
        self.latest = 0.0  # seconds by which the latest request was sent after its time

    def play(self, due: list[tuple[float, int, Sent]]) -> float:
        """Sends `(second, agent, request)`s; returns how long it took."""
        begun = time.monotonic()
        slices: list[list[tuple[float, int, Sent]]] = [[] for _ in range(_SENDERS)]
        for request in sorted(due, key=lambda request: request[:2]):
            slices[request[1] % _SENDERS].append(request)
        threads = [threading.Thread(target=self._send_all, args=(part, begun)) for part in slices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - begun

    def _send_all(self, due: list[tuple[float, int, Sent]], begun: float) -> None:
        connections: dict[int, http.client.HTTPConnection] = {}
        for second, agent, request in due:
            time.sleep(max(0.0, begun + second - time.monotonic()))
            late = time.monotonic() - begun - second
            repeated = self._send(connections, agent, request)
            with self._lock:
                self.accepted["requests"] += 1
                self.accepted[request.signal] += request.items
                self.sent_bytes += len(request.body)
                self.repeated += repeated
                self.latest = max(self.latest, late)
        for connection in connections.values():
            connection.close()

    def _send(self, connections: dict[int, http.client.HTTPConnection], agent: int, request: Sent) -> int:
        """Sends a request until it is accepted; returns how often it had to be sent again."""
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        for attempt in range(60):
            connection = connections.get(agent)
            if connection is None:
                connection = connections[agent] = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("POST", f"/v1/{request.signal}", request.body, headers)
                answer = connection.getresponse()
                told = answer.read()
            except (OSError, http.client.HTTPException):
                connections.pop(agent).close()
            else:
                if answer.status == 200:
                    return attempt
                if answer.status not in (429, 502, 503, 504):
                    raise AssertionError(f"{answer.status}: {json.dumps(told.decode('utf-8', 'replace'))}")
            time.sleep(_AGAIN)
        raise AssertionError("not accepted in sixty attempts")
