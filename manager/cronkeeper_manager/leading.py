"""What a leader works with while its term lasts, and the proof that it still lasts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cronkeeper.errors import FencedError, UnavailableError
from cronkeeper.ports import Coordinator, Event, Leadership, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.metrics import ManagerMetrics
from cronkeeper_manager.liveness import LivenessSettings
from cronkeeper_manager.mysql_watch import MysqlWatch

log = logging.getLogger(__name__)

#: Events kept for as long as MySQL is away; the oldest go first.
_EVENTS_KEPT = 1000


class Notes:
    """Events for people, written in batches; none is worth stopping for."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[Event] = deque(maxlen=_EVENTS_KEPT)

    def add(self, kind: str, subject: str, detail: str) -> None:
        """Note something that a person may want to know later."""
        self._waiting.append(Event(self._clock.now_ms(), kind, subject, detail))

    def flush(self, mysql: MysqlWatch) -> None:
        """Write what is waiting. Without MySQL it goes on waiting."""
        if not self._waiting:
            return
        batch = list(self._waiting)
        try:
            mysql.call(lambda: self._store.events.add(batch))
        except UnavailableError:
            return
        for _ in batch:
            self._waiting.popleft()


@dataclass(frozen=True, slots=True)
class Leading:
    """One term of one leader."""

    store: Store
    coordinator: Coordinator
    clock: Clock
    mysql: MysqlWatch
    leadership: Leadership
    term: int
    liveness: LivenessSettings
    runs_keep_days: int
    metrics: ManagerMetrics
    notes: Notes
    trail_keep_days: int = 400
    #: Says whether the process has been asked to end: long work stops at the next safe place.
    stopping: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raise FencedError when this process does not lead any more. Call it before writes that no fence protects."""
        if self.coordinator.leadership() != self.leadership:
            raise FencedError("the leadership is lost")

    def hold_term(self) -> None:
        """Move the term's row while MySQL answers. Raises FencedError when a newer term exists."""
        if self.mysql.available:
            try:
                self.mysql.call(lambda: self.store.terms.hold(self.term))
            except UnavailableError:
                # The leadership in ZooKeeper still stands, and every write there checks it.
                return

    def without_mysql(self) -> bool:
        """Whether MySQL has been silent for so long that its witness, and its copy of the assignments, do not count."""
        return not self.mysql.available and self.mysql.silent_s() >= self.liveness.mysql_silent_s
