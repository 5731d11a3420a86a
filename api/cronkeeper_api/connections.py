"""Gunicorn's threads: connections that are no good hold none of them, and busy ones stay with the thread they have.

Each system call of a thread lets the others run, and then waits for its turn again: in a busy process that costs more
than the call itself. So those that change nothing are left out here.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

log = logging.getLogger(__name__)

#: How long is waited for the rest of a body that nobody wants, and for the client to hang up first.
_LINGER_S = 0.3
_LINGER_BYTES = 65_536
#: A thread stays with its connection for so long: a proxy that has more requests sends the next one at once.
_NEXT_MS = 5
#: How often the supervising process is told that we live; it waits for a minute.
_TOLD_EVERY_S = 1.0

_PROBLEM = (
    b'{"type": "/problems/malformed", "title": "The request cannot be read", "status": 400, '
    b'"detail": "this is not HTTP as it should be", "instance": "", "errors": []}\n'
)
_NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_PROBLEM), _PROBLEM)
)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process: requests that are no HTTP are answered by a problem, and connections end without a wait."""

    _told_s = float("-inf")

    def notify(self) -> None:
        """Tell that we live, at most once a second; gunicorn would after each event."""
        if time.monotonic() - self._told_s >= _TOLD_EVERY_S:
            self._told_s = time.monotonic()
            super().notify()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer by a problem, as all others are; nothing of the request is sent back."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        log.info("a request was not HTTP", extra={"event": "http.malformed", "error": type(exc).__name__})
        # A client that has gone meanwhile needs no answer.
        with contextlib.suppress(OSError):
            write_nonblock(client, _NOT_HTTP)

    def handle(self, conn: Any) -> Any:
        """Handle a request, and those that follow it at once; a connection that ends is ended here.

        Gunicorn would have each of them go through the thread that accepts all others, and would wait there up to 2 s
        for the client's word at the end.
        """
        result = super().handle(conn)
        while result is True and self._follows(conn):
            result = super().handle(conn)
        if result is False:
            _hang_up(conn.sock)
        return result

    def _follows(self, conn: Any) -> bool:
        """Wait a moment for the connection's next request, unless somebody else waits for a thread."""
        if not self.alive or self.tpool._work_queue.qsize() or conn.parser.unreader.buf.getvalue():
            return False
        waiting = select.poll()
        waiting.register(conn.sock, select.POLLIN)
        return bool(waiting.poll(_NEXT_MS))

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Read the rest of a body that was refused, if it is there; gunicorn would wait 5 s for it."""
        body = conn.parser.mesg.body
        if keepalive and not body.failed and getattr(body.reader, "length", None) == 0:
            # Nothing is left: no need to look, now or before the next request.
            conn.parser.mesg = None
            return True
        return keepalive and bool(conn.parser.finish_body(deadline=time.monotonic() + _LINGER_S))


def _hang_up(connection: socket.socket) -> None:
    """End both directions; what the client still sends is taken for a moment, so that our answer is not lost."""
    deadline, taken = time.monotonic() + _LINGER_S, 0
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while taken < _LINGER_BYTES and (left_s := deadline - time.monotonic()) > 0:
            connection.settimeout(left_s)
            data = connection.recv(8192)
            if not data:
                break
            taken += len(data)
    # From here on there is nothing to wait for: not even when gunicorn tries.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
