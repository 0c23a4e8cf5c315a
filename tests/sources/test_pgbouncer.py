"""The console, as newer versions than the one in tests/live write it (https://www.pgbouncer.org/usage.html)."""

from pgsonar.model import Endpoint
from pgsonar.sources.pgbouncer import ConsoleReader

# PgBouncer 1.24: more columns, some in other places, none of ours gone.
ROWS = {
    "show databases": [
        {
            "name": "shop",
            "host": "10.0.0.1",
            "port": 5432,
            "database": "shop",
            "force_user": None,
            "pool_size": 20,
            "min_pool_size": 0,
            "reserve_pool_size": 0,
            "server_lifetime": 3600,
            "pool_mode": "session",
            "load_balance_hosts": None,
            "max_connections": 0,
            "current_connections": 2,
            "max_client_connections": 0,
            "current_client_connections": 3,
            "paused": 1,
            "disabled": 0,
        }
    ],
    "show pools": [
        {
            "database": "shop",
            "user": "app",
            "cl_active": 3,
            "cl_waiting": 1,
            "cl_active_cancel_req": 0,
            "cl_waiting_cancel_req": 0,
            "sv_active": 2,
            "sv_active_cancel": 1,
            "sv_being_canceled": 1,
            "sv_idle": 4,
            "sv_used": 1,
            "sv_tested": 0,
            "sv_login": 0,
            "maxwait": 2,
            "maxwait_us": 500000,
            "pool_mode": "session",
            "load_balance_hosts": None,
        },
        {
            "database": "pgbouncer",
            "user": "pgbouncer",
            "cl_active": 1,
            "cl_waiting": 0,
            "sv_active": 0,
            "sv_idle": 0,
            "sv_used": 0,
            "maxwait": 0,
            "maxwait_us": 0,
            "pool_mode": "statement",
        },
    ],
    "show clients": [
        {
            "type": "C",
            "user": "app",
            "database": "shop",
            "replication": "none",
            "state": "active",
            "addr": "::ffff:10.0.0.9",
            "port": 40112,
            "local_addr": "::ffff:10.0.0.5",
            "local_port": 6432,
            "connect_time": "2026-01-02 03:04:05 UTC",
            "request_time": "2026-01-02 03:04:05 UTC",
            "wait": 0,
            "wait_us": 0,
            "close_needed": 0,
            "ptr": "0x1",
            "link": "0x9",
            "remote_pid": 0,
            "tls": "",
            "application_name": "checkout",
            "prepared_statements": 2,
            "id": 17,
        }
    ],
    "show servers": [
        {
            "type": "S",
            "user": "app",
            "database": "shop",
            "replication": "none",
            "state": "active",
            "addr": "10.0.0.1",
            "port": 5432,
            "local_addr": "10.0.0.5",
            "local_port": 51000,
            "wait": 0,
            "wait_us": 0,
            "close_needed": 0,
            "ptr": "0x9",
            "link": "0x1",
            "remote_pid": 4711,
            "tls": "TLSv1.3/x",
            "application_name": "checkout",
            "prepared_statements": 2,
            "id": 18,
        }
    ],
    "show stats": [
        {
            "database": "shop",
            "total_server_assignment_count": 42,
            "total_xact_count": 99,
            "total_query_count": 99,
            "total_wait_time": 2500000,
            "total_client_parse_count": 1,
        },
        {"database": "pgbouncer", "total_server_assignment_count": 0, "total_xact_count": 5, "total_wait_time": 0},
    ],
    "show config": [
        {"key": "pool_mode", "value": "session", "default": "session", "changeable": "yes"},
        {"key": "auth_query", "value": "SELECT secret", "default": "", "changeable": "yes"},
    ],
    "show version": [{"version": "PgBouncer 1.24.1"}],
}


class Login:
    host, port = "10.0.0.5", 6432

    def ask(self, sql):
        return ROWS[sql]


def test_a_newer_console_is_read_by_the_names_of_its_columns():
    told = ConsoleReader(Login()).read()

    (pool,) = told.pools
    assert (pool.servers_active, pool.servers_idle, pool.clients_waiting, pool.max_wait) == (2, 5, 1, 2.5)
    assert (pool.size, pool.mode, pool.paused) == (20, "session", True)
    (client,), (server,) = told.clients, told.servers
    assert (client.address, client.port, client.local) == ("10.0.0.9", 40112, Endpoint("10.0.0.5", 6432))
    assert (client.application, client.link) == ("checkout", server.ptr)
    assert (server.local, server.remote, server.backend_pid) == (
        Endpoint("10.0.0.5", 51000),
        Endpoint("10.0.0.1", 5432),
        4711,
    )
    assert (told.version, told.settings) == ("1.24.1", {"pool_mode": "session"})


def test_since_1_23_waits_are_counted_whatever_the_pooling():
    told = ConsoleReader(Login()).read()
    assert (told.waits, told.wait_time) == ({"shop": 42}, {"shop": 2500000})
