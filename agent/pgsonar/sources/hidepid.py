"""What /proc hides of other users' processes, and what would show them (man 5 proc, mount options hidepid and gid).

The rule: told by the mount options, and by whether the first process can be read where these say nothing. What helps
differs: the group of gid= is let in under 1 and 2, whoever may trace a process under all of them (has_pid_permissions
in fs/proc/base.c), and that is the same user and group, or CAP_SYS_PTRACE.
"""

from __future__ import annotations

import grp
import os
from pathlib import Path
from typing import NamedTuple

_PTRACE = 19  # CAP_SYS_PTRACE, linux/capability.h
_MODES = {"1": "noaccess", "2": "invisible", "4": "ptraceable"}  # since Linux 5.8 words, before that the numbers
_NUMBERS = {word: number for number, word in _MODES.items()}
_ALL_USERS = ["0", "0", str(2**32 - 1)]  # of the namespace that the host began with (man 7 user_namespaces)
_AS_THEM = "as the user and group of the servers"


class Hidden(NamedTuple):
    """That the processes of other users are not seen."""

    what: str
    helps: str


def hidden(proc: str = "/proc") -> Hidden | None:
    """What this process cannot see in /proc because others own it; None: it sees all."""
    mode, gid = _mount_options(proc)
    if mode is None:
        seen = _first_process(proc)
        return None if seen == "read" else _by_what_is_seen(seen)
    is_member = gid in {os.getegid(), *os.getgroups()}
    return None if (is_member and mode != "ptraceable") or _may_trace(proc) else _by_mode(mode, gid)


def _by_mode(mode: str, gid: int) -> Hidden:
    option = f"mounted with hidepid={_NUMBERS[mode]}, {mode}"
    if mode == "ptraceable":
        what = f"/proc shows only the processes that this one may trace ({option})"
        return Hidden(what, f"run with CAP_SYS_PTRACE, or {_AS_THEM}; its mount option gid= lets nobody in")
    if mode == "noaccess":
        what = f"/proc lists the processes of other users, and nothing of them can be read ({option})"
    else:
        what = f"/proc hides the processes of other users ({option})"
    group = f"the group {_name(gid)} (its mount option gid={gid})" if gid else "the group root (it has no gid=)"
    return Hidden(what, f"run as a member of {group}, {_AS_THEM}, or with CAP_SYS_PTRACE")


def _by_what_is_seen(seen: str) -> Hidden:
    helps = f"run as a member of the group in its mount option gid=, {_AS_THEM}, or with CAP_SYS_PTRACE"
    if seen == "listed":
        what = "/proc lists the processes of other users, and nothing of them can be read"
        return Hidden(what, f"{helps}; or a policy of the host forbids it")
    return Hidden("/proc hides the processes of other users", helps)


def _first_process(proc: str) -> str:
    """What is seen of process 1: it can be `read`, is `listed`, or is `missing`."""
    try:
        Path(proc, "1", "stat").read_bytes()
    except OSError:
        return "listed" if Path(proc, "1").exists() else "missing"
    return "read"


def _mount_options(proc: str) -> tuple[str | None, int]:
    """The mode in words and the group of the mount that lies uppermost; None: nothing is hidden, or it is not known."""
    try:
        lines = Path(proc, "self", "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None, 0
    mode, gid = None, 0
    for line in lines:
        mount, _, of_file_system = line.partition(" - ")
        fields, (kind, _, *options) = mount.split(), (of_file_system.split() or ["", ""])
        if len(fields) > 4 and fields[4] == proc and kind == "proc":
            told = dict(option.partition("=")[::2] for option in "".join(options).split(","))
            written = told.get("hidepid", "")
            mode = _MODES.get(written, written if written in _NUMBERS else None)
            gid = int(told.get("gid", "0"))
    return mode, gid


def _may_trace(proc: str) -> bool:
    """Whether the capability is held that counts: one of a user namespace is none for what runs outside it."""
    try:
        users = Path(proc, "self", "uid_map").read_text(encoding="ascii", errors="replace").split()
        told = Path(proc, "self", "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    effective = next((int(line.split()[1], 16) for line in told if line.startswith("CapEff:")), 0)
    return users == _ALL_USERS and bool(effective >> _PTRACE & 1)


def _name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
