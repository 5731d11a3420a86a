"""Gunicorn's threads, and what they do with connections that are no good: nobody waits for a client there."""

from __future__ import annotations

import contextlib
import logging
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
        """Handle a request; a connection that ends is ended here.

        Gunicorn would wait up to 2 s for the client's word in the thread that accepts all others.
        """
        result = super().handle(conn)
        if result is False:
            _hang_up(conn.sock)
        return result

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Read the rest of a body that was refused, if it is there; gunicorn would wait 5 s for it."""
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
