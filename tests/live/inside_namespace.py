"""Run by a test inside a network namespace of its own: a server, and a client that dies during a query on demand."""

import subprocess
import sys
import time
from pathlib import Path

from pgsonar.demo.clients import WireClient
from pgsonar.demo.postgres import Postgres

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
with Postgres(Path(sys.argv[1]), {"max_connections": 30}) as server:
    client = WireClient(server.port, "postgres")
    client.send_query("select pg_sleep(600)")
    print(server.pid, client.backend_pid, client.port, time.time(), flush=True)
    sys.stdin.readline()
    client.socket.close()
    print(time.time(), flush=True)
    sys.stdin.read()
