"""The kernel's table of tracked connections: only what is translated, of both families."""

import pytest

from pgsonar.model import Endpoint
from pgsonar.sources.conntrack import Original, parse, read_translations

PLAIN = (
    "ipv4     2 tcp      6 431 ESTABLISHED src=10.0.0.2 dst=10.0.0.3 sport=40000 dport=5432 "
    "src=10.0.0.3 dst=10.0.0.2 sport=5432 dport=40000 [ASSURED] mark=0 zone=0 use=2\n"
)
SERVICE = (
    "ipv4     2 tcp      6 432000 ESTABLISHED src=10.0.0.2 dst=10.96.0.1 sport=40001 dport=5432 "
    "src=10.0.0.3 dst=10.0.0.2 sport=6432 dport=40001 [ASSURED] mark=0 zone=0 use=2\n"
)
MASQUERADED = (
    "ipv6     10 tcp      6 300 CLOSE_WAIT src=fd00:0000:0000:0000:0000:0000:0000:0002 "
    "dst=fd00:0000:0000:0000:0000:0000:0000:0009 sport=40002 dport=5432 [UNREPLIED] "
    "src=fd00:0000:0000:0000:0000:0000:0000:0009 dst=fd00:0000:0000:0000:0000:0000:0000:0001 sport=5432 dport=1024 "
    "mark=0 zone=0 use=2\n"
)
UDP = (
    "ipv4     2 udp      17 20 src=10.0.0.2 dst=10.0.0.9 sport=1 dport=53 src=10.1.0.9 dst=10.0.0.2 sport=53 dport=1\n"
)


def test_only_translated_connections_of_tcp_are_told():
    assert parse(PLAIN + UDP + SERVICE) == {
        (Endpoint("10.0.0.3", 6432), Endpoint("10.0.0.2", 40001)): Original(
            Endpoint("10.0.0.2", 40001), Endpoint("10.96.0.1", 5432)
        )
    }


def test_addresses_are_written_as_everywhere_else():
    assert parse(MASQUERADED) == {
        (Endpoint("fd00::9", 5432), Endpoint("fd00::1", 1024)): Original(
            Endpoint("fd00::2", 40002), Endpoint("fd00::9", 5432)
        )
    }


@pytest.mark.parametrize("text", ["", "ipv4 2 tcp 6 nonsense", PLAIN[:60]])
def test_what_is_no_line_of_it_is_passed_over(text):
    assert parse(text) == {}


def test_a_kernel_that_tracks_nothing_has_no_table(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_translations(str(tmp_path))
