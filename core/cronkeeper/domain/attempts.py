"""Attempts: what follows on the end of a run."""

from __future__ import annotations

from cronkeeper.domain.job import JobSpec
from cronkeeper.domain.retry import next_attempt_after_s
from cronkeeper.domain.run import Run, RunState, Trigger

#: A run whose end nobody saw is run again (if the job wants that), at most so many times beyond its retries.
MAX_RERUNS = 3


def next_attempt(spec: JobSpec, run: Run) -> tuple[int, Trigger] | None:
    """Return after how many seconds, and as what, the fire of an ended run is tried again; None: it is not."""
    wait_s, trigger = None, Trigger.RETRY
    if run.state in (RunState.FAILED, RunState.TIMED_OUT):
        wait_s = next_attempt_after_s(spec.retry, run.key.attempt)
    elif run.state is RunState.LOST and spec.reruns_lost:
        trigger = Trigger.CATCH_UP
        wait_s = 1 if run.key.attempt <= spec.retry.limit + MAX_RERUNS else None
    return None if wait_s is None else (wait_s, trigger)
