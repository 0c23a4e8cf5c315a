"""Which findings count, from when on, and how severe they are."""

from dataclasses import replace

import pytest

from build import START, server
from pgsonar.config.schema import LeakKind, LeaksProcessor, Match, Override
from pgsonar.config.units import Duration, Instant
from pgsonar.detectors import rules
from pgsonar.episodes.overrides import Overrides
from pgsonar.model import SECOND, ClientProcess, Finding, Severity

NOW = 1_700_000_000 * SECOND
LEAK = Finding(
    kind="orphaned_backend",
    server="s1",
    identity="app@10.0.0.7",
    address="10.0.0.7",
    user="app",
    database="shop",
    onset=START,
    severity=Severity.HIGH,
    evidence={"postgresql.application_name": "checkout"},
    client=ClientProcess(7, 1, "python3", unit="checkout.service"),
)


def settle(*overrides, finding=LEAK, unix=NOW, **kinds):
    leaks = LeaksProcessor(overrides=list(overrides), **kinds)
    settled = Overrides(rules(leaks), leaks)
    return settled.settle([finding], {"s1": server(name="orders-prod")}, unix), settled


def one(*overrides, **how):
    (found,), _ = settle(*overrides, **how)
    return found


def test_without_an_override_the_kind_decides():
    assert (one().after, one().severity, one().is_shadow) == (2 * SECOND, Severity.HIGH, False)
    kind = LeakKind(after=Duration(5), severity="info")
    assert (one(orphaned_backend=kind).after, one(orphaned_backend=kind).severity) == (5 * SECOND, Severity.INFO)


@pytest.mark.parametrize(
    ("match", "is_it"),
    [
        (Match(), True),
        (Match(user="app", database="sh*"), True),
        (Match(user="app", database="other"), False),
        (Match(server="orders-*"), True),
        (Match(server="s1"), True),
        (Match(server="orders"), False),
        (Match(application="check*"), True),
        (Match(application="billing"), False),
        (Match(client="10.0.0.*"), True),
        (Match(client="checkout.service"), True),
        (Match(client="python?"), True),
        (Match(client="10.0.1.*"), False),
    ],
)
def test_what_an_override_matches(match, is_it):
    found = one(Override(match=match, after=Duration(60)))
    assert found.after == (60 if is_it else 2) * SECOND


def test_what_is_unknown_of_a_finding_matches_nothing():
    nobody = replace(LEAK, user=None, evidence={}, client=None)
    for match in (Match(user="*"), Match(application="*")):
        assert one(Override(match=match, severity="info"), finding=nobody).severity == Severity.HIGH


def test_the_first_match_of_the_kind_wins_and_what_it_does_not_say_is_as_for_the_kind():
    other_kind = Override(match=Match(), kinds=["idle_leak"], severity="critical")
    first = Override(match=Match(user="app"), kinds=["orphaned_backend"], severity="info")
    second = Override(match=Match(), after=Duration(99), severity="critical")

    assert (one(other_kind, first, second).severity, one(other_kind, first, second).after) == (
        Severity.INFO,
        2 * SECOND,
    )


def test_no_override_lowers_a_threshold_below_what_the_kind_allows():
    assert one(Override(match=Match(), after=Duration(0))).after == SECOND


def test_shadow_is_info_whatever_the_severity():
    shadow = one(Override(match=Match(), shadow=True, severity="critical"))
    assert (shadow.severity, shadow.is_shadow) == (Severity.INFO, True)
    assert one(orphaned_backend=LeakKind(shadow=True)).is_shadow
    assert not one(Override(match=Match(), shadow=False), orphaned_backend=LeakKind(shadow=True)).is_shadow


def test_a_silence_ends():
    silence = Override(match=Match(user="app"), silence_until=Instant.parse("2023-11-14T22:13:21Z"))
    found, settled = settle(silence)

    assert found == []
    assert settled.silenced == {("s1", "orphaned_backend"): 1}
    assert settle(silence, unix=NOW + SECOND)[0] != []


def test_a_kind_can_be_off_for_some_and_on_for_some():
    off_for_some = Override(match=Match(user="app"), enabled=False)
    assert settle(off_for_some)[0] == []
    assert settle(off_for_some, finding=replace(LEAK, user="x"))[0] != []

    on_for_some = Override(match=Match(user="app"), kinds=["orphaned_backend"], enabled=True)
    off = {"orphaned_backend": LeakKind(enabled=False)}
    assert settle(on_for_some, **off)[0] != []
    assert settle(on_for_some, finding=replace(LEAK, user="x"), **off)[0] == []


def test_a_silence_that_has_ended_makes_room_for_what_follows():
    past = Override(match=Match(user="app"), silence_until=Instant.parse("2023-01-01T00:00:00Z"))
    later = Override(match=Match(user="app"), after=Duration(60))
    assert one(past, later).after == 60 * SECOND
