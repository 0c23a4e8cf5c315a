"""What stands between an agent and its backend, and fails on purpose.

The rule: it knows bytes, and so much HTTP as it takes to refuse a request politely. It is told what to do to all that
passes from now on; what is under way is cut whenever that changes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from enum import Enum
from types import TracebackType
from typing import Self


class Fault(Enum):
    """What happens to a connection."""

    NONE = "passes"
    CUT = "reset at once"
    SLOW = "every piece is held up for a second"
    SILENT = "the backend is reached, and its answer lost: what was sent must be sent again"
    BUSY = "503 with Retry-After"
    LIMIT = "429 without it"


_ANSWERS = {
    Fault.BUSY: b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    Fault.LIMIT: b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}
_HOLD_UP = 1.0  # seconds
_PIECE = 1 << 16


class Proxy:
    """Listens on `port` of 127.0.0.1 and passes on to another one; `hits` counts what each fault befell."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._fault = Fault.NONE
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.hits = dict.fromkeys(Fault, 0)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.become(Fault.CUT)

    def become(self, fault: Fault) -> None:
        """Does this to everything from now on, and ends what is under way."""
        with self._lock:
            self._fault = fault
            under_way, self._open = self._open, set()
        for connection in under_way:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            fault = self._fault
            self._open.add(client)
            self.hits[fault] += 1
        with client, contextlib.suppress(OSError):
            if fault in _ANSWERS:
                _read_request(client)
                client.sendall(_ANSWERS[fault])
            elif fault is not Fault.CUT:
                self._pass_on(client, fault)
        with self._lock:
            self._open.discard(client)

    def _pass_on(self, client: socket.socket, fault: Fault) -> None:
        with socket.create_connection(("127.0.0.1", self._target), 5) as backend:
            with self._lock:
                self._open.add(backend)
            back = threading.Thread(target=_copy, args=(backend, client, fault), daemon=True)
            back.start()
            _copy(client, backend, Fault.SLOW if fault is Fault.SLOW else Fault.NONE)
            back.join(5)
            with self._lock:
                self._open.discard(backend)


def _copy(source: socket.socket, to: socket.socket, fault: Fault) -> None:
    """Passes bytes on until one side ends; an answer that is to be lost ends the connection instead."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            if fault is Fault.SILENT:
                break
            if fault is Fault.SLOW:
                time.sleep(_HOLD_UP)
            to.sendall(piece)
    for side in (source, to):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


def _read_request(client: socket.socket) -> None:
    """Reads one request whole: who answers before that resets the connection instead."""
    head, _, body = b"", b"", b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(_PIECE)
        if not piece:
            return
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    left = length - len(body)
    while left > 0 and (piece := client.recv(_PIECE)):
        left -= len(piece)
