"""The lease: the second witness of this worker's life, beaten into MySQL; and what MySQL has to tell in return."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import WorkerInfo
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Store
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper_worker.fences import Fences
from cronkeeper_worker.steady_clock import SteadyClock

log = logging.getLogger(__name__)

#: A clock further off than this is warned of.
WARN_OFFSET_MS = 1000


class Lease:
    """`step` is the body of a loop."""

    def __init__(
        self,
        info: WorkerInfo,
        store: Store,
        fences: Fences,
        clock: SteadyClock,
        metrics: WorkerMetrics,
        *,
        every_s: float,
        cancel: Callable[[RunKey], None],
        foreign: Callable[[], list[TaskId]],
        refresh_foreign: Callable[[Sequence[TaskId]], None],
        reborn: Callable[[], str],
    ) -> None:
        self._info = info
        self._store = store
        self._fences = fences
        self._clock = clock
        self._metrics = metrics
        self._every_s = every_s
        self._cancel = cancel
        self._foreign = foreign
        self._refresh_foreign = refresh_foreign
        self._reborn = reborn

    def step(self) -> float:
        """Beat once. Raises UnavailableError while MySQL is away; claims go to the other fence meanwhile."""
        sent_s = self._clock.boot_s()
        node_ms, step_ms = self._clock.node_ms()
        try:
            beat = self._store.leases.beat(self._info, local_ms=node_ms)
        except UnavailableError:
            if self._fences.mysql_ok:
                log.warning("MySQL is away; fires go by the other fence", extra={"event": "mysql.away"})
            self._fences.mysql_ok = False
            self._metrics.mysql.set(0)
            raise
        if not beat.lost:
            self._fences.lease_heard_s = sent_s
        if not self._fences.mysql_ok:
            log.info("MySQL answers", extra={"event": "mysql.back"})
        self._fences.mysql_ok = True
        self._metrics.mysql.set(1)
        self._clock.judge(step_ms, beat.clock_offset_ms)
        self._metrics.clock_offset.set(beat.clock_offset_ms / 1000)
        if abs(beat.clock_offset_ms) > WARN_OFFSET_MS:
            log.warning("this node's clock is off", extra={"event": "clock.off", "offset_ms": beat.clock_offset_ms})
        if beat.lost:
            # The leader gave this start of the daemon up, and its runs with it: go on under a new epoch.
            log.warning("the leader had declared this worker lost", extra={"event": "worker.was_lost"})
            self._info = replace(self._info, epoch=self._reborn())
        for key in self._store.runs.cancellations(self._info.id):
            self._cancel(key)
        waiting = self._foreign()
        if waiting:
            self._refresh_foreign(waiting)
        return self._every_s

    def release(self) -> None:
        """Say goodbye, if MySQL can hear it."""
        try:
            self._store.leases.release(self._info.id, incarnation=self._info.epoch)
        except UnavailableError:
            log.info("the lease could not be released, it ends by itself", extra={"event": "lease.left"})
