"""Servers that are called otherwise, stand behind a wrapper, or have been given children of others; on real ones."""

import contextlib
import ctypes
import json
import os
import signal
import time
from pathlib import Path

import pytest

from pgsonar.demo.clients import WireClient
from playing import ask, finder, postgres

pytestmark = pytest.mark.live
MAJORS = [15, 16, 18]
PR_SET_CHILD_SUBREAPER = 36
AS_ITS_OWN_NAME = ["bash", "-c", 'exec -a "$0" "$@"']


def with_port(port):
    return [server for server in finder().find() if server.port == port]


def number_of(server):
    """Of the postmaster, whatever stands before it."""
    return int((server.data_directory / "postmaster.pid").read_text().splitlines()[0])


def scanned(server, tmp_path):
    targets = f"{{sockets: {{targets: [{{port: {server.port}}}]}}}}"
    code, told = ask(tmp_path, "scan", targets, "--format", "json")
    assert code == 0
    return json.loads(told)


@pytest.mark.parametrize("major", MAJORS)
def test_a_server_is_found_by_any_name_and_behind_a_wrapper(major):
    with postgres(major) as server:
        twin = number_of(server)
        assert [(found.pid, found.notes) for found in with_port(server.port)] == [(twin, ())]
        program = server.binaries / "postgres"
        for name in ("edb-postgres", ".postgres-wrapped"):
            link = server.data_directory.parent / name
            link.symlink_to(program)
            server.stop()
            server.start(program=[*AS_ITS_OWN_NAME, str(program), str(link)])
            comm = Path(f"/proc/{server.pid}/comm").read_text().strip()
            assert (comm, [found.pid for found in with_port(server.port)]) == (name[:15], [server.pid])
        stays = server.data_directory.parent / "postgres"
        stays.write_text(f'#!/bin/bash\n"{program}" "$@"; exit $?\n')
        stays.chmod(0o755)
        server.stop()
        server.start(program=[str(stays)])
        postmaster = number_of(server)
        try:
            assert postmaster != server.pid
            assert [found.pid for found in with_port(server.port)] == [postmaster]
        finally:
            os.kill(postmaster, signal.SIGQUIT)


@pytest.mark.parametrize("major", MAJORS)
def test_children_that_a_postmaster_was_given_hold_no_slot(major, tmp_path):
    with postgres(major, max_connections=10) as server:
        server.stop()
        server.start(preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        with contextlib.closing(WireClient(server.port, "postgres")) as client:
            before = scanned(server, tmp_path)
            for _ in range(6):
                client.execute("copy (select 1) to program 'setsid sleep 60 </dev/null >/dev/null 2>&1 & exit 0'")
            orphans = wait_for_orphans(server.pid, 6)
            try:
                after = scanned(server, tmp_path)
            finally:
                for pid in orphans:
                    os.kill(pid, signal.SIGKILL)

    for told in (before, after):
        (ledger,) = told["ledgers"]
        assert (ledger["used"], ledger["holders"]["session"], ledger["holders"]["unaccounted"]) == (1, 1, 0)
    assert before["servers"][0]["notes"] == []
    (note,) = after["servers"][0]["notes"]
    assert "hold no slot: 6 sleep" in note


def wait_for_orphans(postmaster, number):
    deadline = time.monotonic() + 5
    found = []
    while len(found) < number and time.monotonic() < deadline:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        found = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]
    return found
