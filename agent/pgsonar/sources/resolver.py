"""What the names of targets resolve to, asked in a thread of its own because a resolver may hang.

The rule: a name that does not resolve now is told, and what it resolved to before is forgotten: databases fail over.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from pgsonar.errors import PgsonarError


class Resolver:
    """Resolves some names, again and again."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def read(self) -> dict[str, str]:
        """The name by each address it has now. Raises PgsonarError when none of them resolves."""
        told: dict[str, str] = {}
        failed = []
        for name in self._names:
            try:
                told |= {str(found[4][0]): name for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
            except OSError as error:
                failed.append(f"{name}: {error.strerror}")
        if failed and not told:
            raise PgsonarError("; ".join(failed), "check receivers.sockets.targets[].address")
        return told
