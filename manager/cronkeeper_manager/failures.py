"""What the leader does about failures: it pauses jobs that ask for it (`pause_after_failures`), and moves tasks whose
next attempt is to run on another worker (`retry.elsewhere`).

A leader holds no key, so it cannot sign a paused task. It pauses the job's row, by compare-and-set on its generation
and under its term, and withdraws its tasks from their workers until an API server has signed the job anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.run import Run
from cronkeeper.errors import NotFoundError, WireFormatError
from cronkeeper.ports import MoveRequest
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.planner import Planning
from cronkeeper_manager.streaks import failures_in_a_row, tried_here
from cronkeeper_manager.world import World

log = logging.getLogger(__name__)

#: Jobs looked at in one turn; the others are looked at in the next.
EACH_TURN = 100
_PAGE = 500


class Failures:
    """One leader's part. What it has seen is settled last: whatever interrupts it, the next leader looks again."""

    def __init__(self, leading: Leading) -> None:
        self._leading = leading

    def work(self, now_ms: int, world: World) -> None:
        """Look at the jobs that have failed since the last look. Raises UnavailableError or FencedError."""
        leading, store = self._leading, self._leading.store.failures
        noted = leading.mysql.call(lambda: store.noted(limit=EACH_TURN))
        tried: dict[TaskId, frozenset[str]] = {}
        for job_id in noted:
            job = self._job(job_id)
            if job is not None and job.state is JobState.ACTIVE and not self._pause_if_wanted(job, now_ms):
                tried |= self._to_move(job, now_ms)
        self._move(tried, world, now_ms)
        if noted:
            leading.mysql.call(lambda: store.settle(noted, term=leading.term))

    def _job(self, job_id: int) -> Job | None:
        try:
            return self._leading.mysql.call(lambda: self._leading.store.jobs.get(job_id))
        except (NotFoundError, WireFormatError):
            return None

    def _pause_if_wanted(self, job: Job, now_ms: int) -> bool:
        wanted = job.spec.pause_after_failures
        if wanted is None:
            return False
        streak = failures_in_a_row(job, self._ends(job), now_ms=now_ms, enough=wanted)
        if streak.count >= wanted:
            self._pause(job, streak.words)
        return streak.count >= wanted

    def _to_move(self, job: Job, now_ms: int) -> dict[TaskId, frozenset[str]]:
        if not job.spec.retry.elsewhere:
            return {}
        newest = self._leading.mysql.call(
            lambda: self._leading.store.failures.ends(job.id, after_ms=job.effective_from_ms, limit=_PAGE)
        )
        return tried_here(job, newest, now_ms)

    def _move(self, tried: Mapping[TaskId, frozenset[str]], world: World, now_ms: int) -> None:
        """Ask for the moves, as an admin would: what has changed by then is seen when they are made."""
        if not tried:
            return
        planning = Planning(world)
        wishes = []
        for task, workers in sorted(tried.items()):
            # One that has moved already, or that somebody wants elsewhere, is left alone.
            home = planning.homes.get(task)
            if home not in workers or world.requests.get(task, home) != home:
                continue
            target = planning.elsewhere(task, workers)
            if target is not None:
                wishes.append(MoveRequest(task, target, now_ms))
                facts = {"event": "retry.elsewhere", "task": str(task), "worker": target}
                log.info("a task moves, as its next attempt is to run elsewhere", extra=facts)
        if wishes:
            self._leading.check()
            self._leading.mysql.call(lambda: self._leading.store.move_requests.add(wishes))

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
