"""What `processors.leaks` may say, and the errors that name the key."""

import pytest

from pgsonar.config.units import Instant


def test_overrides_are_read(read):
    config = read(
        "processors:\n"
        "  leaks:\n"
        "    half_open: {probe: true}\n"
        "    overrides:\n"
        "      - {match: {user: 'app*'}, kinds: [idle_in_transaction], after: 10m, severity: info}\n"
        "      - {match: {server: db}, silence_until: 2026-11-21T10:00:00Z}\n"
        "      - {match: {}, silence_until: '2026-11-21T10:00:00Z'}\n"
    )
    first, *silences = config.leaks.overrides

    assert config.leaks.half_open.probe
    assert (first.match.user, first.kinds, first.after, first.severity) == (
        "app*",
        ["idle_in_transaction"],
        600,
        "info",
    )
    assert {one.silence_until for one in silences} == {Instant(1_795_255_200 * 10**9)}


def test_numbers_and_state_do_not_go_together(refused, read):
    state = "extensions: {file_storage: }\nservice: {extensions: [file_storage], telemetry: {redaction: {users: %s}}}"
    assert refused(state % "redact").startswith("service.telemetry.redaction.users: redact numbers clients anew")
    assert read(state % "keep").file_storage is not None


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("overrides: [{match: {user: x}}]", "overrides[0]", "changes nothing"),
        ("overrides: [{after: 1s}]", "overrides[0].match", "is required"),
        ("overrides: [{match: {usr: x}, after: 1s}]", "overrides[0].match.usr", "unknown key"),
        ("overrides: [{match: {}, kinds: [idle_leek], after: 1s}]", "overrides[0].kinds[0]", "idle_leak"),
        ("overrides: [{match: {}, silence_until: tomorrow}]", "overrides[0].silence_until", "2026-01-31T08:00:00Z"),
        ("overrides: [{match: {}, silence_until: 2026-11-21}]", "overrides[0].silence_until", "2026-01-31T08:00:00Z"),
        ("overrides: [{match: {}, after: soon}]", "overrides[0].after", "expected a duration"),
        ("idle_leak: {window: 0}", "idle_leak.window", "expected at least 1s"),
        ("idle_leak: {min_members: 0}", "idle_leak.min_members", "expected at least 1"),
        ("half_open: {probe: maybe}", "half_open.probe", "true or false"),
        ("role_or_database_limit: {warning: 95%}", "role_or_database_limit", "expected warning < high < critical"),
    ],
)
def test_what_is_wrong_is_named(refused, text, key, says):
    message = refused(f"processors: {{leaks: {{{text}}}}}")
    assert message.startswith(f"processors.leaks.{key}: ")
    assert says in message
