"""A server that keeps every byte it gets: what HAProxy hands on, seen without any library's help."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial
from typing import Self

from cronkeeper.runtime.loop import spawn_thread

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Recorder:
    """Answers each connection once with an empty 200, so that HAProxy finds it healthy; `heads` are all but checks."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[bytes] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        spawn_thread("recorder", self._accept, lambda _: None)
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                spawn_thread("recorder-one", partial(self._serve, connection), lambda _: None)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        data = b""
        with connection, contextlib.suppress(OSError):
            while b"\r\n\r\n" not in data and (more := connection.recv(65_536)):
                data += more
            if not data.startswith(b"GET /readyz "):
                with self._lock:
                    self.heads.append(data)
            connection.sendall(_ANSWER)
