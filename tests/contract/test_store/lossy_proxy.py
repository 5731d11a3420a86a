"""A TCP proxy before MariaDB that loses just what a test tells it to lose."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

_CHUNK = 65_536


class Lose(Enum):
    #: The server never sees the statement; the connection breaks.
    QUESTION = auto()
    #: The server does it and says so; the connection breaks before the client hears it.
    ANSWER = auto()
    #: Nothing is ever said again on this connection, which stays open.
    EVERYTHING = auto()


@dataclass(slots=True)
class _Fault:
    patterns: tuple[bytes, ...]
    what: Lose
    count: int


class LossyProxy:
    """Forwards `port` on loopback to a server; one thread for each direction of each connection."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._refusing = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def lose(self, what: Lose, *patterns: str, count: int = 1) -> None:
        """Lose the next `count` statements that contain one of the patterns, or the answers to them."""
        with self._lock:
            self._faults.append(_Fault(tuple(pattern.encode() for pattern in patterns), what, count))

    def refuse(self) -> None:
        """Break all connections and drop new ones, until `mend`."""
        with self._lock:
            self._refusing = True
            open_now = list(self._sockets)
        for sock in open_now:
            _break(sock)

    def mend(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._refusing = False
            self._faults.clear()

    def pending_faults(self) -> int:
        """Return how many losses are still to come: none, when the test has met what it meant to meet."""
        with self._lock:
            return sum(fault.count for fault in self._faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        _break(self._listener)
        for thread in self._threads:
            thread.join(timeout=10)
        for sock in [*self._sockets, self._listener]:
            sock.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.append(client)
                refusing = self._refusing
            if refusing:
                _break(client)
                continue
            server = socket.create_connection(("127.0.0.1", self._target_port))
            with self._lock:
                self._sockets.append(server)
            losing = threading.Event()
            self._start(self._carry_questions, client, server, losing)
            self._start(self._carry_answers, server, client, losing)

    def _carry_questions(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        while data := _receive(client):
            what = self._fault_in(data)
            if what is Lose.QUESTION:
                break
            if what is Lose.EVERYTHING:
                return
            if what is Lose.ANSWER:
                losing.set()
            if not _send(server, data):
                break
        _break(client)
        _break(server)

    def _carry_answers(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        while data := _receive(server):
            if losing.is_set() or not _send(client, data):
                break
        _break(client)
        _break(server)

    def _fault_in(self, data: bytes) -> Lose | None:
        with self._lock:
            for fault in self._faults:
                if any(pattern in data for pattern in fault.patterns):
                    fault.count -= 1
                    if fault.count == 0:
                        self._faults.remove(fault)
                    return fault.what
        return None


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_CHUNK)
    except OSError:
        return b""


def _send(sock: socket.socket, data: bytes) -> bool:
    try:
        sock.sendall(data)
    except OSError:
        return False
    return True


def _break(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
