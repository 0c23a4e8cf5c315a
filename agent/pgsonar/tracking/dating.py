"""How old what one look finds is: TCP_INFO and a login remember what happened before anybody looked.

The rule: never older than is certain. A transaction idles at least since the last byte went either way; a client's FIN
is at least as old as its last acknowledgement; a connection began no later than anything that was heard on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.model import Backend, Connection
from pgsonar.tracking import connections as sockets
from pgsonar.tracking import stillness


def date_back(connections: Iterable[Connection], backends: Iterable[Backend]) -> None:
    """Gives what stood already at first sight the age that its details, or its session, tell.

    The backends first: what was met with its connection is dated by that.
    """
    for backend in backends:
        stillness.note_age(backend)
    for connection in connections:
        sockets.note_age(connection)
