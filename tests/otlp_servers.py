"""Backends and proxies over real sockets that say what a test wants: beside pgsonar.demo.receiver, which accepts."""

import base64
import contextlib
import http.client
import http.server
import os
import select
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is imported, and here backends fail on purpose

import grpc

from pgsonar.demo.receiver import QuietServer, Receiver
from pgsonar.exporters.encoding import Encoded

NOTHING = Encoded("logs", b"", 3)  # an empty request is a request


def tls_receiver(certificate, *, clients_of=None, port=0):
    """A receiver behind TLS, which asks for a client certificate of an authority when it is given one."""
    receiver = Receiver(port=port)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of.file)
    server = receiver._http
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None  # a handshake that fails is what a test wants
    return receiver


class GrpcBackend:
    """Answers every method as `script` says, one function of the context for each call; accepts without."""

    def __init__(self, certificate=None, clients_of=None, port=0, place=None):
        self.calls, self.script = [], []
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers((_Every(self._answer),))
        place = place or f"127.0.0.1:{port}"
        if certificate is None:
            self.port = self._server.add_insecure_port(place)
        else:
            cert, key = (Path(file).read_bytes() for file in certificate)
            authority = clients_of.file.read_bytes() if clients_of else None
            credentials = grpc.ssl_server_credentials([(key, cert)], authority, clients_of is not None)
            self.port = self._server.add_secure_port(place, credentials)

    def _answer(self, body, context):
        self.calls.append((dict(context.invocation_metadata()), body, context.auth_context()))
        return (self.script.pop(0)(context) if self.script else None) or b""

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(0).wait()


class _Every(grpc.GenericRpcHandler):
    def __init__(self, answer):
        self._answer = answer

    def service(self, _details):
        return grpc.unary_unary_rpc_method_handler(self._answer)


@contextlib.contextmanager
def listening(talk, family=socket.AF_INET):
    """A port of this host on which `talk` has each connection, in a thread of its own."""
    server = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection = server.accept()[0]
                threading.Thread(target=_talk, args=(talk, connection), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _talk(talk, connection):
    with connection, contextlib.suppress(OSError):
        talk(connection)


class Proxy(QuietServer):
    """Forwards requests and tunnels; `seen` are the first lines. With a login it lets nobody else through."""

    def __init__(self, login=None, refuses=None):
        super().__init__(("127.0.0.1", 0), _ProxySide)
        self.seen, self.refuses = [], refuses
        self.wanted = login and "Basic " + base64.b64encode(login.encode()).decode()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def place(self):
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()


class _ProxySide(http.server.BaseHTTPRequestHandler):
    def _is_let_through(self):
        self.server.seen.append(self.requestline)
        status = self.server.refuses
        if self.server.wanted and self.headers.get("Proxy-Authorization") != self.server.wanted:
            status = 407
        if status is not None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return status is None

    def do_CONNECT(self):
        if not self._is_let_through():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            with contextlib.suppress(OSError):
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        if not (piece := end.recv(65536)):
                            return
                        ends[end].sendall(piece)

    def do_POST(self):
        if not self._is_let_through():
            return
        target = self.path.removeprefix("http://")
        place, _, path = target.partition("/")
        far = http.client.HTTPConnection(place)
        headers = {name: text for name, text in self.headers.items() if not name.lower().startswith("proxy-")}
        far.request("POST", f"/{path}", self.rfile.read(int(self.headers["Content-Length"])), headers)
        answer = far.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        far.close()

    def log_message(self, *_):
        pass
