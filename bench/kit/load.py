"""Clients of an HTTP server: each sends a request on its one connection, waits for the answer, and sends the next."""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.kit.figures import percentile

_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Load:
    """What came of it."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return sum(count for status, count in self.statuses.items() if status < 400) / self.seconds

    @property
    def bad(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 400)

    def at(self, share: float) -> float:
        """Return how long so large a share of the answers took at most, in milliseconds."""
        return percentile(self.took_s, share) * 1000


class _Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_s = 0.0
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.buffer, self.sent_s = b"", time.perf_counter()
        self.socket.sendall(data)

    def receive(self) -> int | None:
        """Take what has come; return the status once the answer is whole."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server hung up")
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if not lengths:
            raise ConnectionError("an answer without a length")
        return int(head.split(b" ", 2)[1]) if len(body) >= int(lengths[0].partition(b":")[2]) else None


def request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """Return a request as it goes over the line."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def load(port: int, clients: int, seconds: float, make: Callable[[int], bytes]) -> Load:
    """Send requests for so long; `make` returns the one of a number."""
    found, number = Load(), 0
    with selectors.DefaultSelector() as selector:
        connections = [_Client(port) for _ in range(clients)]
        begun_s = time.perf_counter()
        for client in connections:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.send(make(number))
            number += 1
        waiting = clients
        while waiting:
            ready = selector.select(_TIMEOUT_S)
            if not ready:
                raise TimeoutError("the server does not answer")
            for key, _ in ready:
                client = key.data
                status = client.receive()
                if status is None:
                    continue
                now_s = time.perf_counter()
                found.statuses[status] += 1
                found.took_s.append(now_s - client.sent_s)
                if now_s - begun_s < seconds:
                    client.send(make(number))
                    number += 1
                else:
                    waiting -= 1
        found.seconds = time.perf_counter() - begun_s
        for client in connections:
            client.socket.close()
    return found
