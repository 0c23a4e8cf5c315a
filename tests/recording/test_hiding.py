"""A recording without addresses and users: nothing names them, and the same leaks come of it."""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from build import NETNS, START, database_reading, server, tcp, title
from pgsonar.config.schema import LeakKind, LeaksProcessor, Telemetry
from pgsonar.config.schema import Redaction as Settings
from pgsonar.config.units import Duration
from pgsonar.model import (
    BackendSighting,
    ChangeKind,
    ClientProcess,
    Endpoint,
    LogCounts,
    Pool,
    Pooler,
    PoolerClient,
    PoolerEnds,
    PoolerReading,
    PoolerServer,
    Server,
    Session,
    TcpState,
)
from pgsonar.recording.hiding import Hiding
from pgsonar.recording.replaying import Player
from pgsonar.signals.redaction import Redaction
from pgsonar.sources import entries
from pgsonar.sources.clients import Hop
from pgsonar.sources.entries import decode, encode, joined
from recorded import Memory, Recorded, leave_open, moment, orphan

KEY = "a key of sixteen or more"
SECRETS = ("alice", "bob", "carol", "10.0.0.7", "10.0.0.8", "192.0.2.9", "fe80::1", "secret-host", "9.8.7.6")
ALICE = Redaction(Settings(users="hash", key=KEY)).user("alice")
SOON = LeaksProcessor(idle_in_transaction=LeakKind(after=Duration(2)))


def telemetry(mode):
    return Telemetry(redaction=Settings(addresses=mode, users=mode, key=KEY))


def hiding(mode="hash"):
    settings = Settings(addresses=mode, users=mode, key=KEY)
    return Hiding(settings, Redaction(settings))


def recorded(mode):
    """Leaks of clients that have names, over all that can be configured."""
    sink = Memory()
    there = Recorded(sink, telemetry=telemetry(mode), leaks=SOON)
    world = there.world
    world.servers = [server(id="77@secret-host:/data", address="secret-host")]
    leave_open(world, user="alice")
    leave_open(world, pid=8, port=41000, user="bob", address="fe80::1")
    world.sightings[1] = world.sightings[1]._replace(
        title=title("idle in transaction", port=41000, user="bob", host="fe80::1%eth0")
    )
    orphan(world)
    pooled = Endpoint("192.0.2.9", 5)
    world.changes.append((9, START, NETNS, ChangeKind.OPENED, 0, tcp(5, address="192.0.2.9"), None))
    of = title("idle in transaction", user="carol", host="192.0.2.9", port=5)
    world.sightings.append(BackendSighting(9, START, of, 3, 0, 9))
    client = PoolerClient("c", "s", "carol", "shop", "active", "web - 10.0.0.8:1", "10.0.0.8", 6, pooled, 0.0)
    backend = PoolerServer("s", "c", "carol", "shop", "active", Endpoint("10.0.0.1", 5432), pooled, 9)
    world.consoles.append(
        PoolerReading(
            at=START,
            endpoint=Endpoint("192.0.2.9", 6432),
            version="1.23",
            pools=(Pool("shop", "carol", 1, 0, 1, 0, 0, 0.0, "session", 5),),
            clients=(client,),
            servers=(backend,),
            settings={"admin_users": "carol", "listen_addr": "192.0.2.9", "default_pool_size": "20"},
        )
    )
    session = Session(4711, "client backend", START, user="alice", client_address="10.0.0.7", client_port=40000)
    world.databases.append(
        database_reading(session, endpoint=Endpoint("9.8.7.6", 5432), role_limits={"alice": 3}, started=START)
    )
    world.poolers = [
        Pooler("secret-host:1:6432", (5,), NETNS, 6432, "192.0.2.9", frozenset({"192.0.2.9"}), settings=(("a", "bob"),))
    ]
    world.ends = {"secret-host:1:6432": PoolerEnds({pooled: TcpState.ESTABLISHED})}
    log = LogCounts(last_line={"role": "too many connections for role alice from 10.0.0.7"})
    world.logs = {"77@secret-host:/data": log}
    there.run(0, 1)
    log.by_name["role", "alice"] = 2  # what was there at first would be old
    there.run(1, 6)
    sink.wants = True
    there.run(6, 8)
    return there, sink


def events(sink, *, skip=0, mode="keep"):
    player = Player(sink.header, SOON, telemetry(mode))
    for entry in decode(joined(sink.entries))[skip:]:
        player.play(entry)
    return player.events


