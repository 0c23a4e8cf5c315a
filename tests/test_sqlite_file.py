"""A file is brought up to date a step at a time, and a disk that is full after half a step harms nothing."""

import sqlite3
from functools import partial

from pgsonar.sqlite_file import SqliteFile


class FullBeforeTheVersion(sqlite3.Connection):
    """What a disk does that takes a new table, and not that it is there."""

    def execute(self, sql, *more):
        if sql.startswith("pragma user_version ="):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(sql, *more)


def test_half_a_step_is_taken_back_and_the_whole_is_done_when_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr("pgsonar.sqlite_file.LOOK", 0)

    def opened():
        return SqliteFile(tmp_path / "x.sqlite", ["create table x (y)"], lost="lost", instead="instead")

    with monkeypatch.context() as full:
        full.setattr("pgsonar.sqlite_file.sqlite3.connect", partial(sqlite3.connect, factory=FullBeforeTheVersion))
        file = opened()
        assert "database or disk is full" in file.problem
    written = file.run(lambda database: database.execute("insert into x values (1)").rowcount, 0, writes=True)

    assert (written, file.problem) == (1, None)
    assert list(tmp_path.glob("*.damaged-*")) == []
    file.close()
