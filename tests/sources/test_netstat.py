"""The counters of a namespace."""

from pgsonar.sources.netstat import listen_overflows

TEXT = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 23 4\nIpExt: InNoRoutes\nIpExt: 5\n"


def test_the_counter_is_found_by_its_name(tmp_path):
    (tmp_path / "netstat").write_text(TEXT)

    assert listen_overflows(str(tmp_path)) == 23


def test_a_counter_the_kernel_does_not_have_is_unknown(tmp_path):
    (tmp_path / "netstat").write_text("TcpExt: Other\nTcpExt: 1\n")

    assert listen_overflows(str(tmp_path)) is None
    assert listen_overflows(str(tmp_path / "none")) is None


def test_the_kernel_we_run_on_has_it():
    assert isinstance(listen_overflows("/proc/self/net"), int)
