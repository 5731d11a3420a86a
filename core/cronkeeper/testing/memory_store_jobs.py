"""Jobs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cronkeeper.domain.job import Job, JobState, status_of
from cronkeeper.domain.run import UNSUCCESSFUL
from cronkeeper.errors import ConflictError, NotFoundError, StaleCopyError, StaleWriteError, WireFormatError
from cronkeeper.ports import JobQuery, NewJob, PlanRow, Weighing
from cronkeeper.testing.memory_store_namespaces import check_quotas
from cronkeeper.testing.memory_store_state import Memory, uses_of
from cronkeeper.wire.sealed import keys_of
from cronkeeper.wire.trail import Entry


class MemoryJobStore:
    """See cronkeeper.ports.JobStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def create(self, new: NewJob, *, weighing: Weighing | None = None) -> Job:
        with self._memory.call("jobs.create"):
            return self._save([new], [], [], weighing)[0]

    def save_many(
        self,
        new: Sequence[NewJob],
        changed: Sequence[tuple[Job, int]],
        removed: Sequence[int],
        *,
        trail: Sequence[Entry] = (),
        weighing: Weighing | None = None,
    ) -> list[Job]:
        with self._memory.call("jobs.save_many"):
            inserted = self._save(new, changed, removed, weighing)
            self._memory.note(trail)
            return inserted

    def get(self, job_id: int) -> Job:
        with self._memory.call("jobs.get"):
            return self._read(self._stored(job_id))

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, Job]:
        with self._memory.call("jobs.find"):
            wanted = set(names)
            found = [job for job in self._memory.jobs.values() if job.spec.namespace == namespace]
            return {job.spec.name: self._read(job) for job in found if job.spec.name in wanted and job.spec.name}

    def page(self, query: JobQuery) -> list[Job]:
        with self._memory.call("jobs.page"):
            jobs = (self._memory.jobs[job_id] for job_id in sorted(self._memory.jobs) if job_id > query.after)
            readable = (self._read(job) for job in jobs if job.id not in self._memory.spoilt)
            return [job for job in readable if _matches(job, query)][: query.limit]

    def replace(
        self, job: Job, *, expected_generation: int, trail: Sequence[Entry] = (), weighing: Weighing | None = None
    ) -> None:
        with self._memory.call("jobs.replace"):
            self._save([], [(job, expected_generation)], [], weighing)
            self._memory.note(trail)

    def mark_finished(self, job_id: int, *, generation: int) -> bool:
        with self._memory.call("jobs.mark_finished"):
            job = self._memory.jobs.get(job_id)
            if job is None or job.generation != generation or job.state is JobState.PAUSED:
                return False
            self._memory.jobs[job_id] = self._finished(job)
            self._memory.remember(self._memory.jobs[job_id])
            return True

    def delete(self, job_id: int, *, trail: Sequence[Entry] = ()) -> bool:
        with self._memory.call("jobs.delete"):
            if job_id in self._memory.jobs:
                self._memory.note(trail)
            for key in [key for key in self._memory.runs if key.task.job_id == job_id]:
                del self._memory.runs[key]
                self._memory.output.pop(key, None)
            self._memory.heads.pop(job_id, None)
            self._memory.failing.pop(job_id, None)
            versions, missed = self._memory.versions, self._memory.missed
            self._memory.versions = {key: item for key, item in versions.items() if item.job_id != job_id}
            self._memory.missed = {fire: item for fire, item in missed.items() if fire.task.job_id != job_id}
            return self._memory.jobs.pop(job_id, None) is not None

    def plan_rows(self, *, changed_since_ms: int = 0) -> list[PlanRow]:
        with self._memory.call("jobs.plan_rows"):
            jobs = sorted(self._memory.jobs.values(), key=lambda job: job.id)
            return [_plan_row(job) for job in jobs if job.updated_ms >= changed_since_ms]

    def job_ids(self) -> set[int]:
        with self._memory.call("jobs.job_ids"):
            return set(self._memory.jobs)

    def namespaces_of(self, job_ids: Sequence[int]) -> dict[int, str]:
        with self._memory.call("jobs.namespaces_of"):
            jobs = self._memory.jobs
            return {job_id: jobs[job_id].spec.namespace for job_id in job_ids if job_id in jobs}

    def envelopes(self, job_ids: Sequence[int]) -> dict[int, bytes]:
        with self._memory.call("jobs.envelopes"):
            jobs = self._memory.jobs
            return {job_id: jobs[job_id].envelope for job_id in job_ids if job_id in jobs}

    def reseal(self, envelopes: Mapping[int, tuple[bytes, bytes]], *, trail: Sequence[Entry] = ()) -> int:
        with self._memory.call("jobs.reseal"):
            jobs, changed = self._memory.jobs, 0
            for job_id, (before, after) in envelopes.items():
                if job_id in jobs and jobs[job_id].envelope == before:
                    jobs[job_id] = replace(jobs[job_id], envelope=after)
                    changed += 1
            if changed:
                self._memory.note(trail)
            return changed

    def _save(
        self,
        new: Sequence[NewJob],
        changed: Sequence[tuple[Job, int]],
        removed: Sequence[int],
        weighing: Weighing | None = None,
    ) -> list[Job]:
        """Make the new table beside the old one, so that a refusal changes nothing."""
        jobs = dict(self._memory.jobs)
        for job_id in removed:
            if job_id in jobs:
                jobs[job_id] = self._finished(jobs[job_id])
        for job, expected in changed:
            stored = self._stored(job.id)
            if stored.generation != expected:
                raise StaleWriteError(f"job {job.id} is at generation {stored.generation}, not {expected} any more")
            jobs[job.id] = replace(job, last_run=None, withdrawn=False)
        inserted = []
        for job_id, item in enumerate(new, start=self._memory.last_job_id + 1):
            jobs[job_id] = replace(item.build(job_id), last_run=None)
            inserted.append(jobs[job_id])
        names = [(job.spec.namespace, job.spec.name) for job in jobs.values() if job.spec.name is not None]
        if len(names) != len(set(names)):
            raise ConflictError("the namespace has a job of that name already")
        self._check_calendars([*(job for job, _ in changed), *inserted])
        self._check_secrets([*(job for job, _ in changed), *inserted])
        if weighing is not None:
            check_quotas(self._memory, jobs, new, [job for job, _ in changed], weighing)
        self._memory.note_saved([(item.request, [str(job.id)]) for item, job in zip(new, inserted, strict=True)])
        self._memory.jobs = jobs
        for job_id in (*removed, *(job.id for job, _ in changed), *(job.id for job in inserted)):
            if job_id in jobs:
                self._memory.remember(jobs[job_id])
        self._memory.last_job_id += len(new)
        self._memory.note(item.note(job) for item, job in zip(new, inserted, strict=True) if item.note is not None)
        return inserted

    def _check_secrets(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            for name in job.spec.secrets.names:
                stored = self._memory.secrets.get((job.spec.namespace, name))
                if job.spec.secrets.versions.get(name) != (None if stored is None else stored.sealed.version):
                    raise StaleCopyError(f"secret {name} of namespace {job.spec.namespace} has changed")

    def _check_calendars(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            for name, digest in uses_of(job).items():
                stored = self._memory.calendars.get((job.spec.namespace, name))
                if job.state is not JobState.FINISHED and (stored is None or stored.dates.digest != digest):
                    raise StaleCopyError(f"the calendar {name} of {job.spec.namespace} has changed, or is gone")

    def _finished(self, job: Job) -> Job:
        if job.state is JobState.FINISHED:
            return job
        updated_ms = max(job.updated_ms, self._memory.clock.now_ms())
        return replace(job, state=JobState.FINISHED, updated_ms=updated_ms)

    def _stored(self, job_id: int) -> Job:
        job = self._memory.jobs.get(job_id)
        if job is None:
            raise NotFoundError(f"there is no job {job_id}")
        return job

    def _read(self, job: Job) -> Job:
        if job.id in self._memory.spoilt:
            raise WireFormatError(f"the row of job {job.id} cannot be read")
        return self._memory.with_last_run(job)


def _matches(job: Job, query: JobQuery) -> bool:
    spec = job.spec
    text = f"{spec.name or ''}\n{spec.executable}\n{spec.description}".casefold()
    return (
        query.namespace in (None, spec.namespace)
        and (query.within is None or spec.namespace in query.within)
        and query.q.casefold() in text
        and (query.calendar is None or query.calendar in uses_of(job))
        and not (query.calendar is not None and query.outdated and uses_of(job)[query.calendar] == query.outdated)
        and all(spec.labels.get(key) == value for key, value in query.labels)
        and (query.secret is None or query.secret in spec.secrets.names)
        and query.status in (None, status_of(job.state, job.last_run, unsuccessful=UNSUCCESSFUL))
    )


def _plan_row(job: Job) -> PlanRow:
    spec = job.spec
    return PlanRow(
        job.id,
        job.generation,
        job.state,
        spec.shards,
        spec.selector,
        spec.schedule,
        spec.timezone,
        job.effective_from_ms,
        job.updated_ms,
        job.withdrawn,
        keys_of(spec.secrets),
    )
