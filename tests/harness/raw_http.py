"""HTTP as bytes, for clients that do not behave."""

from __future__ import annotations

import contextlib
import socket
import time


def connect(port: int, *, source: str = "127.0.0.1", timeout_s: float = 30.0) -> socket.socket:
    """Connect to a server on loopback, from an address of loopback's own choice."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))


def exchange(port: int, data: bytes, *, timeout_s: float = 3.0, source: str = "127.0.0.1") -> bytes:
    """Send bytes, and return all that comes back until the server closes or nothing came for `timeout_s`."""
    with connect(port, source=source) as connection:
        # It may have answered and closed before it has read everything.
        with contextlib.suppress(OSError):
            connection.sendall(data)
        return read_all(connection, timeout_s)


def read_all(connection: socket.socket, timeout_s: float) -> bytes:
    """Return what comes until the end, or until nothing came for `timeout_s`."""
    found, deadline = b"", time.monotonic() + 60
    connection.settimeout(timeout_s)
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline and (chunk := connection.recv(65_536)):
            found += chunk
    return found


def statuses(answers: bytes) -> list[int]:
    """Return the status of each answer in what came over one connection."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
