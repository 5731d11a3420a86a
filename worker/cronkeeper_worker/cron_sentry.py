"""Keeps an eye on this node's cron: hears its calls, tells when they stop and come back, and mends what it can.

It never touches cron itself. Fires go on by timer whatever it finds.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from cronkeeper.ports import Event
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper_worker import cron_watch
from cronkeeper_worker.cron_watch import Finding, Now, Watch
from cronkeeper_worker.journal import Journal

log = logging.getLogger(__name__)

SILENT, BACK = "cron.silent", "cron.back"
#: Between two looks.
LOOK_S = 5.0


class CronSentry:
    """`step` is the body of a loop; the other methods may be called from any thread, and return at once.

    `mend` has the crontab put in place anew, and says itself when that cannot be done. What is told goes into the
    journal, from which the reporter carries it to MySQL; and a daemon that starts there knows how the last one left.
    """

    def __init__(
        self,
        worker: str,
        journal: Journal,
        clock: Clock,
        metrics: WorkerMetrics,
        *,
        silent_s: float,
        mend: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._silent_s = silent_s
        self._mend = mend
        self._lock = threading.Lock()
        told = journal.last_event((SILENT, BACK))
        self._watch = Watch(silent=told is not None and told.kind == SILENT)

    def installed(self, ticks: Iterable[int]) -> None:
        """Say that a crontab with just these ticks stands there now."""
        with self._lock:
            self._watch = cron_watch.installed(self._watch, ticks, self._clock.boot_s())

    def called(self, number: int) -> None:
        """Say that cron has called with this number."""
        with self._lock:
            self._watch = cron_watch.called(self._watch, number, self._clock.boot_s())

    def step(self) -> float:
        """Look once. A journal that cannot be written puts the news off to the next look."""
        with self._lock:
            now = Now(self._clock.boot_s(), self._clock.now_ms() / 1000)
            watch, finding = cron_watch.look(self._watch, now, self._silent_s)
            if finding.news and not self._tell(finding):
                self._watch = replace(self._watch, looked=now)
                return LOOK_S
            self._watch = watch
        self._metrics.cron_silent.set(finding.silent)
        if finding.mend:
            # Not under the lock: the crontab's writer comes back with `installed`.
            self._mend()
        return LOOK_S

    def _tell(self, finding: Finding) -> bool:
        try:
            self._journal.tell(Event(self._clock.now_ms(), finding.news, self._worker, finding.words))
        except sqlite3.Error as exc:
            log.error("the journal cannot be written", extra={"event": "journal.fault", "error": str(exc)})
            return False
        if finding.silent:
            log.error("cron is silent; fires go by timer", extra={"event": "cron.silent", "found": finding.words})
        else:
            log.info("cron calls again", extra={"event": "cron.back"})
        return True
