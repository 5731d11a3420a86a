"""What is saved of a new job: signed, with its entry for the trail, once it has an id."""

from __future__ import annotations

from collections.abc import Callable

from cronkeeper.domain.job import Job, JobSpec, JobState
from cronkeeper.ports import NewJob, RequestKey
from cronkeeper.wire.spec_text import spec_text
from cronkeeper.wire.task import Signer, Task
from cronkeeper.wire.trail import Entry
from cronkeeper_manager.service.holiday_dates import with_id
from cronkeeper_manager.service.trail import creation
from cronkeeper_manager.service.values import Caller


def new_job(signer: Signer, spec: JobSpec, caller: Caller, *, now_ms: int, request: RequestKey | None = None) -> NewJob:
    """Return one of several that are saved together, each for a caller who waits.

    Whatever needs no id is made here: what is done in the transaction is done while all of them wait.
    """
    spec_text(spec)
    told = creation(caller, spec, at_ms=now_ms)
    return NewJob(spec.namespace, spec.name, _build(signer, spec, now_ms), request=request, note=told, by=caller.id)


def one_of_many(signer: Signer, spec: JobSpec, caller: Caller, *, now_ms: int) -> NewJob:
    """Return one of many that one caller waits for: all is made while the database writes those before it."""

    def told(job: Job) -> Entry:
        return creation(caller, spec, at_ms=now_ms)(job)

    return NewJob(spec.namespace, spec.name, _build(signer, spec, now_ms), note=told, by=caller.id)


def _build(signer: Signer, spec: JobSpec, now_ms: int) -> Callable[[int], Job]:
    def build(job_id: int) -> Job:
        mine = with_id(spec, job_id)
        envelope = signer.seal(Task(job_id, 1, JobState.ACTIVE, now_ms, mine))
        return Job(job_id, mine, 1, JobState.ACTIVE, now_ms, now_ms, now_ms, envelope)

    return build
