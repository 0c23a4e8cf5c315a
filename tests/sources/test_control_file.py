"""pg_control of real servers, compared with what PostgreSQL's own program says of it."""

import re
import subprocess
from pathlib import Path

import pytest

from pgsonar.sources.control_file import crc32c, parse_control_file, read_control_file
from playing import postgres


@pytest.mark.live
@pytest.mark.parametrize("major", [15, 16, 18])
def test_it_reads_what_pg_controldata_reads(major):
    with postgres(major, max_connections=37, max_worker_processes=11, max_wal_senders=5) as server:
        control = read_control_file(server.data_directory)
        told = subprocess.run(
            [server.binaries / "pg_controldata", server.data_directory],
            capture_output=True,
            text=True,
            check=True,
            env={"LC_ALL": "C"},
        ).stdout
        raw = (server.data_directory / "global" / "pg_control").read_bytes()

    def said(label):
        return int(re.search(rf"{label}:\s+(\d+)", told)[1])

    assert control is not None
    assert control.role == "primary"
    assert control.system_identifier == said("Database system identifier")
    assert (control.max_connections, control.max_worker_processes, control.max_wal_senders) == (37, 11, 5)
    assert control.max_connections == said("max_connections setting")
    for position in range(0, 288, 7):
        damaged = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        assert parse_control_file(damaged) is None
    assert parse_control_file(raw[:300]) is None


@pytest.mark.parametrize("major", [12, 13, 14, 17])
def test_it_reads_the_files_of_the_other_majors(major):
    """Made by initdb of each major: the first 512 bytes, the rest is padding."""
    raw = (Path(__file__).parents[1] / "proc" / "pg_control" / f"{major}.bin").read_bytes()
    control = parse_control_file(raw)

    assert control is not None
    assert (control.max_connections, control.max_worker_processes, control.max_wal_senders) == (100, 8, 10)
    assert control.role is None, "a server that was shut down has none"


def test_what_is_written_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    whole = (Path(__file__).parents[1] / "proc" / "pg_control" / "17.bin").read_bytes()
    looks = iter([whole[:100] + b"x" + whole[101:], whole])
    monkeypatch.setattr("pgsonar.sources.control_file.read_regular", lambda *_: next(looks))

    assert read_control_file(tmp_path) == parse_control_file(whole)


def test_a_directory_without_one_is_unknown(tmp_path):
    assert read_control_file(tmp_path) is None


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283
