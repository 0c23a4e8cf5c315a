"""What is recorded is played to the same events, from the beginning and from any key frame."""

import msgspec
import pytest

from build import NETNS, START, database_reading, server, tcp, title
from pgsonar.config.schema import LeakKind, LeaksProcessor, Telemetry
from pgsonar.config.units import Duration
from pgsonar.model import SECOND, BackendSighting, ChangeKind, Session, TcpState
from pgsonar.recording.replaying import Player
from pgsonar.sources.entries import KeyFrame, Look, Present, Stage, Tick, Told, decode, joined
from recorded import AFTER, Memory, Recorded, leave_open, moment, orphan, told_details

SOON = LeaksProcessor(idle_in_transaction=LeakKind(after=Duration(2)))


@pytest.fixture
def sink():
    return Memory()


@pytest.fixture
def recorded(sink):
    return Recorded(sink, leaks=SOON)


def entries(sink):
    return decode(joined(sink.entries))


def played(sink, leaks=SOON, *, skip=0):
    """The events of a recording; `skip` entries at its beginning are lost."""
    player = Player(sink.header, leaks, Telemetry())
    for entry in entries(sink)[skip:]:
        player.play(entry)
    return player.events


def without_ids(rows):
    """Events with their ids named in the order in which they come."""
    known = {}
    told = []
    for row in rows:
        known.setdefault(row.attributes["pgsonar.leak.id"], f"id {len(known)}")
        attributes = {
            key: known.get(value, value) if isinstance(value, str) else value for key, value in row.attributes.items()
        }
        told.append(row._replace(attributes=attributes, trace_id=0, span_id=0))
    return told


def test_a_recording_is_played_to_the_events_that_were_told(sink, recorded):
    leave_open(recorded.world)
    recorded.run(0, 5)
    orphan(recorded.world, seconds=5)
    recorded.run(5, 12)
    gone = tcp(40001, TcpState.CLOSE_WAIT, rx=1)
    recorded.world.sightings.pop()
    recorded.world.changes = [(40001, moment(12).at, NETNS, ChangeKind.CLOSED, 8, gone, None)]
    recorded.run(12, 15)
    recorded.pipeline.stop(moment(15))

    steps = [(row.event_name.rpartition(".")[2], row.attributes["pgsonar.leak.kind"]) for row in recorded.told]
    assert steps == [
        ("opened", "idle_in_transaction"),
        ("opened", "orphaned_backend"),
        ("resolved", "orphaned_backend"),
        ("resolved", "idle_in_transaction"),
    ]
    assert without_ids(played(sink)) == without_ids(recorded.told)


def test_the_same_recording_has_the_same_ids(sink, recorded):
    leave_open(recorded.world)
    recorded.run(0, 5)

    assert played(sink) == played(sink) != []


def test_other_thresholds_open_other_episodes(sink, recorded):
    leave_open(recorded.world)
    recorded.run(0, 10)
    (opened,) = [row for row in played(sink) if row.event_name == "pgsonar.leak.opened"]
    later = LeaksProcessor(idle_in_transaction=LeakKind(after=Duration(7)))
    (opened_later,) = played(sink, later)

    assert opened.time_unix == moment(2).unix
    assert opened_later.time_unix == moment(7).unix
    assert opened_later.attributes["pgsonar.client.command"] == "python3"
    assert played(sink, AFTER) == []


def test_from_a_key_frame_on_everything_is_as_old_as_it_was(sink, recorded):
    leave_open(recorded.world)
    orphan(recorded.world)
    recorded.world.stats["lost_changes"] = 3
    recorded.run(0, 60)
    sink.wants = True
    recorded.run(60, 65)
    frame = next(n for n, entry in enumerate(entries(sink)) if isinstance(entry, KeyFrame) and n)
    later = played(sink, skip=frame)

    assert {(row.attributes["pgsonar.leak.kind"], row.attributes["pgsonar.leak.onset"]) for row in later} == {
        (row.attributes["pgsonar.leak.kind"], row.attributes["pgsonar.leak.onset"]) for row in recorded.told
    }