@pytest.mark.parametrize("mode", ["hash", "redact"])
def test_nothing_names_a_client_or_the_host_and_the_same_leaks_come_of_it(mode):
    open_world, in_words = recorded("keep")
    _, hidden = recorded(mode)
    text = b"".join(hidden.entries) + msgspec.msgpack.encode(hidden.header)
    told = {(row.event_name, row.attributes["pgsonar.leak.kind"], row.time_unix) for row in open_world.told}

    assert len(told) > 2
    assert all(name.encode() in b"".join(in_words.entries) for name in SECRETS)
    assert [name for name in SECRETS if name.encode() in text] == []
    for sink in (hidden, in_words):
        played = {(row.event_name, row.attributes["pgsonar.leak.kind"], row.time_unix) for row in events(sink)}
        assert played == told


@pytest.mark.parametrize("mode", ["hash", "redact"])
def test_a_user_that_cannot_be_told_from_the_database_is_hidden_with_it(mode):
    of = title(user=None, database=None)._replace(names="Prod DB Readonly Sales DB")
    shown = hiding(mode).fact(entries.Look("s1", [BackendSighting(1, START, of)], [], [])).seen[0].title

    assert shown.names is not None
    assert not {"Prod", "Sales"} & set(shown.names.split())


def test_words_are_those_of_the_events_that_the_agent_sent():
    there, sink = recorded("hash")
    told = [{row.attributes["pgsonar.leak.identity"] for row in rows} for rows in (there.told, events(sink))]
    sent, played = ({name for name in names if "@" not in name or name.startswith(ALICE)} for names in told)

    assert len(sent) > 1
    assert sent == played


def test_what_is_hidden_is_not_hidden_again():
    _, sink = recorded("hash")

    assert events(sink, mode="hash") == events(sink)
    assert sink.header.hidden == ("addresses", "users")


def test_a_recording_in_words_is_hidden_when_it_is_played_so():
    _, sink = recorded("keep")
    text = str(events(sink, mode="hash"))

    assert [name for name in SECRETS if name in text] == ["secret-host"]  # a server, and no client


def test_what_is_judged_by_stays_as_it_is():
    told = hiding().fact(entries.Look("s", [BackendSighting(1, 2, title(user="postgres", host="127.0.0.1"))], [], []))

    assert (told.seen[0].title.user, told.seen[0].title.host) == ("postgres", "127.0.0.1")


def test_one_name_is_one_word_in_every_noun():
    hide = hiding("redact")
    address = hide.host("10.0.0.7")
    change = (1, 2, 3, ChangeKind.OPENED, 0, tcp(4, address="10.0.0.7"), None)
    hop = Hop(3, Endpoint("10.0.0.7", 1), Endpoint("10.0.0.7", 2))
    facts = [
        entries.Changes([change]),
        entries.Present(3, [change], []),
        entries.Look("s", [BackendSighting(1, 2, title(host="10.0.0.7"))], [], []),
        entries.Clients([(hop, ClientProcess(1, 2, "x", user="alice"), False)]),
        entries.Names({"10.0.0.7": "orders-db"}),
        entries.Ends("p", PoolerEnds({Endpoint("10.0.0.7", 1): TcpState.ESTABLISHED})),
    ]

    for fact in facts:
        text = encode(hide.fact(fact))
        assert address.encode() in text
        assert b"10.0.0.7" not in text


def test_addresses_alone_may_be_hidden():
    settings = Settings(addresses="hash", key=KEY)
    hide = Hiding(settings, Redaction(settings))
    seen = hide.fact(entries.Look("s", [BackendSighting(1, 2, title(user="alice"))], [], [])).seen[0]

    assert hide.hidden == ("addresses",)
    assert seen.title.user == "alice"
    assert "10.0.0.7" not in str(seen.title)


@pytest.mark.parametrize(
    "key",
    [
        "77@secret-host:/data#5",
        "secret-host:5432",
        "77@[fd00::7]:5432",
        "pgbouncer@secret-host:6432",
        "secret-host:1:6432",
    ],
)
def test_keys_hold_the_word_for_their_host(key):
    hide = hiding()
    host = "fd00::7" if "fd00" in key else "secret-host"
    (told,) = hide.fact(entries.Servers([Server(key, 1, 2, 3, 4, host)])).servers

    assert host not in told.id
    assert told.address in told.id
    assert told.id.partition("@")[0] == key.partition("@")[0] or "@" not in key


@settings(max_examples=50)
@given(st.text(max_size=20), st.text(max_size=20))
@example("", "[")
@example("[::1]:5432", "[::1]:05432")
def test_different_keys_stay_different(one, other):
    hide = hiding()
    first, second = (hide.fact(entries.Logs({key: entries.LogFigures({}, 0, {})})).told for key in (one, other))

    assert (first == second) == (one == other)


def test_the_moment_of_a_key_frame_hides_what_is_followed():
    _, sink = recorded("hash")
    frames = [entry for entry in decode(joined(sink.entries)) if isinstance(entry, entries.KeyFrame)]
    frame = frames[-1]

    assert len(frames) == 2
    assert frame.moment == moment(6)
    assert frame.backends
    assert frame.connections
    assert [name for name in SECRETS if name in str(frame)] == []
