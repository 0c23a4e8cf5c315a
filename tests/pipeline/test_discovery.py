"""Which servers there are: who is met, who is gone, and that a server keeps the identity it was told by."""

from types import SimpleNamespace

import pytest

from build import START, server
from pgsonar.pipeline.discovery import Discovery
from pgsonar.tracking.backends import BackendTable
from pgsonar.tracking.earlier import EarlierRun
from pgsonar.tracking.poolers import PoolerTable
from pgsonar.tracking.readings import Readings

KEY = "7123@host:/data"
RUNS = {"id": KEY, "pid": 10, "started": 5}


@pytest.fixture
def look():
    """Tells the identities of one look at these servers, and of those that are gone by it."""
    here = []
    sources = SimpleNamespace(
        sees_servers=True,
        finder=SimpleNamespace(find=lambda: here),
        backends=SimpleNamespace(forget=lambda of: None),
        owners=SimpleNamespace(forget=lambda pid: None),
    )
    discovery = Discovery(sources, Readings(BackendTable()), PoolerTable(EarlierRun()))

    def find(*servers):
        here[:] = [server(**one) for one in servers]
        gone = [one.id for one in discovery.find_servers(START)]
        return [(one.pid, one.id) for one in discovery.servers.values()], gone

    return find


@pytest.mark.parametrize("read_once", [f"host:{5432}", f"{KEY}#5432"], ids=["torn pg_control", "one more of its key"])
def test_a_server_that_runs_on_is_no_other_server_whatever_one_look_reads(look, read_once):
    look(RUNS)

    assert look(RUNS | {"id": read_once}) == ([(10, KEY)], [])
    assert look(RUNS) == ([(10, KEY)], [])


def test_who_had_a_key_keeps_it_and_who_comes_later_gets_one_of_its_own(look):
    look(RUNS)
    both, _ = look(RUNS | {"id": f"{KEY}#5432"}, {"id": f"{KEY}#5433", "pid": 11})
    assert both == [(10, KEY), (11, f"{KEY}#5433")]

    found, gone = look({"id": KEY, "pid": 11}, {"id": KEY, "pid": 12})
    assert (found, gone) == ([(11, f"{KEY}#5433"), (12, KEY)], [])


@pytest.mark.parametrize(
    "unfinished", [{"port": None}, {"system_identifier": None}], ids=["no port yet", "not read yet"]
)
def test_what_a_young_server_is_called_for_the_moment_is_no_identity(look, unfinished):
    young = RUNS | {"started": START}

    assert look(young | unfinished | {"id": "host:?"})[0] == [(10, "host:?")]
    assert look(young)[0] == [(10, KEY)]
    assert look(young | unfinished | {"id": "host:?"})[0] == [(10, KEY)]


def test_what_cannot_be_read_of_an_old_server_will_not_be(look):
    look(RUNS | {"id": "host:5432", "system_identifier": None})

    assert look(RUNS)[0] == [(10, "host:5432")]


def test_two_never_share_one(look):
    look(RUNS)

    assert look(RUNS | {"id": "host:5432"}, {"id": KEY, "pid": 11})[0] == [(10, KEY), (11, f"{KEY}#11")]


def test_one_that_started_again_is_named_by_what_is_read_now(look):
    look(RUNS | {"id": "host:5432"})

    assert look(RUNS | {"started": 6}) == ([(10, KEY)], ["host:5432"])


def test_the_name_of_a_target_comes_first(look):
    look(RUNS)

    assert look(RUNS | {"id": "orders", "name": "orders"})[0] == [(10, "orders")]
    assert look(RUNS)[0] == [(10, KEY)]