def test_a_socket_that_was_reset_before_the_key_frame_is_known_behind_it(sink, recorded):
    recorded.world.sightings = [BackendSighting(9, START, title("SELECT", port=50000), None, 0, 9)]
    recorded.world.changes = [(5, START, NETNS, ChangeKind.OPENED, 0, tcp(50000), None)]
    recorded.run(0, 2)
    recorded.world.changes = [(5, moment(2).at, NETNS, ChangeKind.CLOSED, 1, tcp(50000), None)]
    recorded.run(2, 60)
    sink.wants = True
    recorded.run(60, 65)
    frame = next(n for n, entry in enumerate(entries(sink)) if isinstance(entry, KeyFrame) and n)
    (row,) = played(sink, skip=frame)

    assert row.attributes["pgsonar.leak.kind"] == "orphaned_backend_no_socket"
    assert row.attributes["pgsonar.leak.onset"] == moment(2).unix
    assert row.attributes["client.port"] == 50000


def test_a_key_frame_in_the_middle_changes_nothing(sink, recorded):
    leave_open(recorded.world)
    recorded.run(0, 3)
    sink.wants = True
    recorded.run(3, 8)

    assert sum(isinstance(entry, KeyFrame) for entry in entries(sink)) == 2
    assert without_ids(played(sink)) == without_ids(recorded.told)


def test_what_does_not_differ_is_not_written(sink, recorded):
    leave_open(recorded.world)
    recorded.run(0, 2)
    before = len(sink.entries)
    recorded.world.stats["rows"] = 0
    for seconds in (2.25, 2.5, 2.75):
        recorded.pipeline.fast_tick()
        recorded.pipeline.title_tick(moment(seconds).at)

    assert decode(joined(sink.entries[before:])) == [
        Tick(Stage.TITLE, moment(seconds)) for seconds in (2.25, 2.5, 2.75)
    ]


def test_of_titles_only_what_differs_is_written(sink, recorded):
    world = recorded.world
    world.sightings = [BackendSighting(pid, START, title("idle", port=pid), 5, 0, pid) for pid in (1, 2, 3)]
    recorded.run(0, 1)
    before = len(sink.entries)
    world.sightings = [
        world.sightings[0]._replace(switches=6),
        BackendSighting(2, START, title("SELECT", port=2), None, 0, 2),
    ]
    recorded.pipeline.title_tick(moment(1).at)
    (look,) = [entry for entry in decode(joined(sink.entries[before:])) if isinstance(entry, Look)]

    assert (look.moved, look.gone) == ([(1, 6)], [3])
    assert [(s.pid, s.title.activity) for s in look.seen] == [(2, "SELECT")]
    assert [s.title.activity for s in recorded.recorder.answers.looks["s1"].values()] == ["idle", "SELECT"]


def test_details_that_have_only_aged_are_not_written_again_and_come_back_aged(sink, recorded):
    world = recorded.world
    leave_open(world)
    recorded.run(0, 1)
    world.details = {
        40000: told_details(START)._replace(at=moment(11).at, last_sent=11005, last_received=11003, last_ack=11005)
    }
    recorded.run(11, 12)
    world.details = {40000: told_details(moment(22).at)._replace(bytes_sent=101)}
    recorded.run(22, 23)
    told = [entry for entry in entries(sink) if isinstance(entry, Told)]
    player = Player(sink.header, SOON, Telemetry())
    for entry in entries(sink):
        player.play(entry)
        if isinstance(entry, Tick) and entry.moment == moment(11.5):
            aged = player._sampler.details(NETNS)[40000]

    assert [sorted(entry.details) for entry in told] == [[40000], [], [40000]]
    assert (aged.at, aged.last_sent) == (moment(11).at, 11005)


