"""Free loopback ports."""

from __future__ import annotations

import random
import socket
import threading

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes the port between our look
# and the server's bind; and away from 30000, where HAProxy stands in production.
_FIRST = 20_000
_LAST = 29_999

_handed_out: set[int] = set()
_lock = threading.Lock()
# Not the seeded global generator: two test sessions on one machine must not walk through the same ports.
_random = random.SystemRandom()


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on, and that no other call in this process was given."""
    with _lock:
        for _ in range(1000):
            port = _random.randint(_FIRST, _LAST)
            if port not in _handed_out and is_free(port):
                _handed_out.add(port)
                return port
    raise RuntimeError(f"no free port between {_FIRST} and {_LAST}")


def is_free(port: int) -> bool:
    """Return whether a server could bind `port` on 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
