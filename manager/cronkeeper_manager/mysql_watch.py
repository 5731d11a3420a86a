"""Whether MySQL answers this leader, and since when not.

A leader that waits for a dead MySQL in every turn is no use to anybody. So the first failure marks it as away; while it
is away nobody asks it but a thread with one cheap question, until that is answered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from cronkeeper.errors import CronkeeperError, UnavailableError, UnknownOutcomeError
from cronkeeper.ports import Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.loop import spawn_thread

log = logging.getLogger(__name__)

T = TypeVar("T")
_PING_EVERY_S = 1.0


class MysqlWatch:
    """Asks MySQL through `call`, and remembers how that went.

    With `background` a thread finds out when MySQL is back; without it every question about `available` does (for
    tests, and for whoever asks once).
    """

    def __init__(
        self, store: Store, clock: Clock, *, background: bool, on_return: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._background = background
        self._on_return = on_return
        self._away = False
        self._stopping = threading.Event()
        #: When MySQL last answered, on the boot clock; before the first answer, when this was made.
        self.ok_s = clock.boot_s()

    @property
    def available(self) -> bool:
        """Whether it is worth asking."""
        if self._away and not self._background:
            self._ping()
        return not self._away

    def silent_s(self) -> float:
        """Return for how long MySQL has not answered; 0 while it is not known to be away."""
        return self._clock.boot_s() - self.ok_s if self._away else 0.0

    def call(self, ask: Callable[[], T]) -> T:
        """Return what MySQL answers. Raises UnavailableError, also for an answer that was lost.

        So ask only what may be asked again.
        """
        if not self.available:
            raise UnavailableError("MySQL is away")
        try:
            result = ask()
        except (UnavailableError, UnknownOutcomeError) as exc:
            self._note_away(exc)
            raise UnavailableError(str(exc)) from exc
        self.ok_s = self._clock.boot_s()
        return result

    def stop(self) -> None:
        """End the thread. Safe to repeat."""
        self._stopping.set()

    def _note_away(self, exc: CronkeeperError) -> None:
        if self._away:
            return
        self._away = True
        log.warning("MySQL does not answer", extra={"event": "mysql.away", "error": str(exc)})
        if self._background:
            spawn_thread("mysql-watch", self._wait_for_return, self._on_death)

    def _wait_for_return(self) -> None:
        while self._away and not self._clock.wait(self._stopping, _PING_EVERY_S):
            self._ping()

    def _ping(self) -> None:
        try:
            self._store.ping()
        except CronkeeperError:
            return
        self.ok_s = self._clock.boot_s()
        self._away = False
        log.info("MySQL answers again", extra={"event": "mysql.back"})
        self._on_return()

    def _on_death(self, exc: BaseException) -> None:
        log.error("the watch over MySQL has died, it is asked again", extra={"event": "mysql.watch"}, exc_info=exc)
        self._away = False
