"""Pausing jobs that have failed too often in a row, as their `pause_after_failures` asks.

A leader holds no key, so it cannot sign a paused task. It pauses the job's row, by compare-and-set on its generation
and under its term, and withdraws its tasks from their workers until an API server has signed the job anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.run import Run
from cronkeeper.errors import NotFoundError, WireFormatError
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.streaks import failures_in_a_row

log = logging.getLogger(__name__)

#: Jobs looked at in one turn; the others are looked at in the next.
EACH_TURN = 100
_PAGE = 500


class Pauser:
    """One leader's part. What it has seen is settled last: whatever interrupts it, the next leader looks again."""

    def __init__(self, leading: Leading) -> None:
        self._leading = leading

    def work(self, now_ms: int) -> None:
        """Look at the jobs that have failed since the last look. Raises UnavailableError or FencedError."""
        leading, store = self._leading, self._leading.store.failures
        noted = leading.mysql.call(lambda: store.noted(limit=EACH_TURN))
        for job_id in noted:
            self._look_at(job_id, now_ms)
        if noted:
            leading.mysql.call(lambda: store.settle(noted, term=leading.term))

    def _look_at(self, job_id: int, now_ms: int) -> None:
        try:
            job = self._leading.mysql.call(lambda: self._leading.store.jobs.get(job_id))
        except (NotFoundError, WireFormatError):
            return
        wanted = job.spec.pause_after_failures
        if wanted is None or job.state is not JobState.ACTIVE:
            return
        streak = failures_in_a_row(job, self._ends(job), now_ms=now_ms, enough=wanted)
        if streak.count >= wanted:
            self._pause(job, streak.words)

    def _pause(self, job: Job, reason: str) -> None:
        leading = self._leading
        if not leading.mysql.call(
            lambda: leading.store.failures.pause(job.id, generation=job.generation, reason=reason, term=leading.term)
        ):
            # It was saved meanwhile, and counts anew from then on.
            return
        leading.metrics.paused.inc()
        log.warning(
            "a job was paused as it failed too often",
            extra={"event": "job.paused_after_failures", "job": job.id, "reason": reason},
        )
        leading.notes.add("job.paused_after_failures", str(job.id), reason)

    def _ends(self, job: Job) -> Iterator[Run]:
        """Yield the job's runs since its last change, newest first, page by page."""
        before: RunKey | None = None
        while True:
            page = self._leading.mysql.call(
                lambda: self._leading.store.failures.ends(
                    job.id,
                    after_ms=job.effective_from_ms,
                    limit=_PAGE,
                    before=before,  # noqa: B023
                )
            )
            yield from page
            if len(page) < _PAGE:
                return
            before = page[-1].key
