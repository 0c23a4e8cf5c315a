"""Each leak of the plays against real servers: named with backend and port, in time, its onset true, and ended."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from installation import installed, watch
from plays import CONFIGURATION, PLAYS, TWINS

pytestmark = [pytest.mark.live, pytest.mark.netns]

ALONE = ("peers_that_fall_silent", "network_cut", "slots_run_out", "postmaster_that_does_not_accept")
TOGETHER = [name for name in PLAYS if name not in ALONE]
THOROUGH = (15, 18)  # majors that are stopped, and whose clients are cut off: the kernel's part is the same under all
SLACK = 3.0  # seconds of a loaded machine


@pytest.fixture(scope="module", params=[13, 15, 16, 18])
def stage(request, tmp_path_factory):
    with installed(request.param) as world:
        agent = watch(world, tmp_path_factory.mktemp("agent"))
        try:
            yield world, agent
        finally:
            agent.stop()


def members(told):
    listed = [member.split() for member in told["pgsonar.leak.member_list"]]
    return {member[0] for member in listed}, {member[2] for member in listed}


def is_of(expected, told):
    pids, ports = members(told)
    if not expected.pids and not expected.ports:
        return told["pgsonar.leak.onset"] / 1e9 > expected.began - 5
    return bool({str(pid) for pid in expected.pids} & pids or {str(port) for port in expected.ports} & ports)


def found(agent, expected):
    deadline = expected.began + expected.after + expected.late + SLACK
    event = agent.wait_event(
        expected.kind, "opened", lambda told: is_of(expected, told), max(0.5, deadline + 6 - time.time())
    )
    told = event["attributes"]
    assert int(event["timeUnixNano"]) / 1e9 < deadline, f"{expected.kind} was told late"
    assert expected.says in event["body"]["stringValue"]
    assert expected.severity in {None, told["pgsonar.leak.severity"]}
    if expected.onset:
        assert abs(told["pgsonar.leak.onset"] / 1e9 - expected.began) < 1.0
    return event


def must_end(agent, event):
    told = event["attributes"]
    kind, number = told["pgsonar.leak.kind"], told["pgsonar.leak.id"]
    agent.wait_event(kind, "resolved", lambda other: other["pgsonar.leak.id"] == number, 15)
    (span,) = agent.wait_for(lambda: [s for s in agent.spans() if s["traceId"] == event["traceId"]], 3, "no span")
    assert (span["spanId"], span["startTimeUnixNano"]) == (event["spanId"], str(told["pgsonar.leak.onset"]))


def play_together(stage, names):
    """Begins all, waits until each is found, ends all; nothing else may be told."""
    world, agent = stage
    before = len(agent.events(None, "opened"))
    with contextlib.ExitStack() as stack:
        expected = [one for name in names for one in stack.enter_context(PLAYS[name](world))]
        events = [found(agent, one) for one in expected]
        complete(agent, expected)
    for event in events:
        must_end(agent, event)
    foreseen = {kind for one in expected for kind in (one.kind, *one.also)}
    for event in agent.events(None, "opened")[before:]:
        assert event["attributes"]["pgsonar.leak.kind"] in foreseen, event["body"]["stringValue"]


def complete(agent, expected):
    """Every member is named, if not at the opening, then by what follows."""
    missing = [(one.kind, {*map(str, one.pids), *map(str, one.ports)}) for one in expected]

    def all_named():
        for event in agent.events():
            for kind, left in missing:
                if event["attributes"]["pgsonar.leak.kind"] == kind:
                    left.difference_update(*members(event["attributes"]))
        return not any(left for _, left in missing)

    agent.wait_for(all_named, 8, f"members were never named: {missing}")


def test_leaks_that_do_not_get_in_each_others_way(stage):
    play_together(stage, TOGETHER)


@pytest.mark.parametrize("stage", THOROUGH, indirect=True)
@pytest.mark.parametrize("name", ALONE)
def test_leaks_of_the_whole_server(stage, name):
    play_together(stage, [name])


def test_near_misses_stay_silent(stage):
    """All at once: what is told of any of them names it."""
    world, agent = stage
    before = len(agent.events())
    with ThreadPoolExecutor(len(TWINS)) as threads:
        played = [threads.submit(function, world, name, 8.0) for name, (_, function) in TWINS.items()]
        for one in played:
            one.result()
    time.sleep(2)
    bodies = [event["body"]["stringValue"] for event in agent.events()[before:]]

    assert bodies == []


def test_every_kind_is_played_and_has_a_near_miss():
    played = {kind for kinds, _ in TWINS.values() for kind in kinds}
    assert played == set(CONFIGURATION)
