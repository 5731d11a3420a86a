"""Whether MySQL answers this manager steadily: what a candidate tells the others.

A follower asks MySQL nothing else, so it is asked once a second, in a thread: a question without an answer tells as
much as a refusal, and nobody has to wait for it.
"""

from __future__ import annotations

import threading

from cronkeeper.errors import CronkeeperError
from cronkeeper.ports import Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.loop import spawn_thread

#: An answer counts for so long, from the sending of its question.
FRESH_S = 3.0
#: MySQL answers steadily once it has done so for this long without a break.
STEADY_S = 5.0
_ASK_EVERY_S = 1.0


class Reach:
    """With `background` a thread asks; without it every question does (for tests)."""

    def __init__(self, store: Store, clock: Clock, *, background: bool) -> None:
        self._store = store
        self._clock = clock
        self._background = background
        self._started = False
        self._stopping = threading.Event()
        #: When (boot-time clock) the first and the newest question of an unbroken row of answers were sent.
        self._unbroken: tuple[float, float] | None = None

    def steady(self) -> bool:
        """Whether MySQL answers, and has done so for STEADY_S. Never waits for it with `background`."""
        if not self._background:
            self._ask()
        elif not self._started:
            self._started = True
            spawn_thread("mysql-reach", self._keep_asking, self._on_death)
        unbroken = self._unbroken
        if unbroken is None:
            return False
        since_s, heard_s = unbroken
        return self._clock.boot_s() - heard_s <= FRESH_S and heard_s - since_s >= STEADY_S

    def stop(self) -> None:
        """End the thread. Safe to repeat."""
        self._stopping.set()

    def _keep_asking(self) -> None:
        while not self._stopping.is_set():
            self._ask()
            self._clock.wait(self._stopping, _ASK_EVERY_S)

    def _ask(self) -> None:
        sent_s = self._clock.boot_s()
        try:
            self._store.ping()
        except CronkeeperError:
            self._unbroken = None
            return
        before = self._unbroken
        # Between two answers that are too far apart there was a break, even if no question failed.
        broken = before is None or sent_s - before[1] > FRESH_S
        self._unbroken = (sent_s if before is None or broken else before[0], sent_s)

    def _on_death(self, exc: BaseException) -> None:
        self._unbroken, self._started = None, False
