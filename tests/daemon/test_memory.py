"""The limit of memory: metrics are not taken in above the soft one, what waits in memory is given up above the hard."""

import pytest

from pgsonar.config.schema import MemoryLimiter
from pgsonar.daemon import memory
from pgsonar.daemon.memory import MIB, MemoryLimit
from pgsonar.daemon.own import resident


class Exporting:
    refuses_metrics = False
    shed_times = 0

    def shed(self):
        self.shed_times += 1


@pytest.fixture
def taken(monkeypatch):
    """What the agent is made to take, MiB."""
    now = {"mib": 0, "after": None}

    def read():
        mib, now["mib"] = now["mib"], now["after"] if now["after"] is not None else now["mib"]
        return mib * MIB

    monkeypatch.setattr(memory, "resident", read)
    return now


def test_what_is_resident_grows_with_what_is_held():
    before = resident()
    held = bytearray(64 * MIB)
    held[::4096] = b"x" * len(held[::4096])

    assert 50 * MIB < resident() - before < 100 * MIB


@pytest.mark.parametrize(("mib", "refuses"), [(80, False), (81, True), (100, True)])
def test_above_the_limit_less_a_fifth_no_metrics_are_taken_in(taken, mib, refuses):
    taken["mib"] = mib
    exporting, limit = Exporting(), MemoryLimit(MemoryLimiter(limit_mib=100))
    limit.keep(exporting)

    assert exporting.refuses_metrics is refuses
    assert exporting.shed_times == 0
    assert (limit.problem is not None) is refuses


def test_above_the_limit_what_waits_in_memory_is_given_up_and_it_is_said_once(taken, caplog):
    caplog.set_level("INFO")
    exporting, limit = Exporting(), MemoryLimit(MemoryLimiter(limit_mib=100, spike_limit_mib=10))
    for mib, after in ((101, 95), (95, None), (50, None)):
        taken |= {"mib": mib, "after": after}
        limit.keep(exporting)

    assert exporting.shed_times == 1
    assert not exporting.refuses_metrics
    assert [r.message.partition(":")[0] for r in caplog.records] == ["95 MiB of 100 are taken", "50 MiB are taken"]
