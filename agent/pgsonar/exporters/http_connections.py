"""Kept HTTP connections that another thread can end: urllib3's own cannot be interrupted.

The rule: one thread sends, any thread may end it, and what is ended stays so. What is done within a deadline is cut off
at it: urllib3 bounds each wait for the other side, but not how many there are. Nothing is retried and no redirect is
followed here.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pgsonar.exporters.delivery import ENDED
from pgsonar.exporters.proxies import Proxy

# A peer that is gone without a word is noticed within a minute, before the next request waits for it in vain.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Connections:
    """The connections of one transport. `opened` counts them; `is_ended` is set for good.

    `is_late` is set when the deadline of what was done last has passed.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.is_ended = False
        self.is_late = False
        self._open: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()  # a connection gives up its own before an answer's end
        self._deadline: threading.Timer | None = None
        self._lock = threading.Lock()  # so that a deadline never cuts off what comes after it

    def pools(
        self, proxy: Proxy | None, context: ssl.SSLContext | None, server_name: str | None, timeout: float
    ) -> urllib3.PoolManager:
        """Pools of connections to any host, directly or through a proxy."""
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(total=timeout),
            "retries": False,
            "socket_options": [*HTTPConnection.default_socket_options, *_KEEPALIVE],
            "ssl_context": context,
            "server_hostname": server_name,
        }
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            login = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            manager = urllib3.ProxyManager(proxy.url, proxy_headers=login, proxy_ssl_context=context, **options)
        kinds = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
        makers: dict[str, Any] = {scheme: partial(self._pool, kind) for scheme, kind in kinds.items()}
        manager.pool_classes_by_scheme = makers
        return manager

    def _pool(self, kind: type[HTTPConnectionPool], *args: Any, **options: Any) -> HTTPConnectionPool:
        pool = kind(*args, **options)
        pool.ConnectionCls = type("Watched", (_Watched, kind.ConnectionCls), {"connections": self})
        return pool

    def opens(self, connection: HTTPConnection) -> None:
        """Takes note of a connection that is about to be made."""
        self.go_on()
        self.opened += 1
        self._open.add(connection)

    def holds(self, connection: HTTPConnection) -> None:
        """Takes note of a connection that has been made."""
        if connection.sock is not None:
            self._sockets.add(connection.sock)
        self.go_on()

    def go_on(self) -> None:
        """Raises an error when the connections have been ended, or the deadline has passed."""
        if self.is_ended:
            raise ConnectionAbortedError(ENDED)
        if self.is_late:
            raise TimeoutError("timed out")

    def end(self) -> None:
        """Wakes whoever waits for an answer, and lets nobody begin anew."""
        self.is_ended = True
        self._shut()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cuts off what is done inside when it takes longer."""
        self.is_late = False
        timer = self._deadline = threading.Timer(seconds, self._cut_off)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._deadline = None

    def _cut_off(self) -> None:
        with self._lock:
            if self._deadline is threading.current_thread():
                self.is_late = True
                self._shut()

    def _shut(self) -> None:
        for held in {*self._sockets, *(connection.sock for connection in list(self._open))}:
            # Behind an https:// proxy the socket lies within a transport of TLS in TLS.
            sock: Any = getattr(held, "socket", held)
            if sock is None:
                continue
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not that of ssl: it is for the thread that reads
            except OSError:  # closed already
                continue


class _Watched:
    """Goes before a connection's class: tells of it before it is made."""

    connections: Connections

    def connect(self) -> None:
        self.connections.opens(cast("HTTPConnection", self))
        super().connect()  # type: ignore[misc]
        self.connections.holds(cast("HTTPConnection", self))
