"""Failures in a row: whether a job has failed so often, one fire time after the other, that it is to be paused. PURE.

A fire time has failed once the last attempt of any of its shards has, or is lost and will not be run again. It has
succeeded once every shard that ran has. Everything else neither counts nor ends the row: skipped and cancelled fires,
those that are still under way or will be tried again, and runs on demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from cronkeeper.domain.attempts import ELSEWHERE_WAIT_S, next_attempt, retry_due_ms
from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import Job, JobSpec
from cronkeeper.domain.run import UNSUCCESSFUL, Run, RunState, Trigger

#: A move takes some seconds: one that is asked for later than this after the back-off comes too late.
_MOVE_WITHIN_MS = ELSEWHERE_WAIT_S * 500


@dataclass(frozen=True, slots=True)
class Streak:
    """How many fire times in a row have failed, up to what was asked for, and the newest run that did."""

    count: int
    last: Run | None = None

    @property
    def words(self) -> str:
        """What to tell people when the job is paused for it."""
        assert self.last is not None
        times = "1 failure" if self.count == 1 else f"{self.count} failures in a row"
        at_ms = self.last.key.fire_ms if self.last.ended_ms is None else self.last.ended_ms
        return f"paused after {times}, last: {_how(self.last)} at {rfc3339(at_ms)}"


def failures_in_a_row(job: Job, runs: Iterable[Run], *, now_ms: int, enough: int) -> Streak:
    """Return the streak that the newest fire times of the job's present generation make, at most `enough` long.

    `runs` are those of its history, newest first; they are read only as far as needed.
    """
    count, last = 0, None
    for fire_ms, of_fire in groupby(runs, key=lambda run: run.key.fire_ms):
        if fire_ms <= job.effective_from_ms or count >= enough:
            break
        # Of a worker that had not heard of the last change yet: the change may have mended it.
        present = [run for run in of_fire if run.generation >= job.generation]
        shards = [_of_shard(some, job.spec, now_ms) for some in _by_shard(present)]
        failed = [run for failed, run in shards if failed]
        if failed:
            count, last = count + 1, last or max(failed, key=lambda run: run.ended_ms or run.key.fire_ms)
        elif any(failed is False for failed, _ in shards) and not any(_is_open(run, failed) for failed, run in shards):
            break
    return Streak(count, last)


def tried_here(job: Job, runs: Sequence[Run], now_ms: int) -> dict[TaskId, frozenset[str]]:
    """Return the tasks whose next attempt is due and not begun, each with the workers that have tried that fire.

    The last of them is the one that would try again: it waits for ELSEWHERE_WAIT_S, and after that it is too late.
    """
    fires: dict[tuple[TaskId, int], list[Run]] = {}
    for run in runs:
        fires.setdefault((run.key.task, run.key.fire_ms), []).append(run)
    found: dict[TaskId, frozenset[str]] = {}
    for (task, _), attempts in sorted(fires.items()):
        newest = max(attempts, key=lambda run: run.key.attempt)
        due_ms = retry_due_ms(job.spec, newest)
        if due_ms is not None and newest.generation == job.generation and now_ms < due_ms + _MOVE_WITHIN_MS:
            found[task] = frozenset(run.worker for run in attempts)
    return found


def _by_shard(runs: Iterable[Run]) -> list[list[Run]]:
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(run.key.task.shard, []).append(run)
    return list(found.values())


def _of_shard(attempts: Sequence[Run], spec: JobSpec, now_ms: int) -> tuple[bool | None, Run]:
    """Return whether a shard's fire has failed (None: it does not count, or not yet), and its newest attempt."""
    newest = max(attempts, key=lambda run: (run.state is not RunState.SKIPPED, run.key.attempt))
    if any(run.trigger is Trigger.MANUAL for run in attempts):
        return None, newest
    if newest.state is RunState.SUCCEEDED:
        return False, newest
    if newest.state in UNSUCCESSFUL and not _is_tried_again(newest, spec, now_ms):
        return True, newest
    return None, newest


def _is_tried_again(run: Run, spec: JobSpec, now_ms: int) -> bool:
    """Say whether another attempt of this run's fire is still to be expected."""
    wanted = next_attempt(spec, run)
    if wanted is None:
        return False
    # A lost run is run again within its grace; a retry may wait as long for its turn.
    since_ms = run.key.fire_ms if run.state is RunState.LOST else (run.ended_ms or run.key.fire_ms) + wanted[0] * 1000
    return now_ms - since_ms <= spec.grace_s * 1000


def _is_open(run: Run, failed: bool | None) -> bool:
    return (
        failed is None
        and run.trigger is not Trigger.MANUAL
        and run.state
        not in (
            RunState.SKIPPED,
            RunState.CANCELLED,
        )
    )


def _how(run: Run) -> str:
    if run.state is RunState.LOST:
        return "lost" if run.reason is None else f"lost ({run.reason})"
    if run.state is RunState.TIMED_OUT:
        return "timed out"
    if run.signal is not None:
        return f"signal {run.signal}"
    if run.exit_code is not None:
        return f"exit {run.exit_code}"
    return "failed" if run.reason is None else run.reason.value
