"""A network cable between one client and one server, which a test can pull.

It forwards TCP on loopback. Cutting a link hurts those who go through it and nobody else, needs no root and leaves no
firewall rule behind.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Self

from tests.harness.ports import free_port

_CHUNK = 65536
_LOOK_S = 0.05


class Link:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target_port`.

    `cut` loses nothing but answers nothing either, like a dead switch: connections stay open, new ones are taken and
    hang, and `heal` delivers what was held back, as TCP would. `refuse` is a dead server: connections end and new ones
    are refused. The port stays the same throughout.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.target_port = target_port
        self._requests_pass = threading.Event()
        self._replies_pass = threading.Event()
        self._listener: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()

    def start(self) -> Self:
        """Begin to forward."""
        self.heal()
        return self

    def stop(self) -> None:
        """Close everything; returns when nothing is forwarded any more."""
        self.refuse()

    def cut(self, *, requests: bool = True, replies: bool = True) -> None:
        """Hold back what the client sends, or what the server answers, or both.

        `cut(requests=False)` loses answers only: the server does what it is told and the client cannot know.
        """
        if requests:
            self._requests_pass.clear()
        if replies:
            self._replies_pass.clear()

    def refuse(self) -> None:
        """End all connections and refuse new ones, until `heal`."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone does not wake a thread that waits in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop()

    def drop(self) -> None:
        """End all present connections; new ones are taken, and hang if the link is cut."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.end()
        for connection in connections:
            connection.ended.wait(10.0)

    def heal(self) -> None:
        """Forward everything again, and take new connections."""
        self._requests_pass.set()
        self._replies_pass.set()
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
                _in_background(partial(self._accept, self._listener))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _address = listener.accept()
            except OSError:
                return
            _in_background(partial(self._forward, client))

    def _forward(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), timeout=10.0)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        connection = _Connection(client, server)
        with self._lock:
            self._connections.add(connection)
        connection.pump(self._requests_pass, self._replies_pass)
        with self._lock:
            self._connections.discard(connection)


class _Connection:
    """One client and its server; `pump` forwards until either side ends or `end` is called."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ended = threading.Event()
        self._client = client
        self._server = server
        self._ending = threading.Event()

    def pump(self, requests_pass: threading.Event, replies_pass: threading.Event) -> None:
        """Forward both ways; returns when both sockets are closed."""
        back = _in_background(lambda: self._copy(self._server, self._client, replies_pass))
        self._copy(self._client, self._server, requests_pass)
        back.join()
        self._client.close()
        self._server.close()
        self.ended.set()

    def end(self) -> None:
        """Make `pump` return soon, whatever is held back."""
        self._ending.set()
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _copy(self, source: socket.socket, destination: socket.socket, gate: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if not self._pass(gate):
                    return
                destination.sendall(data)
        # A cut holds back the end of a stream as well.
        if self._pass(gate):
            with contextlib.suppress(OSError):
                destination.shutdown(socket.SHUT_WR)

    def _pass(self, gate: threading.Event) -> bool:
        while not gate.wait(_LOOK_S):
            if self._ending.is_set():
                return False
        return not self._ending.is_set()


def _in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
