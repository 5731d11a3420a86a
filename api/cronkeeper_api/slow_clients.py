"""Slow clients: what takes long to come or to go holds a few threads only, and each for a while.

Small bodies are whole when they arrive: HAProxy waits for them (`option http-buffer-request`). Small answers fit into
the buffers on the way. Everything else takes one of a few places while it is on its way.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from flask import Response, request

from cronkeeper_api.problems import ProblemError

#: HAProxy keeps this much and more until it is whole: its buffer has 16 kB, of which the head takes a part.
SMALL_BODY_BYTES = 8 * 1024
#: The kernel and HAProxy take so much of an answer, whether anybody reads it or not.
SMALL_ANSWER_BYTES = 512 * 1024
_RETRY_AFTER = {"Retry-After": "1"}


class SlowClients:
    """The places of one process. Fast clients need one for milliseconds, so they find one within `wait_s`.

    A body that is not whole after `limit_s` is not waited for any longer. (An answer that nobody takes is ended by
    HAProxy's `timeout client`.)
    """

    def __init__(self, places: int, *, limit_s: float, wait_s: float = 0.25) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._limit_s = limit_s
        self._wait_s = wait_s

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read the body of the present request inside. Raises ProblemError: too-many, too-slow."""
        length = request.content_length
        if length is not None and length <= SMALL_BODY_BYTES:
            yield
            return
        self.take()
        late = threading.Event()
        timer = self._timer(request.environ.get("gunicorn.socket"), late)
        try:
            yield
        except Exception:
            # What the reader throws when its connection ends under it says nothing of the reason.
            if not late.is_set():
                raise
        finally:
            if timer is not None:
                timer.cancel()
            self.release()
        if late.is_set():
            raise ProblemError("too-slow", f"the body was not there after {self._limit_s:g} s; nothing was saved")

    def sending(self, response: Response) -> Response:
        """Return the answer, with a place for as long as it is on its way if it is a large one.

        Raises ProblemError (too-many) if there is none; but not for a write: it is done, and must be answered.
        """
        if request.method in ("GET", "HEAD") and response.is_sequence:
            length = response.calculate_content_length()
            if length is not None and length > SMALL_ANSWER_BYTES:
                self.take()
                response.call_on_close(self.release)
        return response

    def take(self) -> None:
        """Take a place. Raises ProblemError (too-many)."""
        if not self._places.acquire(timeout=self._wait_s):
            raise ProblemError("too-many", "too much is on its way to or from this server", headers=_RETRY_AFTER)

    def release(self) -> None:
        """Give a place back."""
        self._places.release()

    def _timer(self, connection: socket.socket | None, late: threading.Event) -> threading.Timer | None:
        if connection is None:
            return None

        def end() -> None:
            late.set()
            # Of the TCP connection itself: with TLS the answer is still to be sent through it.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RD)

        timer = threading.Timer(self._limit_s, end)
        timer.daemon = True
        timer.start()
        return timer
