"""A TCP proxy that cuts connections: after the request was applied and before its reply arrives."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CuttingProxy:
    """Forwards HTTP requests to `port`; while `cuts` is above 0, swallows the whole reply and cuts the connection.

    Like a Service: when `target` is changed new connections lead there, and established ones where they led.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0
        self.requests = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10.0)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self.target)) as far:
            while request := _read_message(near):
                far.sendall(request)
                reply = _read_message(far)
                with self._lock:
                    self.requests += 1
                    cut = self.cuts > 0
                    self.cuts -= cut
                if cut or not reply:
                    return
                near.sendall(reply)


def _read_message(source: socket.socket) -> bytes:
    """One HTTP message with Content-Length; empty at the end of the connection."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = source.recv(65536)
        if not part:
            return b""
        raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        part = source.recv(65536)
        if not part:
            return b""
        body += part
    return head + b"\r\n\r\n" + body


@contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """A proxy for the time of a `with` block."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
