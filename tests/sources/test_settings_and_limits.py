"""Settings and limits told without the server: what runs before what is written, and a guess marked as one."""

from pathlib import Path

import pytest

from pgsonar.model import Limits
from pgsonar.sources.control_file import ControlFile
from pgsonar.sources.limits import running_limits
from pgsonar.sources.settings import Files, command_line, whole_number

PRIMARY, STANDBY = ControlFile(1, 6, 30, 8, 10), ControlFile(1, 5, 40, 8, 10)


def raw(*arguments):
    return b"\0".join(a.encode() for a in ("postgres", *arguments)) + b"\0"


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["-c", "max_connections=30"], "max_connections", "30"),
        (["-cmax_connections=30"], "max_connections", "30"),
        (["--max-connections=30"], "max_connections", "30"),
        (["--max_connections=30"], "max_connections", "30"),
        (["-N", "30"], "max_connections", "30"),
        (["-N30"], "max_connections", "30"),
        (["-p", "5433", "-p", "5434"], "port", "5434"),
        (["-D", "/data"], "data_directory", "/data"),
        (["-c", "Port = 7"], "port", "7"),
    ],
)
def test_the_command_line_in_all_its_spellings(arguments, name, value):
    assert command_line(raw(*arguments))[name] == value


def test_flags_without_a_meaning_here_are_passed_over():
    assert command_line(raw("-i", "-F", "-B", "100", "--single")) == {}


def files(tmp_path: Path, **texts: str) -> Files:
    for name, text in texts.items():
        (tmp_path / f"{name}.conf").write_text(text)
    read = Files(Path)
    read.add(f"{tmp_path}/main.conf")
    return read


def test_files_are_read_as_postgresql_reads_them(tmp_path):
    text = """
    # a comment
    max_connections = 50   # the first
    MAX_CONNECTIONS = '60'
    port 5433
    cluster_name = 'it''s # main'
    this is not a setting at all !
    """

    assert files(tmp_path, main=text).settings == {
        "max_connections": "60",
        "port": "5433",
        "cluster_name": "it's # main",
    }


@pytest.mark.parametrize("end", ["'", "!", "= '"])
def test_a_line_of_blanks_is_passed_over_at_once(tmp_path, end):
    assert files(tmp_path, main=f"a{' ' * 100_000}{end}\nport = 3").settings["port"] == "3"


def test_a_file_that_includes_itself_again_and_again_is_read_a_bounded_number_of_times(tmp_path):
    read = files(tmp_path, main="port = 3\n" + "include 'main.conf'\n" * 5)
    assert read.settings["port"] == "3"
    assert len(read.read) <= 256


def test_includes_are_followed_and_what_comes_later_wins(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("port = 2\n")
    (tmp_path / "conf.d" / "a.conf").write_text("port = 1\nmax_connections = 7\n")
    (tmp_path / "conf.d" / ".hidden.conf").write_text("port = 9\n")
    read = files(
        tmp_path, main="port=0\ninclude_dir 'conf.d'\ninclude_if_exists 'none'\ninclude 'more.conf'", more="x = 1"
    )

    assert read.settings == {"port": "2", "max_connections": "7", "x": "1"}
    assert len(read.read) == 4


def test_a_file_that_includes_itself_ends(tmp_path):
    assert files(tmp_path, main="include 'main.conf'\nport = 3").settings == {"port": "3"}


@pytest.mark.parametrize(
    ("text", "number"), [("30", 30), ("0x1e", 30), ("036", 30), ("x", None), (None, None), ("0", 0)]
)
def test_numbers_are_read_as_strtol_reads_them(text, number):
    assert whole_number(text) == number


def limits(control=None, arguments=(), written=None, *, changed=False, configured=None):
    return running_limits(control, dict(arguments), written, files_changed=changed, configured=configured)


def test_pg_control_tells_what_runs_before_all_others():
    assert limits(PRIMARY, {"max_connections": "1"}.items(), {"max_connections": "2"}, configured=3) == Limits(
        30, 3, "pg_control"
    )


def test_on_a_standby_pg_control_holds_the_primarys_value_and_comes_last():
    assert limits(STANDBY, {"max_connections": "1"}.items(), {}) == Limits(1, 3, "command line")
    assert limits(STANDBY, (), {"max_connections": "2"}) == Limits(2, 3, "configuration file")
    assert limits(STANDBY, (), {}) == Limits(40, 3, "pg_control", guessed=True)


def test_each_source_stands_in_for_the_one_before_it():
    assert (
        limits(None, {"max_connections": "1"}.items(), {"max_connections": "2"}, configured=3).source == "command line"
    )
    assert limits(None, (), {"max_connections": "2"}, configured=3).max_connections == 2
    assert limits(None, (), None, configured=3).max_connections == 3
    assert limits() == Limits()


@pytest.mark.parametrize(
    ("major", "arguments", "children"),
    [
        (17, {}, 2 * (30 + 10 + 8 + 3 + 1)),
        (13, {"autovacuum_max_workers": "5", "max_worker_processes": "99"}, 2 * (30 + 10 + 8 + 5 + 1)),
        (18, {"autovacuum_max_workers": "5"}, 2 * (30 + 10)),
        (None, {}, None),
    ],
)
def test_the_limit_of_children_is_per_major(major, arguments, children):
    told = running_limits(PRIMARY, arguments, {}, files_changed=False, configured=None, major=major)
    assert told.children == children


def test_without_files_or_pg_control_the_limit_of_children_is_unknown():
    told = running_limits(None, {"max_connections": "5"}, None, files_changed=False, configured=None, major=16)
    assert (told.max_connections, told.children) == (5, None)


def test_a_default_that_nobody_wrote_is_a_guess():
    assert limits(None, (), {}) == Limits(100, 3, "configuration file", guessed=True)


def test_a_file_changed_after_the_start_is_a_guess():
    assert limits(None, (), {"max_connections": "2"}, changed=True).guessed
    assert limits(PRIMARY, (), {"superuser_reserved_connections": "5"}, changed=True).guessed
    assert not limits(PRIMARY, (), {"max_connections": "2"}, changed=True).guessed


def test_both_reserves_are_taken_off():
    written = {"superuser_reserved_connections": "4", "reserved_connections": "6"}

    assert limits(PRIMARY, (), written).ceiling == 20
    assert limits(PRIMARY, {"reserved_connections": "1"}.items(), written).ceiling == 25
