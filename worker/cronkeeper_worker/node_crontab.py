"""This node's crontab as the daemon keeps it: written when tasks change, looked after between changes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.cron_sentry import CronSentry
from cronkeeper_worker.crontab_keeper import CrontabKeeper, choose_target, system_timezone
from cronkeeper_worker.fire_listener import fire_path, install_fire
from cronkeeper_worker.journal import Journal
from cronkeeper_worker.tasks import Installed

#: Crontab and tasks are compared at least this often.
LOOK_S = 3600.0
_STEP_S = 5.0


class NodeCrontab:
    """`step` and `sentry.step` are bodies of loops. `tasks` asks the engine what is installed now; `place` has the root
    part put files in place, where there is one."""

    def __init__(
        self,
        config: WorkerConfig,
        worker: str,
        journal: Journal,
        clock: Clock,
        metrics: WorkerMetrics,
        tasks: Callable[[], Sequence[Installed]],
        place: Callable[[Sequence[str] | None], None] | None = None,
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._keeper = CrontabKeeper(
            choose_target(config, place),
            install_fire(config.state_dir, sys.executable) if place is None else fire_path(config.state_dir.parent),
            config.cron_timezone or system_timezone(),
            clock,
        )
        self._lock = threading.Lock()
        self._stale = threading.Event()
        self._looked_s = clock.boot_s()
        self.sentry = CronSentry(worker, journal, clock, metrics, silent_s=config.cron_silent_s, mend=self._mend)

    def write(self) -> None:
        """Bring the crontab up to date: asked under the lock, so that no older answer is written over a newer one."""
        with self._lock:
            self.install(self._tasks())

    def install(self, items: Sequence[Installed]) -> None:
        """Make the crontab hold just these tasks. For when nobody else can ask for another."""
        if self._keeper.install(items):
            self._stale.clear()
            self.sentry.installed(self._keeper.ticks)
        else:
            self._stale.set()

    def doubt(self) -> None:
        """Have the next step write it: a change of the tasks failed somewhere on its way."""
        self._stale.set()

    def clear(self) -> None:
        """Remove every entry of ours."""
        self._keeper.clear()

    def step(self) -> float:
        """Write again what could not be written; and look now and then, as patterns are made for the next 400 days."""
        now_s = self._clock.boot_s()
        if self._stale.is_set() or now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            self.write()
        return _STEP_S

    def _mend(self) -> None:
        """Cron is silent: put right what somebody may have done to our files, and have cron read them again."""
        self.write()
        with self._lock:
            self._keeper.renew()
