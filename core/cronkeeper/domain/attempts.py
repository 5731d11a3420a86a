"""Attempts: what follows on the end of a run. PURE."""

from __future__ import annotations

from cronkeeper.domain.job import JobSpec
from cronkeeper.domain.retry import longest_waits_s, next_attempt_after_s
from cronkeeper.domain.run import Run, RunState, Trigger

#: A run whose end nobody saw is run again (if the job wants that), at most so many times beyond its retries.
MAX_RERUNS = 3
#: Older fires are left alone by whoever takes a task over.
MAX_WINDOW_S = 86_400
#: A retry that is to run elsewhere is begun by the worker that has the task when nobody has taken it for so long.
ELSEWHERE_WAIT_S = 10


def next_attempt(spec: JobSpec, run: Run) -> tuple[int, Trigger] | None:
    """Return after how many seconds, and as what, the fire of an ended run is tried again; None: it is not."""
    wait_s, trigger = None, Trigger.RETRY
    if run.state in (RunState.FAILED, RunState.TIMED_OUT):
        wait_s = next_attempt_after_s(spec.retry, run.key)
    elif run.state is RunState.LOST and spec.reruns_lost:
        trigger = Trigger.CATCH_UP
        wait_s = 1 if run.key.attempt <= spec.retry.limit + MAX_RERUNS else None
    return None if wait_s is None else (wait_s, trigger)


def retry_due_ms(spec: JobSpec, run: Run) -> int | None:
    """Return the instant at which the retry of a failed run's fire is due; None: there is none."""
    wanted = next_attempt(spec, run)
    if wanted is None or run.state is RunState.LOST:
        return None
    return (run.key.fire_ms if run.ended_ms is None else run.ended_ms) + wanted[0] * 1000


def retry_window_s(spec: JobSpec) -> int:
    """Return how old a fire may be (apart from how long its runs took) whose retry another worker takes over."""
    return min(spec.grace_s + spec.jitter_s + longest_waits_s(spec.retry), MAX_WINDOW_S)
