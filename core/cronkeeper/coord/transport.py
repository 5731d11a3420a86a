"""kazoo's sockets, with limits: the kernel gives up on a dead peer, connecting is bounded, waking never blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

#: A black-holed server must not use up the session's time while others would answer.
CONNECT_S = 2.0


class BoundedHandler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """`unacknowledged_s`: after so long without the peer's TCP acknowledgement the kernel ends the connection.

    `shun_s`: a server that was left because it was silent is not tried again for so long.
    """

    def __init__(self, *, unacknowledged_s: float, shun_s: float) -> None:
        super().__init__()
        self._unacknowledged_ms = int(unacknowledged_s * 1000)
        self._shun_s = shun_s
        self._shunned: tuple[Any, float] = (None, 0.0)
        self._socket: socket.socket | None = None
        self._loop: threading.Thread | None = None

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        address, until = self._shunned
        if kwargs.get("address") == address and time.monotonic() < until:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "silent a moment ago; trying the others first")
        kwargs["timeout"] = min(kwargs.get("timeout") or CONNECT_S, CONNECT_S)
        connection = super().create_connection(*args, **kwargs)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unacknowledged_ms)
        self._socket = connection
        return connection

    def select(self, *args: Any, **kwargs: Any) -> Any:
        # kazoo makes a new epoll object for every request and every answer, which doubles the cost of both.
        try:
            return select.select(*args, **kwargs)
        except ValueError:  # a descriptor too high for select: a process with many open files
            return super().select(*args, **kwargs)

    def create_socket_pair(self) -> Any:
        # kazoo wakes its connection thread with one byte for each request. A pair of sockets holds 278 of them and then
        # blocks the caller for as long as the connection is away; a pipe holds 65,536.
        read_fd, write_fd = os.pipe()
        return _PipeEnd(read_fd), _PipeEnd(write_fd)

    def spawn(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        thread = super().spawn(func, *args, **kwargs)
        if getattr(func, "__name__", "") == "zk_loop":
            self._loop = thread
        return thread

    @property
    def dead(self) -> bool:
        """Whether kazoo's connection thread was started and has ended: nothing will reconnect any more."""
        return self._loop is not None and not self._loop.is_alive()

    def drop_connection(self) -> None:
        """End the present connection, so that kazoo tries the other servers with the same session."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._shunned = (self._socket.getpeername()[:2], time.monotonic() + self._shun_s)
                self._socket.shutdown(socket.SHUT_RDWR)


class _PipeEnd:
    """One end of a pipe, with as much of a socket's face as kazoo looks at."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def send(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def recv(self, size: int) -> bytes:
        return os.read(self._fd, size)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
