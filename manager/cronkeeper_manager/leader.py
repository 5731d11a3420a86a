"""Standing for leadership, and leading: the body of the manager's loop."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cronkeeper.errors import FencedError, UnavailableError
from cronkeeper.ports import Coordinator, Leadership, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.metrics import ManagerMetrics
from cronkeeper.wire.znodes import LeaderNote
from cronkeeper_manager.config import ManagerConfig
from cronkeeper_manager.leading import Leading, Notes
from cronkeeper_manager.mysql_watch import MysqlWatch
from cronkeeper_manager.observe import Observer
from cronkeeper_manager.reach import Reach
from cronkeeper_manager.reconcile import Reconciler
from cronkeeper_manager.succession import GIVE_WAY_S, gives_way

log = logging.getLogger(__name__)

#: How often a follower looks, should a watch be lost.
FOLLOW_S = 1.0


class Leader:
    """One manager's part: a follower until it is elected, then a leader until it is fenced. It never goes back.

    `step` raises FencedError when a leadership is lost: the process must begin afresh, without any belief of its own.
    """

    def __init__(
        self,
        config: ManagerConfig,
        store: Store,
        coordinator: Coordinator,
        clock: Clock,
        metrics: ManagerMetrics,
        *,
        mysql: MysqlWatch,
        reach: Reach,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._store = store
        self._coordinator = coordinator
        self._clock = clock
        self._metrics = metrics
        self._mysql = mysql
        self._reach = reach
        self._stopping = stopping
        self.observer = Observer(store, coordinator, clock, mysql)
        self.reconciler: Reconciler | None = None
        self._elected_s: float | None = None

    @property
    def leads(self) -> bool:
        """Whether it has begun a term."""
        return self.reconciler is not None

    def step(self) -> float:
        """Stand, follow or lead once; return the seconds until the next. Raises UnavailableError or FencedError."""
        self._metrics.zookeeper.set(self._coordinator.connected)
        if self.reconciler is not None:
            if self._mysql.silent_s() >= GIVE_WAY_S:
                self._step_down()
            return self.reconciler.turn()
        steady = self._reach.steady()
        self._coordinator.campaign(self._note(reaches_mysql=steady))
        leadership = self._coordinator.leadership()
        if leadership is None:
            if self._elected_s is not None:
                raise FencedError("the leadership was lost before its term began")
            return FOLLOW_S
        if not steady and gives_way(leads=False, silent_s=0.0, rivals=self._coordinator.rivals()):
            self._stand_again()
            return FOLLOW_S
        self._begin(leadership)
        return 0.0

    def resign(self) -> None:
        """Leave at once, so that another manager takes over without waiting for our session's end. Best effort."""
        self._metrics.leading.set(0)
        try:
            self._coordinator.resign()
        except UnavailableError as exc:
            log.info("could not resign", extra={"event": "leader.resign_failed", "error": str(exc)})

    def _begin(self, leadership: Leadership) -> None:
        """Take a term. While MySQL is away there is none to be had: give way to a manager that may reach it."""
        now_s = self._clock.boot_s()
        if self._elected_s is None:
            self._elected_s = now_s
        try:
            term = self._mysql.call(lambda: self._store.terms.take(self._config.name))
        except UnavailableError:
            if now_s - self._elected_s > self._config.mysql_silent_s:
                self._stand_again()
            raise
        leading = Leading(
            store=self._store,
            coordinator=self._coordinator,
            clock=self._clock,
            mysql=self._mysql,
            leadership=leadership,
            term=term,
            liveness=self._config.liveness,
            runs_keep_days=self._config.runs_keep_days,
            trail_keep_days=self._config.trail_keep_days,
            metrics=self._metrics,
            notes=Notes(self._store, self._clock),
            stopping=self._stopping,
        )
        self.reconciler = Reconciler(leading, self.observer)
        self._metrics.leading.set(1)
        log.info("elected as leader", extra={"event": "leader.elected", "term": term, "epoch": leadership.epoch})
        leading.notes.add("leader.elected", self._config.name, f"term {term}")

    def _stand_again(self) -> None:
        """Go to the end of the queue."""
        self._elected_s = None
        self._coordinator.resign()
        log.warning("elected, but MySQL is away: standing again", extra={"event": "leader.gave_way"})

    def _step_down(self) -> None:
        """Leave the lead to whoever reaches MySQL, if there is one. Raises FencedError then."""
        silent_s = self._mysql.silent_s()
        rivals = self._coordinator.rivals()
        if not gives_way(leads=True, silent_s=silent_s, rivals=rivals):
            return
        self._coordinator.resign()
        log.warning(
            "MySQL answers another manager but not this leader: stepping down",
            extra={"event": "leader.stepped_down", "silent_s": round(silent_s, 1), "rivals": len(rivals)},
        )
        raise FencedError("stepped down: MySQL answers another manager")

    def _note(self, *, reaches_mysql: bool) -> LeaderNote:
        return LeaderNote(self._config.name, self._config.metrics_bind, 0, reaches_mysql)
