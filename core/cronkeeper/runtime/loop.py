"""The one loop: observe, decide, apply one step, forget everything, look again.

A step returns the seconds until it wants to be called again. Watches and signals call `wake` and carry nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cronkeeper.errors import CronkeeperError

log = logging.getLogger(__name__)


class Loop:
    """Calls `step` until `stop`. A retryable error means the whole step again, after a growing wait."""

    def __init__(self, name: str, step: Callable[[], float], *, max_backoff_s: float = 5.0) -> None:
        self.name = name
        self._step = step
        self._max_backoff_s = max_backoff_s
        self._wake = threading.Event()
        self._stopping = threading.Event()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def wake(self) -> None:
        """Have the next step run at once. Callable from any thread and from a signal handler."""
        self._wake.set()

    def stop(self) -> None:
        """End the loop after the present step."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Run until stopped. Errors that are not retryable go up: they are for whoever can do something about them."""
        failures = 0
        while not self._stopping.is_set():
            # Cleared before the step: a wake that comes while it reads must lead to another look.
            self._wake.clear()
            try:
                wait_s, failures = self._step(), 0
            except CronkeeperError as exc:
                if not exc.retryable:
                    raise
                failures += 1
                wait_s = min(0.1 * 2.0 ** min(failures, 16), self._max_backoff_s)
                log.warning(
                    "a step failed, it will be tried again",
                    extra={"loop": self.name, "failures": failures, "wait_s": wait_s, "error": str(exc)},
                )
            self._wake.wait(wait_s)


def spawn_thread(name: str, target: Callable[[], None], on_death: Callable[[BaseException], None]) -> threading.Thread:
    """Start a daemon thread whose unexpected end is never silent: `on_death` is told and decides."""

    def guarded() -> None:
        try:
            target()
        except BaseException as exc:  # noqa: BLE001 - a dead thread must be noticed, whatever killed it
            on_death(exc)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
