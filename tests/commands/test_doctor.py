"""`pgsonar doctor`: what it says of a real server, of one that is not there, and of logins that fail."""

import contextlib
import json
import subprocess
import sys

import pytest

import needs
from pgsonar.commands import doctor
from pgsonar.config.load import load
from pgsonar.demo.clients import WireClient
from pgsonar.sources.privileges import CAPABILITIES, privileges
from pgsonar.views.doctor import Check, doctor_lines
from playing import ask, environment, postgres


def test_the_report_fits_80_columns_and_counts():
    checks = [
        Check("A", "good"),
        Check("A", "poor " * 30, "less", "much " * 20, "a word " * 20),
        Check("B", "gone", "broken", "all"),
    ]
    lines = doctor_lines(checks)

    assert max(map(len, lines)) <= 80
    assert lines[:2] == ["A", "  ok      good"]
    assert lines[-1] == "1 of what is configured does not work."
    assert doctor_lines(checks[:2])[-1] == "All that is configured works; 1 could be better."
    assert doctor_lines(checks[:1])[-1] == "All is well."


def test_capabilities_are_read_from_the_kernels_account(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nCapEff:\t0000000000200004\n")
    mine = privileges(str(tmp_path))

    assert mine.capabilities == ("CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN")
    assert mine.hides_processes
    assert not privileges().hides_processes
    assert [bit for bit, _ in CAPABILITIES.values()] == [2, 19, 21], "linux/capability.h"


@pytest.mark.parametrize(("place", "state"), [("new/state", "ok"), ("file/state", "broken")])
def test_a_state_directory_is_looked_at_and_not_made(tmp_path, place, state):
    (tmp_path / "file").touch()
    config = load(
        [], [f"extensions.file_storage.directory={tmp_path / place}", "service.extensions=[file_storage]"], {}
    )
    (check,) = doctor.state(config)

    assert check.state == state
    assert not (tmp_path / "new").exists()
    assert list(doctor.state(load([], [], {}))) == []


@pytest.mark.live
def test_a_server_with_a_login_and_a_log_is_well(tmp_path):
    with postgres(16) as server:
        log = server.data_directory.parent / "log"
        receivers = (
            f"{{sockets: {{targets: [{{port: {server.port}}}]}}, serverlog: {{include: ['{log}']}}, "
            f"postgresql: {{endpoint: '127.0.0.1:{server.port}', username: postgres}}}}"
        )
        code, text = ask(tmp_path, "doctor", receivers)
        _, told = ask(tmp_path, "doctor", receivers, "--format", "json")

    assert code == 0, text
    assert "PostgreSQL 16" in text
    assert "27 slots for applications, by pg_control" in text
    assert "receivers.postgresql answers" in text
    assert "logs of 1 servers are followed" in text
    assert {check["state"] for check in json.loads(told)} <= {"ok", "less"}


@pytest.mark.live
def test_what_is_configured_and_does_not_work_is_an_exit_code_and_a_hint(tmp_path):
    with postgres(16) as server:
        receivers = (
            f"{{sockets: {{targets: [{{port: {server.port}}}, {{port: 1}}]}}, serverlog: {{include: [/no/such]}}, "
            f"postgresql: {{endpoint: '127.0.0.1:{server.port}', username: nobody_here}}}}"
        )
        code, text = ask(tmp_path, "doctor", receivers)

    assert code == 1
    joined = " ".join(text.split())
    assert "the target 1 matches no running server" in joined
    assert 'role "nobody_here" does not exist' in joined
    assert "no log matches /no/such" in joined
    assert "3 of what is configured does not work." in text


@pytest.mark.live
def test_without_privileges_it_says_what_each_would_add():
    needs.root("to give it up")
    with postgres(16) as server, contextlib.closing(WireClient(server.port, "postgres")):
        program = f"import sys; sys.path[:0] = {sys.path!r}; from pgsonar.commands import main; sys.exit(main())"
        nobody = [
            "setpriv",
            "--reuid=54321",
            "--regid=54321",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]
        command = [
            sys.executable,
            "-c",
            program,
            "doctor",
            "--set",
            f"receivers.sockets.targets=[{{port: {server.port}}}]",
        ]
        ran = subprocess.run(
            [*nobody, *command],
            capture_output=True,
            text=True,
            env={**environment(), "HOME": "/"},
            cwd="/",
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    text = " ".join(ran.stdout.split())
    assert "as uid 54321, no capability that matters" in text
    assert "pg_control (running limits, role): run as the postgres user" in text
    assert "descriptors of its processes may not be looked into" in text
    assert "could be better" in text
