"""The ladder of privileges climbed with a real agent and a real server: what each rung of tests/rungs.py says is so.

The rule: the agent says itself what it cannot tell (`pgsonar doctor`), as another user than the server's, with the
capabilities of the rung and no others.
"""

import contextlib
import json

import pytest

import needs
from networks import wired
from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import NOBODY
from playing import postgres, run_as
from rungs import BESIDE, HOST, RULES, Means, told

pytestmark = [pytest.mark.live, pytest.mark.netns]
STRANGER = 65533
SERVER_KINDS = {rule.kind for rule in RULES.servers}
CAPABILITIES = {"ptrace": "sys_ptrace", "dac": "dac_read_search", "admin": "sys_admin", "net_admin": "net_admin"}
RUNGS = (
    Means(),
    Means(as_postgres=True),
    Means(dac=True),
    Means(ptrace=True),
    Means(admin=True),
    Means(ptrace=True, admin=True),
    Means(as_postgres=True, admin=True),
    Means(net_admin=True),
    Means(ptrace=True, dac=True, admin=True),
    Means(login=True),
)


@pytest.fixture(scope="module", params=[BESIDE, HOST], ids=lambda place: place.name)
def installation(request):
    """A server with a session that works and one in a transaction, in this network namespace or in one of its own."""
    needs.root("to be somebody else")
    needs.programs("setpriv")
    with contextlib.ExitStack() as stack:
        namespace = stack.enter_context(wired()).on_server() if request.param is HOST else contextlib.nullcontext()
        with namespace:  # what is made there stays there
            server = stack.enter_context(postgres(16, unix_socket_permissions="0777"))
            working, waiting = (
                stack.enter_context(contextlib.closing(WireClient(server.port, "postgres"))) for _ in range(2)
            )
        server.data_directory.parent.chmod(0o711)  # a login comes by its socket
        waiting.execute("begin")
        working.send_query("select pg_sleep(600)")
        yield request.param, server


def cannot_tell(server, means):
    """What `pgsonar doctor` cannot tell of it with these means."""
    user = NOBODY if means.as_postgres else STRANGER
    held = ",".join(f"+{name}" for field, name in CAPABILITIES.items() if getattr(means, field)) or "-all"
    ambient = [] if held == "-all" else ["--ambient-caps", held]
    place = f"{server.data_directory.parent}:{server.port}"
    login = ["--set", f"receivers.postgresql={{endpoint: '{place}', username: postgres}}"] if means.login else []
    us = ("setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--inh-caps", held, *ambient)
    targets = f"receivers.sockets.targets=[{{name: db, port: {server.port}}}]"
    done = run_as(us, "doctor", *login, "--set", targets)
    assert not done.stderr, done.stderr
    costs = (check["costs"].split(", ") for check in json.loads(done.stdout) if check["area"] == "SERVER db")
    return {kind for cost in costs for kind in cost} & SERVER_KINDS


@pytest.mark.parametrize("means", RUNGS, ids=lambda means: "+".join(k for k, v in vars(means).items() if v) or "none")
def test_an_agent_on_a_rung_tells_what_the_ladder_says(installation, means):
    place, server = installation

    assert cannot_tell(server, means) == SERVER_KINDS - told(place, means)
