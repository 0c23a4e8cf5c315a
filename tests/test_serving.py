"""The HTTP server that probes and scrapers ask, over real sockets."""

import contextlib
import http.client
import socket
import threading

import pytest

from pgsonar import serving
from pgsonar.errors import ConfigError
from pgsonar.serving import Answer, LocalServer


@contextlib.contextmanager
def served(endpoint="127.0.0.1:0", answer=lambda path, accept: Answer(200, "text/plain", f"{path} {accept}".encode())):
    server, stop = LocalServer("some.key", endpoint, answer), threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()


def ask(server, path="/x?y", host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, server.port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Accept": "a/b"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize(
    ("endpoint", "host"), [("127.0.0.1:0", "127.0.0.1"), ("localhost:0", "127.0.0.1"), ("[::1]:0", "::1")]
)
def test_it_answers_where_it_is_told_to_listen(endpoint, host):
    with served(endpoint) as server:
        assert ask(server, host=host) == (200, "/x a/b")
        assert server.server_address[0] == host, "and nowhere else"


def test_who_says_nothing_keeps_nobody_else_out_for_long(monkeypatch):
    monkeypatch.setattr(serving, "WITHIN", 0.1)
    with served() as server, contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            for _ in range(serving.AT_ONCE)
        ]
        for one in silent:
            one.sendall(b"GET /")  # and no more
        assert [one.recv(1) for one in silent] == [b""] * len(silent), "all are cut off"
        assert ask(server)[0] == 200


def test_when_too_many_ask_at_once_the_next_is_told_to_come_again():
    with served() as server, contextlib.ExitStack() as stack:
        for _ in range(serving.AT_ONCE):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert ask(server)[0] == 503


def test_an_answer_that_fails_is_logged_and_the_next_is_given(caplog):
    answers = [ZeroDivisionError, Answer(200, "text/plain", b"well")]

    def answer(path, accept):
        if isinstance(now := answers.pop(0), Answer):
            return now
        raise now

    with served(answer=answer) as server:
        with pytest.raises(http.client.RemoteDisconnected):
            ask(server)
        assert ask(server) == (200, "well")
    assert "could not be answered" in caplog.text


def test_a_port_in_use_is_an_error_of_the_system_and_no_endpoint_is_one_of_the_configuration():
    with served() as server, pytest.raises(OSError, match="in use"):
        LocalServer("some.key", f"127.0.0.1:{server.port}", lambda *_: None)
    with pytest.raises(ConfigError, match=r"some\.key"):
        LocalServer("some.key", "localhost", lambda *_: None)
