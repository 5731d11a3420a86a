"""Making up for the past: runs of fires that have none. What is to be done is PURE; the use case is at the end.

The fires are those of the job's present schedule, its window and calendar included, also where it was another one then,
or there was no job. Each gets a pending run on demand under its true fire time, so the ledger's key keeps it from
running twice, whoever asks, and however often. The worker that has the task claims such a run as any other on demand;
it is shown only as many at a time as may go at once (`domain.run.may_go`), oldest first.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import Concurrency, Job, JobSpec, JobState
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import ConflictError, FieldError, ValidationFailedError
from cronkeeper.ports import Fate, Fire, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.trail import Entry
from cronkeeper.wire.znodes import QueuedRun
from cronkeeper_manager.auditor import settle_delay_ms
from cronkeeper_manager.service.news import News
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller

log = logging.getLogger(__name__)

#: Of one call.
MAX_RUNS = 10_000
MAX_PARALLEL = 100
#: So many fires are counted, for the refusal of a range with too many.
_COUNTED = 100_000
_SLICE = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make up for: the fires in [from, to), epoch ms, UTC."""

    from_ms: int
    to_ms: int
    #: How many runs of each shard may go at once. More than one only where the job's concurrency is `allow`.
    max_parallel: int = 1
    #: Run what was skipped, too: as the next attempt of the same fire time.
    rerun_skipped: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Backfill:
    """What was (or would be) done: the runs that are new, oldest first, and what was left alone."""

    created: tuple[Run, ...]
    #: Fires that have a row already; each with its newest attempt.
    existing: tuple[Fate, ...] = ()
    #: Fire times that the schedule itself may still start, as their grace is not over.
    unsettled: tuple[int, ...] = ()
    dry_run: bool = False


def faults_of(wish: Wish, spec: JobSpec) -> list[FieldError]:
    """Return what is wrong with the wish, but for the number of runs."""
    found = []
    if spec.at_reboot:
        found.append(FieldError("schedule", "starts of nodes cannot be caught up with", "use run: POST /jobs/{id}/run"))
    if wish.to_ms <= wish.from_ms:
        found.append(FieldError("to", "is not after from", "the range is from (included) to (excluded)"))
    if wish.max_parallel > 1 and spec.concurrency is not Concurrency.ALLOW:
        found.append(
            FieldError(
                "max_parallel",
                f"the job's concurrency is {spec.concurrency}: its runs go one at a time",
                "leave it out, or set the job's concurrency to allow",
            )
        )
    if spec.concurrency is Concurrency.REPLACE:
        found.append(
            FieldError(
                "concurrency",
                "a job that replaces its runs would end its newest run for an old one",
                "set the job's concurrency to forbid, queue or allow first",
            )
        )
    return found


def fires_of(wish: Wish, spec: JobSpec) -> list[int]:
    """Return the fire times of the range. Raises ValidationFailedError where they make too many runs."""
    low, high = spec.due_between(wish.from_ms - 1, wish.to_ms - 1)
    times = spec.parsed_schedule().fire_times(low, high, limit=_COUNTED) if high > low else []
    count = len(times) * spec.shards
    if count > MAX_RUNS:
        more = "more than " if len(times) > _COUNTED else ""
        raise ValidationFailedError(
            [
                FieldError(
                    "to", f"the range has {more}{count} runs, at most {MAX_RUNS} are made", "ask for less at a time"
                )
            ]
        )
    return times


def plan_backfill(
    job: Job, wish: Wish, times: Sequence[int], fates: Mapping[Fire, Fate], settled_ms: int, nonce: str
) -> Backfill:
    """Return what is to be created and what is left alone. Fires after `settled_ms` are the schedule's own still."""
    settled = [fire_ms for fire_ms in times if fire_ms <= settled_ms]
    created: list[Run] = []
    existing: list[Fate] = []
    for fire_ms in settled:
        for task in job.tasks():
            fate = fates.get(Fire(task, fire_ms))
            again = fate is not None and wish.rerun_skipped and fate.state is RunState.SKIPPED
            if fate is not None and not again:
                existing.append(fate)
                continue
            key = RunKey(task, fire_ms, 1 if fate is None else fate.attempt + 1)
            pending = Run(key, Trigger.MANUAL, RunState.PENDING, nonce=nonce, generation=job.generation)
            created.append(pending.evolve(fence=wish.max_parallel))
    unsettled = tuple(fire_ms for fire_ms in times if fire_ms > settled_ms)
    return Backfill(tuple(created), tuple(existing), unsettled, wish.dry_run)


class Backfills:
    """The use case."""

    def __init__(self, store: Store, news: News, clock: Clock) -> None:
        self._store = store
        self._news = news
        self._clock = clock

    def backfill(self, job_id: int, wish: Wish, caller: Caller) -> Backfill:
        """Create a pending run for each fire of the range that has no row; return them. Safe to repeat.

        Raises NotFoundError, ConflictError (a finished job) or ValidationFailedError (nothing was created). An
        UnavailableError may leave some of the runs created: call again.
        """
        job = self._store.jobs.get(job_id)
        if job.state is JobState.FINISHED:
            raise ConflictError(f"job {job_id} is finished; resume it before you make up for its past")
        if faults := faults_of(wish, job.spec):
            raise ValidationFailedError(faults)
        times = fires_of(wish, job.spec)
        settled_ms = self._clock.now_ms() - settle_delay_ms(job.spec)
        fires = [Fire(task, fire_ms) for fire_ms in times for task in job.tasks()]
        plan = plan_backfill(job, wish, times, self._fates(fires), settled_ms, secrets.token_hex(16))
        if wish.dry_run:
            return plan
        done = self._create(plan, self._told(job, wish, plan, caller))
        first = {run.key.task: run for run in reversed(done.created)}
        self._news.enqueue([QueuedRun(run.key, caller.name) for run in first.values()])
        log.info(
            "runs of the past were asked for",
            extra={
                "event": "backfill.requested",
                "job": job_id,
                "runs": len(done.created),
                "from": rfc3339(wish.from_ms),
                "to": rfc3339(wish.to_ms),
                "by": caller.name,
            },
        )
        return done

    def _create(self, plan: Backfill, told: Entry) -> Backfill:
        """Insert the runs, so that none comes to be twice; what somebody else was first with exists."""
        mine = self._store.runs.request_many(plan.created, trail=[told]) if plan.created else {}
        beaten = [Fire(run.key.task, run.key.fire_ms) for run in plan.created if not mine[run.key]]
        existing = sorted([*plan.existing, *self._fates(beaten).values()], key=lambda fate: _order(fate.fire))
        return Backfill(tuple(run for run in plan.created if mine[run.key]), tuple(existing), plan.unsettled)

    def _told(self, job: Job, wish: Wish, plan: Backfill, caller: Caller) -> Entry:
        what = {"from": rfc3339(wish.from_ms), "to": rfc3339(wish.to_ms), "runs": len(plan.created)}
        at_ms = self._clock.now_ms()
        return note(caller, "backfill.requested", "job", job.id, at_ms=at_ms, namespace=job.spec.namespace, new=what)

    def _fates(self, fires: Collection[Fire]) -> dict[Fire, Fate]:
        wanted = list(fires)
        found: dict[Fire, Fate] = {}
        for start in range(0, len(wanted), _SLICE):
            found |= self._store.audit.fates(wanted[start : start + _SLICE])
        return found


def _order(fire: Fire) -> tuple[int, int]:
    return fire.fire_ms, fire.task.shard
