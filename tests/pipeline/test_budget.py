"""How the interval follows the CPU time that looking takes."""

import pytest

from pgsonar.model import SECOND
from pgsonar.pipeline.budget import LONGEST, Budget, Usage

MS = SECOND // 1000


class Agent:
    """An agent of which a scan costs so much, and a second of everything else so much, in ms."""

    def __init__(self, budget, scan, rest):
        self.budget, self.scan, self.rest = budget, scan, rest
        self.at = self.process = self.work = 0

    def run(self, seconds):
        for _ in range(seconds):
            work = round(self.scan * MS / self.budget.interval)
            self.at += SECOND
            self.work += work
            self.process += work + round(self.rest * MS)
            self.budget.settle(Usage(self.at, self.process, self.work))
        return (self.scan / self.budget.interval + self.rest) / 1000


def test_what_fits_is_done_as_often_as_asked():
    agent = Agent(Budget(0.02, 0.1), scan=1.0, rest=5.0)

    assert agent.run(60) == pytest.approx(0.015)
    assert (agent.budget.interval, agent.budget.reason) == (0.1, "configured")
    assert agent.budget.taken == pytest.approx(0.015)


def test_what_does_not_fit_is_done_as_often_as_it_fits():
    agent = Agent(Budget(0.02, 0.1), scan=5.0, rest=5.0)

    assert agent.run(60) == pytest.approx(0.02, rel=0.02)
    assert agent.budget.interval == pytest.approx(5 / 15, rel=0.02)
    assert agent.budget.reason == "max_cpu"


def test_it_returns_to_what_was_asked_when_the_load_is_over():
    agent = Agent(Budget(0.02, 0.1), scan=5.0, rest=5.0)
    agent.run(60)
    agent.scan = 1.0
    agent.run(60)

    assert (agent.budget.interval, agent.budget.reason) == (0.1, "configured")


def test_a_slightly_lighter_load_does_not_make_it_swing():
    agent = Agent(Budget(0.02, 0.1), scan=5.0, rest=5.0)
    agent.run(60)
    before = agent.budget.interval
    agent.scan = 4.8
    agent.run(60)

    assert agent.budget.interval == before


def test_looking_keeps_a_quarter_of_the_budget_whatever_else_is_dear():
    agent = Agent(Budget(0.02, 0.1), scan=1.0, rest=100.0)
    agent.run(60)

    assert agent.budget.interval == pytest.approx(1 / 5, rel=0.02)


def test_it_never_looks_less_often_than_every_few_seconds_nor_than_asked():
    for asked in (0.1, 8.0):
        agent = Agent(Budget(0.001, asked), scan=5000.0, rest=0.0)
        agent.run(120)

        assert agent.budget.interval == max(LONGEST, asked)
    assert agent.budget.reason == "configured"


def test_the_first_seconds_decide_nothing():
    budget = Budget(0.02, 0.1)
    for second in range(4):
        budget.settle(Usage(second * SECOND, second * SECOND, second * SECOND))

    assert budget.taken is None
    assert budget.interval == 0.1
