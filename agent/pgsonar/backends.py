"""The children of the postmasters followed in time.

The rule: a title alone proves nothing. A transaction of short statements shows `idle in transaction` in every sample,
so a backend counts as still only since the last time its title, its voluntary context switches or its queues moved.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgsonar.model import Activity, Backend, BackendSighting

LOGIN_ACTIVITIES = frozenset({Activity.AUTHENTICATION, Activity.STARTUP, Activity.INITIALIZING})


class BackendTable:
    """Backends of every server. Their identity is (server, pid, start time), because pids return."""

    def __init__(self) -> None:
        self._backends: dict[str, dict[tuple[int, int], Backend]] = {}

    def observe(self, server: str, sightings: Iterable[BackendSighting]) -> None:
        """Takes one complete look at the children of a server in; who is not in it has ended."""
        known = self._backends.get(server, {})
        present: dict[tuple[int, int], Backend] = {}
        for sighting in sightings:
            key = sighting.pid, sighting.started
            backend = known.get(key)
            present[key] = _first_sight(server, sighting) if backend is None else _next_sight(backend, sighting)
        self._backends[server] = present

    def recall(self, backends: Iterable[Backend]) -> None:
        """Goes on with what was followed before."""
        for backend in backends:
            self._backends.setdefault(backend.server, {})[backend.pid, backend.started] = backend

    def forget(self, server: str) -> None:
        self._backends.pop(server, None)

    def of_server(self, server: str) -> list[Backend]:
        return list(self._backends.get(server, {}).values())


def _first_sight(server: str, sighting: BackendSighting) -> Backend:
    # A login that is under way at first sight has been under way since the fork; any other activity since nobody knows
    # when, at the earliest now.
    since = sighting.started if sighting.title.activity in LOGIN_ACTIVITIES else sighting.at
    return Backend(
        server=server,
        pid=sighting.pid,
        started=sighting.started,
        title=sighting.title,
        first_seen=sighting.at,
        activity_since=since,
        still_since=since,
        seen_at=sighting.at,
        switches=sighting.switches,
        inner_pid=sighting.inner_pid or sighting.pid,
    )


def _next_sight(backend: Backend, sighting: BackendSighting) -> Backend:
    if sighting.title is not backend.title and sighting.title != backend.title:
        backend.activity_since = backend.still_since = sighting.at
        backend.title = sighting.title
    elif None not in (backend.switches, sighting.switches) and backend.switches != sighting.switches:
        backend.still_since = sighting.at
    backend.switches = sighting.switches
    backend.seen_at = sighting.at
    return backend