def test_changes_that_were_lost_are_told_by_the_look_that_found_them(sink, recorded):
    world = recorded.world
    world.changes = [(n, START, NETNS, ChangeKind.OPENED, 0, tcp(n), None) for n in (1, 2)]
    recorded.run(0, 1)
    world.stats["lost_changes"] = 5
    world.there = {n: (n, START, NETNS, ChangeKind.OPENED, 0, tcp(n), None) for n in (2, 3)}
    recorded.run(1, 2)
    (present,) = [entry for entry in entries(sink) if isinstance(entry, Present)]
    player = Player(sink.header, SOON, Telemetry())
    for entry in entries(sink):
        player.play(entry)

    assert ([change[0] for change in present.changes], present.gone) == ([3], [1])
    assert player._pipeline.connections.connections.keys() == {2, 3} == recorded.pipeline.connections.connections.keys()


def test_readings_are_taken_at_the_tick_that_took_them(sink, recorded):
    world = recorded.world
    leave_open(world)
    recorded.run(0, 2)
    world.databases.append(
        database_reading(Session(4711, "client backend", START, application="billing", state="idle in transaction"))
    )
    recorded.run(2, 4)

    assert without_ids(played(sink)) == without_ids(recorded.told)
    assert "billing" in played(sink)[-1].body


def test_servers_that_go_are_lost_from_sight_in_the_recording_too(sink, recorded):
    leave_open(recorded.world)
    recorded.run(0, 4)
    recorded.world.servers = []
    recorded.run(4, 14)

    assert [row.event_name for row in recorded.told] == ["pgsonar.leak.opened", "pgsonar.leak.resolved"]
    assert without_ids(played(sink)) == without_ids(recorded.told)


def test_a_sink_that_fails_is_counted_and_never_felt(sink, recorded, caplog):
    def refuse(encoded, at):
        raise RuntimeError("no")

    leave_open(recorded.world)
    recorded.run(0, 1)
    sink.write = refuse
    recorded.run(1, 5)

    assert recorded.told
    assert recorded.recorder.failures > 3
    assert sum("cannot be recorded" in record.getMessage() for record in caplog.records) == 1


def test_what_cannot_be_encoded_is_never_felt(sink, recorded):
    recorded.world.servers = [server(data_directory="\udcff")]
    recorded.run(0, 1)

    assert recorded.pipeline.servers
    assert recorded.recorder.failures


def test_a_tick_that_fails_is_recorded_all_the_same(sink, recorded):
    def break_off(server, at):
        raise OSError("gone")

    recorded.run(0, 1)
    recorded.pipeline.sources.backends._of.read = break_off
    with pytest.raises(OSError, match="gone"):
        recorded.pipeline.title_tick(moment(1).at)

    assert entries(sink)[-1] == Tick(Stage.TITLE, moment(1))


def test_the_header_says_what_was_configured(sink, recorded):
    recorded.run(0, 1)

    assert msgspec.structs.asdict(sink.header.parts) == {
        "databases": 1,
        "consoles": 1,
        "applications": False,
        "names": False,
        "logs": True,
        "sees_servers": True,
    }


def test_states_that_pass_are_played_at_their_instants(sink, recorded):
    world = recorded.world
    orphan(world, seconds=0)
    recorded.run(0, 1)
    world.changes = [(40001, moment(1).at, NETNS, ChangeKind.STATE, 8, tcp(40001, TcpState.ESTABLISHED), None)]
    recorded.run(1, 2)
    world.changes = [(40001, moment(2).at, NETNS, ChangeKind.STATE, 1, tcp(40001, TcpState.CLOSE_WAIT, rx=1), None)]
    recorded.run(2, 6)
    (row,) = played(sink)

    assert row.attributes["pgsonar.leak.onset"] == moment(2).unix
    assert (row.time_unix - moment(4).unix) / SECOND < 1
