"""Records the scenarios anew: each kind's play and its near miss, on a real server (`make scenarios`; needs root).

A recording is what `pgsonar record` makes of a play. It is committed, so that a scenario is played through the pipeline
in milliseconds, wherever there is no server; the plays themselves run against real servers in tests/live.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / part) for part in ("agent", "tests", "tests/live", "tests/scenarios")]

from installation import installed, receivers  # noqa: E402
from playing import environment  # noqa: E402 - found by the lines above
from plays import CONFIGURATION, PLAYS, TWINS  # noqa: E402
from scenarios import TABLE, events, table  # noqa: E402

# kind: the play that shows it, and the near miss
SCENARIOS = {
    "idle_in_transaction": ("transaction_left_open", "transaction_of_short_statements"),
    "idle_leak": ("idle_connections_that_grow", "pool_at_rest"),
    "orphaned_backend": ("client_killed_while_it_waits_for_a_lock", "clients_killed_while_idle_or_in_transaction"),
    "orphaned_backend_no_socket": ("client_reset_with_unread_replies", "clients_killed_while_idle_or_in_transaction"),
    "half_open": ("peers_that_fall_silent", "keepalives_that_are_answered"),
    "network_path": ("network_cut", "keepalives_that_are_answered"),
    "slow_reader": ("slow_reader_that_was_cancelled", "reader_that_is_slow_but_moves"),
    "auth_stuck": ("password_never_sent", "logins_that_take_their_time"),
    "prestartup_stuck": ("clients_that_never_say_who_they_are", "logins_that_take_their_time"),
    "pool_exhausted": ("slots_run_out", "slots_that_are_busy_and_not_short"),
    "role_or_database_limit": ("role_at_its_limit", "role_below_its_limit"),
    "accept_queue": ("postmaster_that_does_not_accept", "postmaster_that_pauses"),
    "pooler_forgotten_server": ("pooler_that_forgets_a_server", "client_that_leaves_after_its_query"),
    "connection_thrash": ("clients_that_connect_for_each_statement", "clients_that_connect_now_and_then"),
    "backend_busy_unread_input": ("input_left_unread", "load_that_comes_faster_than_it_is_read"),
    "long_query": ("statement_that_runs_long", "many_short_statements"),
    "unaccounted": ("slots_that_pg_stat_activity_does_not_show", "logins_that_take_their_time"),
    "pooler_waiting": ("pooler_whose_clients_wait", "clients_that_wait_for_a_moment"),
    "pooler_pinned": ("pooler_whose_servers_are_pinned", "sessions_that_leave_room"),
    "client_socket_leak": ("sockets_that_the_server_has_closed", "sessions_all_closed_at_once"),
}
MAJOR = 16
NEAR = 15.0  # seconds of a near miss: longer than any threshold, and than all windows together


@contextlib.contextmanager
def recorded(world, file):
    """What happens meanwhile is in the file."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "agent.yaml"
        targets, more = receivers(world)
        leaks = json.dumps(CONFIGURATION)
        config.write_text(f"receivers: {{sockets: {{targets: {targets}}}{more}}}\nprocessors: {{leaks: {leaks}}}\n")
        made = Path(folder) / "recording"
        command = [sys.executable, "-m", "pgsonar", "record", str(made), "--config", str(config)]
        with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as recorder:
            time.sleep(3)  # until it has found the server and asked the logins
            try:
                yield
                time.sleep(2)
            finally:
                recorder.send_signal(signal.SIGTERM)
        file.write_bytes(made.read_bytes())


def write_table(kind):
    """What the recording opens, into the page: to be read before it is committed."""
    page, rows = HERE / f"{kind}.md", table(events(f"{kind}.rec"))
    page.write_text(TABLE.sub(lambda found: found[1] + rows + found[3], page.read_text()))


def main(kinds, *, near_only):
    """Records these, or all; with `--near` the near misses alone."""
    with installed(MAJOR) as world:
        for kind in kinds or SCENARIOS:
            name, near = SCENARIOS[kind]
            if not near_only:
                with recorded(world, HERE / f"{kind}.rec"), PLAYS[name](world) as expected:
                    time.sleep(max(one.after + one.late for one in expected) + 2)
            with recorded(world, HERE / f"{kind}.near.rec"):
                TWINS[near][1](world, near, NEAR)
            write_table(kind)
            sizes = ", ".join(f"{(HERE / f'{kind}{end}').stat().st_size >> 10} KiB" for end in (".rec", ".near.rec"))
            print(f"{kind}: {sizes}", flush=True)


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "--near"], near_only="--near" in sys.argv)
