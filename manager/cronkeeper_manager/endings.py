"""When a job is over: it has no fire left, and whatever was due has come to its end. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import Job, JobSpec, may_fire
from cronkeeper.domain.retry import next_attempt_after_s
from cronkeeper.domain.run import ACTIVE, TERMINAL, Run, RunState


def last_fire_within_grace(job: Job, now_ms: int) -> int | None:
    """Return the job's newest fire time that may still be started (or was, within its grace), or None."""
    patience_ms = (job.spec.grace_s + job.spec.jitter_s) * 1000
    low, high = job.spec.due_between(max(now_ms - patience_ms, job.effective_from_ms), now_ms)
    if high <= low:
        return None
    newest, _ = job.spec.parsed_schedule().latest_fires(low, high, keep=1)
    return newest[0] if newest else None


def has_no_fire_left(job: Job, now_ms: int) -> bool:
    """Say whether nothing will ever be due again. Raises ValueError for a schedule that cannot be read."""
    return not may_fire(job.spec, now_ms)


def is_over(job: Job, last_due_ms: int | None, runs: Sequence[Run], open_runs: Sequence[Run]) -> bool:
    """Say whether a job without a fire left has come to its end.

    `last_due_ms` is `last_fire_within_grace`, `runs` are all runs of that fire, `open_runs` the job's active and
    pending ones of any fire.
    """
    if any(run.state in ACTIVE or run.state is RunState.PENDING for run in open_runs):
        return False
    if last_due_ms is None:
        return True
    newest: dict[TaskId, Run] = {}
    for run in runs:
        if run.key.task not in newest or newest[run.key.task].key.attempt < run.key.attempt:
            newest[run.key.task] = run
    shards = range(job.spec.shards)
    return all(_has_ended(newest.get(TaskId(job.id, shard)), job.spec) for shard in shards)


def _has_ended(run: Run | None, spec: JobSpec) -> bool:
    """Say whether this newest attempt is the last one. A lost run may be run again within its grace."""
    if run is None or run.state not in TERMINAL:
        return False
    if run.state in (RunState.FAILED, RunState.TIMED_OUT):
        return next_attempt_after_s(spec.retry, run.key) is None
    return True


def is_queue_entry_over(run: Run | None, requested_ms: int, now_ms: int) -> bool:
    """Say whether a queued run is to be consumed: it has ended, was given up, or is gone from the ledger.

    One that is asked for in this very minute may be missing from the ledger only for a moment.
    """
    if run is None:
        return now_ms - requested_ms > 60_000
    return run.state in TERMINAL or run.state is RunState.LOST
