"""What is kept over a restart, and what is refused, set aside or brought up to date."""

import contextlib
import sqlite3
from dataclasses import replace

import pytest

from episode import EPISODE, NOW
from pgsonar.daemon.storage import MIGRATIONS, NAME, StateDirectory
from pgsonar.errors import ConfigError
from pgsonar.model import (
    SECOND,
    EpisodeEvent,
    Moment,
)


@contextlib.contextmanager
def opened(path):
    state = StateDirectory(str(path))
    try:
        yield state
    finally:
        state.close()


def test_what_is_open_comes_back_as_it_was(tmp_path):
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW)
    with opened(tmp_path) as state:
        assert state.load(NOW) == [replace(EPISODE, is_restored=True)]


def test_what_was_about_to_be_told_is_told_by_the_next_run(tmp_path):
    steps = [EpisodeEvent("opened", EPISODE, "threshold", NOW), EpisodeEvent("resolved", EPISODE, "resolved", NOW)]
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW, steps[:1])
        state.save([], NOW, steps[1:])
    with opened(tmp_path) as state:
        later = Moment(5 * SECOND, NOW.unix + 100 * SECOND)
        events = state.untold(later)
        state.save([], NOW)
        told = state.untold(NOW)

    assert [(e.name, e.because, e.moment.unix) for e in events] == [
        ("opened", "threshold", NOW.unix),
        ("resolved", "resolved", NOW.unix),
    ]
    assert all(later.unix_of(e.moment.at) == NOW.unix for e in events)
    assert [e.episode.trace_id for e in events] == [EPISODE.trace_id] * 2
    assert told == []


def test_after_a_boot_it_is_as_old_as_the_wall_clock_says(tmp_path):
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW)
        later = Moment(5 * SECOND, NOW.unix + 100 * SECOND)  # the boot clock has begun anew
        (episode,) = state.load(later)

    assert later.unix_of(episode.onset) == EPISODE.onset_unix
    assert later.unix_of(episode.members[0].onset) == EPISODE.onset_unix
    assert later.unix_of(episode.findings[0].onset) == EPISODE.onset_unix


def test_only_what_is_open_now_is_kept(tmp_path):
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW)
        state.save([], NOW)
        assert state.load(NOW) == []


def test_a_directory_has_one_agent(tmp_path):
    with opened(tmp_path), pytest.raises(ConfigError, match="another pgsonar uses"):
        StateDirectory(str(tmp_path))
    with opened(tmp_path):
        pass


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
def test_a_file_of_an_older_version_is_brought_up_to_date(tmp_path, version):
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as old:
        for statement in MIGRATIONS[:version]:
            old.execute(statement)
        if version:
            old.execute("insert into episode values ('x', 0, '{}')")
        old.execute(f"pragma user_version = {version}")
        old.commit()
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW)
        assert len(state.load(NOW)) == 1
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as now:
        assert now.execute("pragma user_version").fetchone() == (len(MIGRATIONS),)


def test_a_file_of_a_later_version_is_refused_and_lets_go_of_the_directory(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as later:
        later.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    for _ in range(2):  # not "another pgsonar uses it" the second time
        with pytest.raises(ConfigError, match=f"is of version {len(MIGRATIONS) + 1}"):
            StateDirectory(str(tmp_path))


def test_a_damaged_file_is_set_aside_and_named(tmp_path, caplog):
    (tmp_path / NAME).write_bytes(b"no database" * 1000)
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW)
    (aside,) = tmp_path.glob("*.damaged-*")

    assert aside.read_bytes().startswith(b"no database")
    assert aside.name in caplog.text


def test_an_episode_that_cannot_be_read_is_named_and_the_others_come_back(tmp_path, caplog):
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW)
        with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as other:
            other.execute("insert into episode values ('x', 0, '{}')")
            other.commit()
        assert len(state.load(NOW)) == 1
    assert "the episode x" in caplog.text


def test_an_event_that_cannot_be_read_is_named_and_the_others_are_told(tmp_path, caplog):
    with opened(tmp_path) as state:
        state.save([], NOW, [EpisodeEvent("opened", EPISODE, "threshold", NOW)])
        with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as other:
            other.execute("insert into telling select 'no number', name, because, unix, body from telling")
            for body in ("'{}'", "'null'", "cast(x'ff' as text)"):
                other.execute(f"insert into telling values (0, 'opened', '', 0, {body})")
            other.commit()
        assert [event.name for event in state.untold(NOW)] == ["opened"]
    assert caplog.text.count("the event ") == 4


@pytest.mark.parametrize("table", ["episode", "telling"])
def test_damage_that_shows_only_when_a_table_is_read_is_set_aside_and_the_agent_goes_on(tmp_path, caplog, table):
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW, [EpisodeEvent("opened", EPISODE, "threshold", NOW)])
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as database:
        (page,) = database.execute("select rootpage from sqlite_schema where name = ?", [table]).fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    with (tmp_path / NAME).open("r+b") as damaged:
        damaged.seek((page - 1) * size)
        damaged.write(b"\xff" * size)
    with opened(tmp_path) as state:
        episodes, events = state.load(NOW), state.untold(NOW)
        assert [episodes, events][table == "telling"] == []
        assert state.save([EPISODE], NOW)
        assert len(state.load(NOW)) == 1
        assert state.problem is None
    assert len(list(tmp_path.glob("state.damaged-*"))) == 1
    assert "what was open is forgotten" in caplog.text


def test_a_file_that_is_removed_while_it_is_used_is_written_anew(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pgsonar.sqlite_file.LOOK", 0)
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW, [EpisodeEvent("opened", EPISODE, "threshold", NOW)])
        for file in tmp_path.glob(f"{NAME}*"):
            file.unlink()
        assert state.save([], NOW, [])
    with opened(tmp_path) as state:
        assert len(state.untold(NOW)) == 1
    assert caplog.text.count("was removed while in use") == 1
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_said_once_and_forgiven(tmp_path, caplog):
    with opened(tmp_path) as state:
        with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as other:
            other.execute("begin exclusive")
            state._file._database.execute("pragma busy_timeout = 1")
            assert [state.save([EPISODE], NOW) for _ in range(2)] == [False, False]
        assert "cannot be written: database is locked" in state.problem
        assert state.save([EPISODE], NOW)
        assert state.problem is None
    assert caplog.text.count("is the disk full?") == 1


def test_a_directory_that_cannot_be_made_names_its_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"extensions\.file_storage\.directory") as refused:
        StateDirectory(str(tmp_path / "file" / "state"))
    assert refused.value.hint


def test_a_file_that_is_locked_is_not_damaged(tmp_path):
    with opened(tmp_path) as state:
        state.save([EPISODE], NOW)
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as other:
        other.execute("pragma journal_mode = delete")
        other.execute("begin exclusive")
        with pytest.raises(ConfigError, match="locked"):
            StateDirectory(str(tmp_path))
    with opened(tmp_path) as state:
        assert len(state.load(NOW)) == 1
    assert list(tmp_path.glob("*.damaged-*")) == []


def test_nobody_else_may_read_it(tmp_path):
    (tmp_path / NAME).touch(mode=0o644)
    with opened(tmp_path):
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
