"""conf.d: which files of a directory are read, in which order, and what is said of what cannot be."""

import errno
import os

import pytest

from pgsonar.config.load import load, read
from pgsonar.config.schema import HealthCheck
from pgsonar.errors import ConfigError


@pytest.fixture
def conf_d(tmp_path):
    """A directory with files of these names and texts."""

    def make(files):
        directory = tmp_path / "conf.d"
        directory.mkdir()
        for name, text in files.items():
            (directory / name).write_text(text)
        return str(directory)

    return make


def test_files_are_merged_in_the_order_of_their_names(conf_d):
    directory = conf_d(
        {
            "20-b.yml": "receivers: {sockets: {interval: 2s, targets: [{port: 2}]}}",
            "10-a.yaml": "receivers: {sockets: {interval: 1s, source: procfs, targets: [{port: 1}]}}",
            "30-c.yaml": "exporters: {debug: }",
        }
    )
    loaded = read([directory], [], {})

    assert [file.rpartition("/")[2] for file in loaded.files] == ["10-a.yaml", "20-b.yml", "30-c.yaml"]
    assert (loaded.config.sockets.interval, loaded.config.sockets.source) == (2, "procfs")
    assert [target.port for target in loaded.config.sockets.targets] == [2]
    assert list(loaded.config.exporters) == ["debug"]


def test_what_editors_and_packagers_leave_behind_is_not_read(conf_d):
    broken = "receivers: ["
    left = (
        ".hidden.yaml",
        ".#lock.yaml",
        "#a.yaml#",
        "a.yaml~",
        "a.yaml.rpmsave",
        "a.yaml.dpkg-old",
        "a.yaml.swp",
        "a",
    )
    directory = conf_d({"a.yaml": "exporters: {debug: }", **dict.fromkeys(left, broken)})
    os.mkdir(f"{directory}/more.yaml")

    assert list(load([directory], [], {}).exporters) == ["debug"]


def test_a_file_before_a_directory_lies_below_it_and_one_after_it_above(conf_d, tmp_path):
    directory = conf_d({"a.yaml": "receivers: {sockets: {interval: 2s, source: procfs}}"})
    file = tmp_path / "main.yaml"
    file.write_text("receivers: {sockets: {interval: 1s}}")

    assert load([str(file), directory], [], {}).sockets.interval == 2
    above = load([directory, str(file)], [], {}).sockets
    assert (above.interval, above.source) == (1, "procfs")


def test_an_empty_directory_is_a_warning_and_counts_as_no_file(conf_d):
    directory = conf_d({"README": "put files here"})
    config = load([directory], [], {})

    assert config.warnings == [f"{directory}: holds no file that ends in .yaml or .yml"]
    assert config.health_check == HealthCheck()


def test_links_as_kubernetes_mounts_them_are_followed_and_broken_ones_told(conf_d):
    directory = conf_d({})
    os.mkdir(f"{directory}/..data")
    with open(f"{directory}/..data/a.yaml", "w") as file:
        file.write("exporters: {debug: }")
    os.symlink("..data/a.yaml", f"{directory}/a.yaml")
    assert list(load([directory], [], {}).exporters) == ["debug"]

    os.symlink("gone", f"{directory}/b.yaml")
    with pytest.raises(ConfigError, match=r"conf.d/b.yaml: cannot be read: No such file"):
        load([directory], [], {})


def test_a_directory_that_may_not_be_listed_is_an_error(monkeypatch, conf_d):
    def refuse(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    directory = conf_d({"a.yaml": ""})
    monkeypatch.setattr("pathlib.Path.iterdir", refuse)  # root, as whom tests may run, is never refused

    with pytest.raises(ConfigError, match=rf"^{directory}: cannot be read: Permission denied$") as caught:
        load([directory], [], {})
    assert "enter the directory" in caught.value.hint


def test_a_mistake_in_one_of_many_files_names_it_and_its_line(conf_d):
    directory = conf_d(
        {
            "a.yaml": "receivers:\n  sockets:\n    interval: 1s\n",
            "b.yaml": "receivers:\n  sockets:\n    source: procfz\nexporters:\n  file:\n",
        }
    )
    with pytest.raises(ConfigError) as caught:
        load([directory], ["receivers.sockets.intervall=1s"], {})

    lines = str(caught.value).splitlines()
    assert lines[0] == "the configuration has 3 errors"
    assert "  receivers.sockets.intervall: unknown key (--set)" in lines
    assert any(line.endswith(f"got 'procfz' ({directory}/b.yaml:3)") for line in lines), lines
    assert f"  exporters.file.path: is required, expected text ({directory}/b.yaml:5)" in lines, "the nearest there is"
