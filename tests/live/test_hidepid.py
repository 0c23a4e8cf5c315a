"""`pgsonar doctor` under each hidepid of a real /proc, with each of the means that it names: what helps, helps."""

import contextlib
import json

import pytest

import needs
from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import NOBODY
from playing import postgres, run_as

pytestmark = pytest.mark.live
STRANGER, GROUP = 65533, 54399
WORDS = {
    1: ("lists the processes of other users", "hidepid=1, noaccess"),
    2: ("hides the processes of other users", "hidepid=2, invisible"),
    4: ("only the processes that this one may trace", "hidepid=4, ptraceable"),
}


@pytest.fixture(scope="module")
def server():
    needs.root("to mount /proc anew")
    needs.programs("unshare", "setpriv")
    with postgres(16) as running, contextlib.closing(WireClient(running.port, "postgres")):
        yield running


def doctor(server, mode, means):
    """Its checks, under a /proc of its own."""
    user = str(NOBODY if means == "postgres" else STRANGER)
    capabilities = ("--inh-caps", "+sys_ptrace", "--ambient-caps", "+sys_ptrace") if means == "ptrace" else ()
    groups = ("--groups", str(GROUP)) if means == "group" else ("--clear-groups",)
    mounted = f'mount -t proc -o hidepid={mode},gid={GROUP} proc /proc && exec "$@"'
    us = ("setpriv", "--reuid", user, "--regid", user, *groups, *(capabilities or ("--inh-caps", "-all")))
    targets = f"receivers.sockets.targets=[{{name: db, port: {server.port}}}]"
    done = run_as(("unshare", "--mount", "sh", "-c", mounted, "sh", *us), "doctor", "--set", targets)
    if "mount:" in done.stderr:
        pytest.skip(f"cannot be installed: the right to mount /proc with hidepid={mode}")
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", WORDS)
@pytest.mark.parametrize("means", ["nothing", "group", "ptrace", "postgres"])
def test_each_mode_is_told_apart_and_what_is_said_to_help_helps(server, mode, means):
    checks = doctor(server, mode, means)

    helps = means in ("ptrace", "postgres") or (means == "group" and mode != 4)
    seen = [check for check in checks if "tell who they are by their titles" in check["what"]]
    assert bool(seen) is helps
    hidden = [check for check in checks if "/proc" in check["what"] and check["area"] == "AGENT"]
    if means == "ptrace" or (means == "group" and mode != 4):
        assert hidden == []
        return
    (told,) = hidden
    assert told["state"] == ("less" if seen else "broken")
    for words in WORDS[mode]:
        assert words in told["what"]
    assert "CAP_SYS_PTRACE" in told["remedy"]
    assert "as the user and group of the servers" in told["remedy"]
    assert (f"gid={GROUP}" in told["remedy"]) is (mode != 4)
    assert not any("runs here" in check["what"] for check in checks)
