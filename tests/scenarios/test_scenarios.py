"""Every scenario's recording opens what its page says, and the near miss nothing; without its detector it is missed."""

import msgspec
import pytest

from pgsonar.config.schema import LeaksProcessor
from scenarios import HERE, KINDS, events, expected, leaks, table


def opened(told):
    return [row.attributes["pgsonar.leak.kind"] for row in told if row.event_name == "pgsonar.leak.opened"]


def test_every_kind_has_a_scenario():
    assert set(KINDS) == set(LeaksProcessor.__struct_fields__) - {"overrides", "max_duration"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_scenario_opens_what_its_page_says_and_all_of_it_ends(kind):
    told = events(f"{kind}.rec")

    assert kind in opened(told)
    assert table(told) == expected(kind)
    assert len([row for row in told if row.event_name == "pgsonar.leak.resolved"]) == len(opened(told))


@pytest.mark.parametrize("kind", KINDS)
def test_the_near_miss_opens_nothing(kind):
    assert [row.body for row in events(f"{kind}.near.rec")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_detector_it_is_missed(kind):
    of_kind = getattr(leaks(), kind)
    told = events(f"{kind}.rec", leaks(**{kind: msgspec.structs.replace(of_kind, enabled=False)}))
    assert kind not in opened(told)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole(kind):
    text = (HERE / f"{kind}.md").read_text()
    assert text.startswith(f"# `{kind}`: ")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        *("## Timeline", "## Expected episodes", "## The near miss")
    ]
