"""What must run on any machine: no compiled part, no library but YAML and msgspec, no file but the configuration."""

import os
import subprocess
import sys

import pytest

# Refuses every import but the standard library's and those named, and every look at the machine.
PROGRAM = """
import os, sys, sysconfig
ALLOWED = {"pgsonar", "yaml", "_yaml", "msgspec", *sys.stdlib_module_names}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED or name in {"pgsonar._native", "pgsonar.sources", "pgsonar.exporters"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])
        if path not in READABLE and not path.startswith(CODE):
            raise RuntimeError(f"opened {path}")
    elif event.startswith(("socket.", "subprocess.", "os.exec", "os.fork")):
        raise RuntimeError(event)

from encodings import idna  # the standard library's own reading ends here
import argparse, json
from pgsonar.commands import main
READABLE = {os.path.abspath(word) for word in sys.argv[1:]}
CODE = tuple(os.path.abspath(path) + os.sep for path in {*sys.path, *sysconfig.get_paths().values()} if path)
sys.meta_path.insert(0, Blocker())
sys.addaudithook(watch)
sys.exit(main(sys.argv[1:]))
"""

CONFIG = """
receivers:
  sockets: {source: sock_diag}
  postgresql: {endpoint: "db.example.com:5432", passfile: /no/pgpass, tls: {ca_file: /no/db-ca.pem}}
  pgbouncer:
  serverlog: {include: [/no/such/*.log]}
exporters:
  otlp_http: {endpoint: "https://no-such-host.invalid/otlp", tls: {ca_file: /no/ca.pem}}
  otlp_grpc: {endpoint: "no-such-host.invalid:4317", tls: {cert_file: /etc/hostname, key_file: /etc/hostname}}
  file: {path: /no/such/out.jsonl}
  debug:
extensions:
  file_storage: {directory: /no/such}
service: {extensions: [file_storage]}
"""


@pytest.fixture
def run(tmp_path):
    def run_blocked(*words):
        (tmp_path / "agent.yaml").write_text(CONFIG)
        environ = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
        environ |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", PROGRAM, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, check=False)

    return run_blocked


@pytest.mark.parametrize("words", [("validate", "--config", "agent.yaml"), ("print-config", "--config", "agent.yaml")])
def test_a_configuration_for_another_host_is_looked_at_here(run, words):
    ended = run(*words)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "https://no-such-host.invalid/otlp" in ended.stdout


def test_components_are_listed_without_a_host(run):
    ended = run("components")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "sockets" in ended.stdout


def test_what_is_not_on_this_machine_is_a_warning(run):
    ended = run("validate", "--config", "agent.yaml")
    printed = " ".join(ended.stdout.split())

    assert ended.stdout.startswith("The configuration is valid.\n")
    for key, path in {
        "receivers.postgresql.passfile": "/no/pgpass",
        "receivers.postgresql.tls.ca_file": "/no/db-ca.pem",
        "exporters.otlp_http.tls.ca_file": "/no/ca.pem",
        "exporters.file.path": "/no/such",
    }.items():
        assert f"warning: {key}: {path!r} is not on this machine" in printed
    assert printed.count("warning:") == 4
    assert max(map(len, ended.stdout.splitlines())) <= 80


def test_what_would_look_at_the_machine_is_stopped_here(run):
    """The blocker blocks: a command that needs the host fails under it."""
    ended = run("scan", "--config", "agent.yaml")

    assert ended.returncode == 1
    assert "No module named 'pgsonar" in ended.stderr
