"""What a login tells, from rows as a server gives them; the statements themselves run in tests/live."""

from pgsonar.model import Limits
from pgsonar.sources.activity import ActivityReader

SERVER = {
    "version_number": 160004,
    "version": "16.4 (Debian)",
    "own_pid": 7,
    "age": 1_000_000,
    "system_identifier": "1",
    "sees_all": True,
}
SETTINGS = {
    "port": 5432,
    "max_connections": 100,
    "superuser_reserved_connections": 3,
    "reserved_connections": 2,
    "max_wal_senders": 10,
    "max_worker_processes": 8,
    "autovacuum_max_workers": 3,
}


class Login:
    """Answers each statement by what stands in it."""

    generation = 1
    host, port = "db.example", 5432

    def __init__(self, **settings):
        self.settings = SETTINGS | settings

    def ask(self, sql, _=None):
        if "pg_is_in_recovery() as yes" in sql:
            return [{"yes": False}]
        if "version_number" in sql:
            return [SERVER]
        if "pg_settings" in sql:
            return [{"name": name, "setting": str(value), "unit": None} for name, value in self.settings.items()]
        return []


def test_limits_are_what_runs_with_what_the_provider_keeps_for_itself():
    plain = ActivityReader(Login(), "none").read()
    managed = ActivityReader(Login(**{"rds.rds_superuser_reserved_connections": 2}), "none").read()

    assert plain.limits == Limits(100, 5, "login", children=2 * (100 + 10 + 8 + 3 + 1))
    assert managed.limits.reserved == 7
    assert managed.limits.ceiling == 93
