"""kazoo's sockets, with limits: the kernel gives up on a dead peer, connecting is bounded, waking never blocks."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import ssl
import threading
import time
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

log = logging.getLogger(__name__)

#: A black-holed server must not use up the session's time while others would answer.
CONNECT_S = 2.0


class BoundedHandler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """`unacknowledged_s`: after so long without the peer's TCP acknowledgement the kernel ends the connection.

    `shun_s`: a server that was left because it was silent is not tried again for so long.
    """

    def __init__(self, *, unacknowledged_s: float, shun_s: float, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._unacknowledged_ms = int(unacknowledged_s * 1000)
        self._shun_s = shun_s
        self._shunned: tuple[Any, float] = (None, 0.0)
        self._socket: socket.socket | None = None
        self._loop: threading.Thread | None = None
        self._tls = tls
        #: What is known of the server tried last, for as long as it has given no session.
        self.last_fault = ""

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        address, until = self._shunned
        if kwargs.get("address") == address and time.monotonic() < until:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "silent a moment ago; trying the others first")
        kwargs["timeout"] = min(kwargs.get("timeout") or CONNECT_S, CONNECT_S)
        connection = super().create_connection(*args, **kwargs)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unacknowledged_ms)
        if self._tls is not None:
            connection = self._secured(connection, self._tls, kwargs["hostname"])
        wants = "TLS (zookeeper_tls_ca)" if self._tls is None else "a certificate of ours (zookeeper_tls_cert)"
        self.last_fault = f"{kwargs['hostname']} answers but gave no session; has it a quorum, or wants {wants}?"
        self._socket = connection
        return connection

    def _secured(self, connection: socket.socket, tls: ssl.SSLContext, name: str) -> ssl.SSLSocket:
        # kazoo's own way would trust the system's CAs, too.
        try:
            secured = tls.wrap_socket(connection, server_hostname=name)
        except OSError as exc:
            connection.close()
            # kazoo takes it for any other connection that broke, and tries the next server.
            self._note_fault(f"TLS with {name} failed: {_tls_words(exc)}")
            raise
        return secured

    def _note_fault(self, words: str) -> None:
        if words != self.last_fault:
            log.warning("no TLS with ZooKeeper", extra={"event": "zookeeper.tls_failed", "error": words})
        self.last_fault = words

    def select(self, *args: Any, **kwargs: Any) -> Any:
        # What TLS has decrypted already makes no descriptor readable: kazoo would wait for it until the next answer.
        decrypted = [item for item in args[0] if isinstance(item, ssl.SSLSocket) and item.pending()]
        if decrypted:
            ready = self._select(args[0], args[1], args[2], 0)
            return [*decrypted, *(item for item in ready[0] if item not in decrypted)], *ready[1:]
        return self._select(*args, **kwargs)

    def _select(self, *args: Any, **kwargs: Any) -> Any:
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
                # Not TLS's own: it would make the socket a plain one first, and kazoo's thread may be about to write.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _tls_words(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({exc.verify_message}); see zookeeper_tls_ca"
    if isinstance(exc, ssl.SSLError):
        return f"{exc.reason or exc}; is this its TLS port, or wants it a certificate of ours (zookeeper_tls_cert)?"
    return f"{exc.strerror or exc}; is this its TLS port?"


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
