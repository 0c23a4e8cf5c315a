"""A real PgBouncer for the live tests, in front of a server of theirs. Like PostgreSQL it refuses to run as root."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import needs
from ports import free_port

NOBODY = 65534
PROGRAM = "/usr/sbin/pgbouncer"


class Bouncer:
    """`port`, `pid`, `directory`. Use it as a context manager."""

    def __init__(self, server_port, *, mode="transaction", size=5, port=None, host="127.0.0.1", users=(), **settings):
        if not Path(PROGRAM).exists():
            needs.part("PgBouncer")
        self.directory = Path(tempfile.mkdtemp(prefix="pgsonar-pgbouncer-"))
        self.port = port or free_port()
        names = self.directory / "users.txt"
        names.write_text("".join(f'"{name}" ""\n' for name in ("app", "stats", "postgres", *users)))
        self.config = self.directory / "pgbouncer.ini"
        self.address = settings.get("listen_addr", "127.0.0.1")
        known = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": self.directory,
            "auth_type": "trust",
            "auth_file": names,
            "admin_users": "postgres",
            "stats_users": "stats",
            "pool_mode": mode,
            "default_pool_size": size,
            "logfile": self.directory / "log",
            "ignore_startup_parameters": "extra_float_digits",
        }
        lines = "".join(f"{name} = {value}\n" for name, value in (known | settings).items())
        self.config.write_text(f"[databases]\npostgres = host={host} port={server_port}\n\n[pgbouncer]\n{lines}")
        self._process = None

    @property
    def pid(self):
        return self._process.pid

    def __enter__(self):
        as_nobody = {}
        if os.geteuid() == 0:
            as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        self._process = subprocess.Popen(
            [PROGRAM, str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_nobody
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                # Another process may answer on a shared port; the unix socket is its own.
                os.stat(self.directory / f".s.PGSQL.{self.port}")
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise RuntimeError(f"PgBouncer did not start: {(self.directory / 'log').read_text()[-500:]}")

    def __exit__(self, *error):
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
