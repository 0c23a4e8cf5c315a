"""What /proc hides is told by its mount options, in words and in numbers, else by what is seen of the first process."""

import os

import pytest

from pgsonar.sources.hidepid import hidden
from pgsonar.sources.privileges import hidden_processes, privileges

PTRACE = 1 << 19


@pytest.fixture
def proc(tmp_path):
    def make(options, *, first="read", capabilities=0, users="0 0 4294967295"):
        root = tmp_path / "proc"
        (root / "self").mkdir(parents=True)
        (root / "self" / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
        (root / "self" / "uid_map").write_text(f"{users:>30}\n")
        if options is not None:
            lines = [
                f"22 27 0:21 / {root} rw,relatime - proc proc rw",
                f"23 27 0:22 / {root} rw,nosuid shared:5 master:1 - proc proc rw{options}",
                "24 27 0:22 / /elsewhere/proc rw - proc proc rw,hidepid=2",
                f"25 27 0:23 / {root}/sys rw - tmpfs none rw,hidepid=2",
            ]
            (root / "self" / "mountinfo").write_text("\n".join(lines) + "\n")
        if first != "missing":
            (root / "1").mkdir()
        if first == "read":
            (root / "1" / "stat").write_text("1 (init) S")
        return str(root)

    return make


@pytest.mark.parametrize(
    ("written", "first", "told"),
    [
        ("1", "listed", "lists the processes of other users, and nothing of them can be read"),
        ("noaccess", "listed", "hidepid=1, noaccess"),
        ("2", "missing", "hides the processes of other users"),
        ("invisible", "missing", "hidepid=2, invisible"),
        ("4", "missing", "shows only the processes that this one may trace"),
        ("ptraceable", "missing", "hidepid=4, ptraceable"),
        ("ptraceable", "read", "hidepid=4, ptraceable"),  # the first process may be ours
    ],
)
def test_the_mode_is_told_by_the_mount_that_lies_uppermost(proc, monkeypatch, written, first, told):
    monkeypatch.setattr(os, "getegid", lambda: 4711)
    monkeypatch.setattr(os, "getgroups", list)
    found = hidden(proc(f",hidepid={written}", first=first))

    assert told in found.what
    assert "CAP_SYS_PTRACE" in found.helps


@pytest.mark.parametrize("options", ["", ",hidepid=0", ",hidepid=off", None])
def test_nothing_is_hidden_without_the_option(proc, options):
    assert hidden(proc(options)) is None


@pytest.mark.parametrize("mode", ["noaccess", "invisible"])
def test_the_group_of_the_mount_is_named_where_it_lets_in(proc, mode):
    strange = max({os.getegid(), *os.getgroups()}) + 4711

    assert f"gid={strange}" in hidden(proc(f",gid={strange},hidepid={mode}", first="missing")).helps


def test_a_mount_without_a_group_lets_in_the_group_root(proc, monkeypatch):
    monkeypatch.setattr(os, "getegid", lambda: 4711)
    monkeypatch.setattr(os, "getgroups", list)

    assert "a member of the group root (it has no gid=)" in hidden(proc(",hidepid=invisible", first="missing")).helps


@pytest.mark.parametrize(("mode", "is_let_in"), [("noaccess", True), ("invisible", True), ("ptraceable", False)])
def test_members_of_the_group_see_all_but_what_takes_tracing(proc, mode, is_let_in):
    assert (hidden(proc(f",gid={os.getegid()},hidepid={mode}")) is None) is is_let_in


@pytest.mark.parametrize("mode", ["noaccess", "invisible", "ptraceable"])
def test_who_may_trace_sees_all(proc, mode):
    assert hidden(proc(f",gid=4711,hidepid={mode}", capabilities=PTRACE)) is None


def test_a_capability_of_a_user_namespace_shows_nothing_of_the_host(proc, monkeypatch):
    monkeypatch.setattr(os, "getegid", lambda: 4711)
    monkeypatch.setattr(os, "getgroups", list)

    assert hidden(proc(",hidepid=invisible", first="missing", capabilities=PTRACE, users="0 100000 65536")) is not None


@pytest.mark.parametrize(("first", "told"), [("missing", "/proc hides"), ("listed", "/proc lists")])
def test_where_the_options_say_nothing_it_is_told_by_what_is_seen(proc, first, told):
    root = proc(None, first=first)

    assert hidden(root).what.startswith(told)
    (lack,) = hidden_processes(root)
    assert lack.sentence.startswith(told)
    assert "so no server of theirs is found (run as a member of the group" in lack.sentence
    assert privileges(root).hides_processes
