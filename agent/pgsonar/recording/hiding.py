"""What a recording tells of clients, rewritten as service.telemetry.redaction has it.

The rule: one name becomes one word wherever it stands, so that sockets still join the titles, poolers and logins they
belong to. What is judged by stays as it is: wildcards and loopback addresses, which are nobody's, and the superuser
that every server has. Titles are left out, as in events.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from pgsonar.config.schema import Redaction as Settings
from pgsonar.model import (
    LOCAL_HOST,
    Backend,
    BackendSighting,
    ClientProcess,
    Connection,
    DatabaseReading,
    Endpoint,
    Pooler,
    PoolerClient,
    PoolerEnds,
    PoolerReading,
    PoolerServer,
    Server,
    Session,
    Socket,
    Title,
)
from pgsonar.signals.redaction import Redaction
from pgsonar.sources import entries
from pgsonar.sources.clients import Hop
from pgsonar.sources.entries import AnyFact, Change, LogFigures

Noun = TypeVar("Noun")

_PORT = re.compile(r"0|[1-9][0-9]*")
_NOBODYS = frozenset({"", "?", LOCAL_HOST, "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared with
_EVERYBODYS = frozenset({"postgres"})


class Hiding:
    """Rewrites facts and what a key frame holds."""

    def __init__(self, settings: Settings, redaction: Redaction) -> None:
        self._redaction = redaction
        self.hidden = tuple(name for name in ("addresses", "users") if getattr(settings, name) != "keep")
        self._rewrites: dict[type[AnyFact], Callable[[Any], AnyFact]] = {
            entries.Servers: lambda fact: entries.Servers([self._server(server) for server in fact.servers]),
            entries.Poolers: lambda fact: entries.Poolers([self._pooler(pooler) for pooler in fact.poolers]),
            entries.Ends: lambda fact: entries.Ends(self._id(fact.pooler), self._ends(fact.ends)),
            entries.Changes: lambda fact: entries.Changes([self._change(change) for change in fact.changes]),
            entries.Present: lambda fact: entries.Present(
                fact.netns, [self._change(change) for change in fact.changes], fact.gone
            ),
            entries.Look: self._look,
            entries.Clients: lambda fact: entries.Clients(
                [(self._hop(hop), self._client(client), is_astray) for hop, client, is_astray in fact.found]
            ),
            entries.LocalClients: lambda fact: entries.LocalClients([(e, self._client(c)) for e, c in fact.found]),
            entries.Database: lambda fact: entries.Database(fact.index, fact.holds, self._database(fact.reading)),
            entries.Console: lambda fact: entries.Console(fact.index, fact.holds, self._console(fact.reading)),
            entries.Names: lambda fact: entries.Names({self._address(a): n for a, n in fact.names.items()}),
            entries.Logs: lambda fact: entries.Logs({self._id(s): self._log(told) for s, told in fact.told.items()}),
        }

    def fact(self, fact: AnyFact) -> AnyFact:
        """The fact without what is not to be told."""
        rewrite = self._rewrites.get(type(fact)) if self.hidden else None
        return fact if rewrite is None else rewrite(fact)

    def host(self, name: str) -> str:
        """The name of the host that is recorded."""
        return self._address(name)

    def connection(self, connection: Connection) -> Connection:
        """A connection that is followed, as a copy."""
        if not self.hidden:
            return connection
        return replace(
            connection,
            socket=self._socket(connection.socket),
            client=self._client(connection.client),
            server=_may(self._id, connection.server),
        )

    def backend(self, backend: Backend) -> Backend:
        """A backend that is followed, as a copy."""
        if not self.hidden:
            return backend
        via = backend.via
        if via is not None:
            client = self._pooler_client(via.client) if via.client is not None else None
            via = via._replace(pooler=self._label(via.pooler), client=client, process=self._client(via.process))
        return replace(
            backend,
            server=self._id(backend.server),
            title=self._title(backend.title),
            connection=self.connection(backend.connection) if backend.connection is not None else None,
            session=self._session(backend.session) if backend.session is not None else None,
            identified=self._session(backend.identified) if backend.identified is not None else None,
            via=via,
            local_client=self._client(backend.local_client),
        )

    # --- words ---------------------------------------------------------------------------------------------------

    def _address(self, address: str) -> str:
        if address in _NOBODYS or address.startswith("/"):
            return address
        plain, zone, name = address.partition("%")  # titles have the zone of a link-local address, tables do not
        return self._redaction.address(plain) + zone + name

    def _user(self, user: str) -> str:
        return user if user in _EVERYBODYS else self._redaction.user(user)

    def _endpoint(self, endpoint: Endpoint) -> Endpoint:
        return Endpoint(self._address(endpoint.address), endpoint.port)

    def _label(self, label: str) -> str:
        """`host:port`."""
        host, colon, port = label.rpartition(":")
        return self._address(host.strip("[]")) + colon + port if colon else self._address(label)

    def _id(self, key: str) -> str:
        """Of a server or a pooler: `identifier@host:what`, or `host:what`."""
        identifier, at, rest = key.rpartition("@")
        host, _, port = rest[1:].rpartition("]:")
        if rest.startswith("[") and _PORT.fullmatch(port):  # as Endpoint writes IPv6
            return f"{identifier}{at}{Endpoint(self._address(host), int(port))}"
        host, colon, what = rest.partition(":")
        return f"{identifier}{at}{self._address(host)}{colon}{what}"

    # --- nouns ---------------------------------------------------------------------------------------------------

    def _socket(self, socket: Socket) -> Socket:
        return socket._replace(local=self._endpoint(socket.local), remote=self._endpoint(socket.remote))

    def _change(self, change: Change) -> Change:
        number, at, netns, kind, previous, socket, transferred = change
        return number, at, netns, kind, previous, self._socket(socket), transferred

    def _title(self, title: Title) -> Title:
        user, names = _may(self._user, title.user), _may(self._user, title.names)
        return title._replace(user=user, host=_may(self._address, title.host), text="", names=names)

    def _look(self, fact: entries.Look) -> entries.Look:
        seen = [self._sighting(sighting) for sighting in fact.seen]
        return entries.Look(self._id(fact.server), seen, fact.moved, fact.gone)

    def _sighting(self, sighting: BackendSighting) -> BackendSighting:
        return sighting._replace(title=self._title(sighting.title))

    def _server(self, server: Server) -> Server:
        return replace(
            server,
            id=self._id(server.id),
            address=self._address(server.address),
            listens_on=_may(lambda there: tuple(map(self._address, there)), server.listens_on),
        )

    def _pooler(self, pooler: Pooler) -> Pooler:
        return replace(
            pooler,
            id=self._id(pooler.id),
            address=self._address(pooler.address),
            addresses=frozenset(map(self._address, pooler.addresses)),
            settings=tuple(setting for setting in pooler.settings if _is_figure(*setting)),
        )

    def _ends(self, ends: PoolerEnds) -> PoolerEnds:
        return ends._replace(tcp={self._endpoint(end): state for end, state in ends.tcp.items()})

    def _hop(self, hop: Hop) -> Hop:
        return hop._replace(local=self._endpoint(hop.local), remote=self._endpoint(hop.remote))

    def _client(self, client: ClientProcess | None) -> ClientProcess | None:
        if client is None:
            return None
        return client._replace(user=_may(self._user, client.user), dialled=None)

    def _log(self, told: LogFigures) -> LogFigures:
        names = {(what, self._user(name) if what == "role" else name): n for (what, name), n in told.by_name.items()}
        return told._replace(by_name=names)

    def _session(self, session: Session) -> Session:
        return replace(
            session,
            user=_may(self._user, session.user),
            client_address=_may(self._address, session.client_address),
            application=_may(self._redaction.application, session.application),
        )

    def _database(self, reading: DatabaseReading) -> DatabaseReading:
        return replace(
            reading,
            endpoint=self._endpoint(reading.endpoint),
            sessions=tuple(self._session(session) for session in reading.sessions),
            role_limits={self._user(role): limit for role, limit in reading.role_limits.items()},
        )

    def _console(self, reading: PoolerReading) -> PoolerReading:
        return replace(
            reading,
            endpoint=self._endpoint(reading.endpoint),
            pools=tuple(pool._replace(user=self._user(pool.user)) for pool in reading.pools),
            clients=tuple(self._pooler_client(client) for client in reading.clients),
            servers=tuple(self._pooler_server(server) for server in reading.servers),
            settings={name: value for name, value in reading.settings.items() if _is_figure(name, value)},
        )

    def _pooler_client(self, client: PoolerClient) -> PoolerClient:
        return client._replace(
            user=self._user(client.user),
            application=_may(self._redaction.application, client.application),
            address=_may(self._address, client.address),
            local=_may(self._endpoint, client.local),
        )

    def _pooler_server(self, server: PoolerServer) -> PoolerServer:
        return server._replace(
            user=self._user(server.user),
            remote=_may(self._endpoint, server.remote),
            local=_may(self._endpoint, server.local),
        )


def _is_figure(name: str, value: str) -> bool:
    """Whether a setting of a pooler names nobody: others are addresses, users and files."""
    return name == "pool_mode" or value.isdigit()


def _may(rewrite: Callable[[Noun], Noun], noun: Noun | None) -> Noun | None:
    return None if noun is None else rewrite(noun)
