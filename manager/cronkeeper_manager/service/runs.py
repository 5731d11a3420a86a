"""Runs: on demand, their history, their output, their end on request."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence

from cronkeeper.domain.ids import RunKey, TaskId, node_shard
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.run import ACTIVE, Run, RunState, Trigger
from cronkeeper.domain.schedule import Kind
from cronkeeper.errors import ConflictError, FieldError, NotFoundError, ValidationFailedError
from cronkeeper.ports import RequestKey, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.trail import Entry
from cronkeeper.wire.znodes import QueuedRun
from cronkeeper_manager.service.news import News
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller

log = logging.getLogger(__name__)

POLL_S = 0.5
CHUNK = 256 * 1024
_TRIES = 20


class Runs:
    """What people and programs may do with runs."""

    def __init__(self, store: Store, news: News, clock: Clock) -> None:
        self._store = store
        self._news = news
        self._clock = clock

    def run_now(
        self, job_id: int, caller: Caller, *, shard: int | None = None, request: RequestKey | None = None
    ) -> list[Run]:
        """Ask for a run of each shard (or of one) and return the pending rows. A paused job may be run, too.

        Of `@reboot` each node that has it runs it.

        Raises NotFoundError, ConflictError (a finished job), ValidationFailedError (no such shard) or StaleWriteError
        (another server has taken the request over).
        """
        job = self._store.jobs.get(job_id)
        if job.state is JobState.FINISHED:
            raise ConflictError(f"job {job_id} is finished; resume it before you run it")
        tasks = self._tasks_of_nodes(job) if job.spec.at_reboot else job.tasks()
        if shard is not None and TaskId(job.id, shard) not in tasks:
            raise ValidationFailedError(
                [FieldError("shard", f"the job has no shard {shard}", f"write 0 to {job.spec.shards - 1}")]
            )
        found = self._request(job, [task for task in tasks if shard in (None, task.shard)], caller, request)
        self._news.enqueue([QueuedRun(run.key, caller.name) for run in found])
        log.info("a run was asked for", extra={"event": "run.requested", "job": job.id, "by": caller.name})
        return found

    def history(self, job_id: int, *, limit: int, before: RunKey | None = None) -> list[Run]:
        """Return the job's runs, newest first. NotFoundError for a job that does not exist."""
        found = self._store.runs.history(job_id, limit=limit, before=before)
        if not found:
            self._store.jobs.get(job_id)
        return found

    def get(self, key: RunKey) -> Run:
        """Return one run. Raises NotFoundError."""
        return self._store.runs.get(key)

    def cancel(self, key: RunKey, caller: Caller) -> Run:
        """Ask for the run's end. A pending run is over at once; others end when their worker has ended the process.

        Raises NotFoundError or ConflictError (it has ended).
        """
        at_ms, namespace = self._clock.now_ms(), self._namespace(key)
        told = note(caller, "run.cancel_requested", "run", key, at_ms=at_ms, namespace=namespace)
        run = self._store.runs.request_cancel(key, trail=[told])
        log.info("a run's end was asked for", extra={"event": "run.cancel_requested", "run": run.id, "by": caller.name})
        return run

    def output(self, key: RunKey, *, offset: int = 0, limit: int | None = None) -> Iterator[bytes]:
        """Yield the output there is, from a byte offset on. Check with `get` first that the run exists."""
        whole = self._small_output(key)
        if whole is not None:
            yield whole[offset:] if limit is None else whole[offset : offset + limit]
            return
        left = limit
        while left is None or left > 0:
            data = self._store.runs.read_output(key, offset=offset, limit=CHUNK if left is None else min(CHUNK, left))
            if not data:
                return
            yield data if left is None else data[:left]
            offset += len(data)
            left = None if left is None else left - len(data)

    def follow(self, key: RunKey, *, offset: int, stop: threading.Event, limit_s: float) -> Iterator[bytes]:
        """Yield output as it comes until the run has ended, `stop` is set or `limit_s` is over.

        Empty bytes come where there was nothing new: a chance to notice that nobody listens any more.
        """
        deadline = self._clock.boot_s() + limit_s
        while True:
            # Looked at first: what was written before the end was recorded is then read in the same turn.
            ended = is_over(self._state(key))
            for data in self.output(key, offset=offset):
                offset += len(data)
                yield data
            if ended or self._clock.boot_s() >= deadline or self._clock.wait(stop, POLL_S):
                return
            yield b""

    def _small_output(self, key: RunKey) -> bytes | None:
        """Return the output of an ended run that is all in its row, as short output is; None: it is kept in chunks."""
        try:
            run = self._store.runs.get(key)
        except NotFoundError:
            return None
        tail = run.output_tail.encode()
        return tail if is_over(run.state) and len(tail) == run.output_bytes else None

    def _state(self, key: RunKey) -> RunState | None:
        try:
            return self._store.runs.get(key).state
        except NotFoundError:  # purged meanwhile: there is nothing to wait for
            return None

    def _tasks_of_nodes(self, job: Job) -> list[TaskId]:
        """Return the tasks that nodes have of `@reboot`. Raises ConflictError when no node has one."""
        nodes = self._store.assignments.workers_of([job.id]).get(job.id, [])
        if not nodes:
            raise ConflictError(f"no node has job {job.id} now; run it once one that fits is there")
        return [TaskId(job.id, node_shard(node)) for node in nodes]

    def _request(self, job: Job, tasks: Sequence[TaskId], caller: Caller, request: RequestKey | None) -> list[Run]:
        """Insert pending rows, all or none, at the first millisecond from now on that is free for all of them."""
        fire_ms, nonce = self._clock.now_ms(), secrets.token_hex(16)
        for _ in range(_TRIES):
            fire_ms = _beside_the_schedule(job, fire_ms)
            runs = [
                Run(RunKey(task, fire_ms, 1), Trigger.MANUAL, RunState.PENDING, nonce=nonce, generation=job.generation)
                for task in tasks
            ]
            try:
                trail = [self._told(job, run, caller) for run in runs]
                self._store.runs.request(*runs, trail=trail, request=request)
            except ConflictError:
                fire_ms += 1
            else:
                return runs
        raise ConflictError(f"job {job.id} is being run too often at this moment; try again")

    def _told(self, job: Job, run: Run, caller: Caller) -> Entry:
        at_ms = self._clock.now_ms()
        return note(caller, "run.requested", "run", run.id, at_ms=at_ms, namespace=job.spec.namespace)

    def _namespace(self, key: RunKey) -> str:
        try:
            return self._store.jobs.get(key.task.job_id).spec.namespace
        except NotFoundError:  # its runs may outlive it by a moment
            return ""


def is_over(state: RunState | None) -> bool:
    """Say whether no more output can be expected."""
    return state is None or (state not in ACTIVE and state is not RunState.PENDING)


def _beside_the_schedule(job: Job, fire_ms: int) -> int:
    """Return an instant that no schedule can name, lest a run on demand take the place of a scheduled fire.

    Expressions and `@every` fire on whole seconds; `@at` may name any millisecond.
    """
    named = {part.at_ms for part in job.spec.parsed_schedule().single if part.kind is Kind.AT}
    while fire_ms in named or fire_ms % 1000 == 0:
        fire_ms += 1
    return fire_ms
