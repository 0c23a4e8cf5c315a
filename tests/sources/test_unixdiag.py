"""Peers of unix sockets, as the kernel tells them; and whatever else an answer may hold."""

import contextlib
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsonar.sources.unixdiag import UnixEnd, parse, read_unix_ends


def inode(one):
    return os.fstat(one.fileno()).st_ino


def test_both_ends_of_a_pair_are_told():
    one, other = socket.socketpair()
    with one, other:
        ends = read_unix_ends("/proc/self")

        assert ends[inode(one)] == UnixEnd(inode(other), "")
        assert ends[inode(other)] == UnixEnd(inode(one), "")


def test_who_has_accepted_has_the_path_and_a_datagram_is_no_connection(tmp_path):
    path = str(tmp_path / ".s.PGSQL.5432")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        accepted = listener.accept()[0]
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with accepted, one, other:
            ends = read_unix_ends("/proc/self")

            assert ends[inode(accepted)] == UnixEnd(inode(client), path)
            assert ends[inode(client)] == UnixEnd(inode(accepted), "")
            assert not {inode(one), inode(other), inode(listener)} & ends.keys()


def test_a_process_that_is_gone_is_an_error_of_the_system():
    with pytest.raises(OSError, match="No such file"):
        read_unix_ends("/proc/0")


def message(kind, body):
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def answer(own, peer):
    return message(20, struct.pack("=BBBBIII", 1, 1, 1, 0, own, 0, 0) + struct.pack("=HHI", 8, 2, peer))


def test_an_answer_may_come_in_pieces_and_ends_with_done():
    ends = {}

    assert not parse(answer(1, 2) + answer(3, 4), ends)
    assert parse(answer(5, 6) + message(3, b"\0\0\0\0"), ends)
    assert ends == {1: UnixEnd(2, ""), 3: UnixEnd(4, ""), 5: UnixEnd(6, "")}


def test_a_refusal_is_an_error_with_its_reason():
    with pytest.raises(PermissionError):
        parse(message(2, struct.pack("=i", -1)), {})


def test_a_kernel_without_unix_diag_is_not_taken_for_a_process_that_is_gone():
    with pytest.raises(OSError, match=r"[Pp]rotocol") as refused:
        parse(message(2, struct.pack("=i", -2)), {})
    assert not isinstance(refused.value, FileNotFoundError)


def test_a_message_cut_short_is_an_error():
    with pytest.raises(OSError, match="cannot be read"):
        parse(answer(1, 2)[:-1], {})


@given(st.binary(max_size=200), st.booleans())
def test_any_answer_is_read_or_refused(raw, as_message):
    with contextlib.suppress(OSError):
        parse(message(20, raw) if as_message else raw, {})
