"""Jobs: create, read, change, end. Every write is decided by one row in MySQL and told to ZooKeeper afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from cronkeeper.domain.job import Job, JobSpec, JobState, may_fire
from cronkeeper.errors import (
    ConflictError,
    CronkeeperError,
    FieldError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    StaleCopyError,
    StaleWriteError,
    ValidationFailedError,
)
from cronkeeper.ports import JobQuery, NewJob, RequestKey, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.task import Signer, Task
from cronkeeper_manager.service import rules
from cronkeeper_manager.service.apply import MAX_PAGE, Applied, Decided, check_names, decide, prunable, with_next
from cronkeeper_manager.service.artifacts import Artifacts, Pinned
from cronkeeper_manager.service.gather import Gather
from cronkeeper_manager.service.holiday_dates import settle
from cronkeeper_manager.service.named_copies import NamedCopies
from cronkeeper_manager.service.namespaces import ROOT, Namespaces, check_interval, root_fault
from cronkeeper_manager.service.new_jobs import new_job, one_of_many
from cronkeeper_manager.service.news import News
from cronkeeper_manager.service.preview import Forecast, forecast
from cronkeeper_manager.service.trail import job_note, saved_note
from cronkeeper_manager.service.values import Caller, Draft

log = logging.getLogger(__name__)

_TRIES = 5
Expected = Collection[int] | None


class NameTakenError(ConflictError):
    """Another job of the namespace has that name."""


class StaleJobError(StaleWriteError):
    """The job has changed since the caller read it; `generation` is the present one."""

    def __init__(self, job_id: int, generation: int) -> None:
        super().__init__(f"job {job_id} has changed: its generation is {generation} now; read it again")
        self.generation = generation


class Jobs:
    """The use cases of jobs. Errors common to all: UnavailableError (nothing was saved; try again later)."""

    def __init__(
        self, store: Store, artifacts: Artifacts, signer: Signer, news: News, clock: Clock, namespaces: Namespaces
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._signer = signer
        self._news = news
        self._clock = clock
        self._namespaces = namespaces
        self._copies = NamedCopies(store)
        self._creations: Gather[NewJob, Job] = Gather(self._insert, self._tell_new)

    def create(self, draft: Draft, caller: Caller, *, request: RequestKey | None = None) -> Job:
        """Save a new job. Raises ValidationFailedError, PermissionDeniedError, TooLargeError, NameTakenError,
        QuotaExceededError or StaleWriteError (another server has taken the request over).

        The job is saved once its row is committed; whether ZooKeeper could be told makes no difference to the answer.
        """
        job = self._created(draft, caller, request)
        log.info("a job was created", extra={"event": "job.created", "job": job.id, "by": caller.name})
        return job

    def get(self, job_id: int) -> Job:
        """Return the job. Raises NotFoundError."""
        return self._store.jobs.get(job_id)

    def page(self, query: JobQuery) -> list[Job]:
        """Return a page of jobs, oldest first."""
        return self._store.jobs.page(query)

    def workers_of(self, jobs: Sequence[Job]) -> dict[int, list[str]]:
        """Return the workers that have the jobs' tasks."""
        return self._store.assignments.workers_of([job.id for job in jobs]) if jobs else {}

    def change(self, job_id: int, make: Callable[[JobSpec], Draft], caller: Caller, expected: Expected = None) -> Job:
        """Give the job the spec that `make` returns for its present one; it takes effect from now on, never backwards.

        `expected` are the generations that the caller may have seen; with None the newest is changed. Raises what
        `create` raises, and NotFoundError or StaleJobError. Nothing is saved when the spec stays the same.
        """

        def decide_one(old: Job) -> Job | None:
            pinned = self._checked(make(old.spec), caller, old)
            if pinned.spec == old.spec:
                return None
            self._namespaces.check_room(pinned.spec)
            self._artifacts.save(pinned)
            return self._next_generation(old, spec=pinned.spec)

        return self._update(job_id, decide_one, expected, caller, "job.changed")

    def renew(self, wanted: Sequence[tuple[Job, JobSpec]], caller: Caller) -> None:
        """Save each job with this spec, which differs in what was copied for it alone, in one transaction.

        Each is a new generation that takes effect from now on. Raises StaleWriteError, and then nothing is saved: a
        job has changed, or what it copies has.
        """
        changed = [(self._next_generation(old, spec=spec), old) for old, spec in wanted]
        self._store.jobs.save_many(
            [],
            [(new, old.generation) for new, old in changed],
            [],
            trail=[saved_note(caller, old, new, "job.renewed") for new, old in changed],
        )
        self._tell([new for new, _ in changed], {old.id: old for _, old in changed})
        for new, _ in changed:
            log.info(
                "a job was changed",
                extra={"event": "job.renewed", "job": new.id, "generation": new.generation, "by": caller.name},
            )

    def pause(self, job_id: int, caller: Caller, expected: Expected = None) -> Job:
        """Stop the job from firing. Runs in progress go on. ConflictError for a finished job; safe to repeat."""

        def decide_one(old: Job) -> Job | None:
            if old.state is JobState.FINISHED:
                raise ConflictError(f"job {job_id} is finished; there is nothing to pause")
            signed = old.state is JobState.PAUSED and not old.withdrawn
            return None if signed else self._next_generation(old, state=JobState.PAUSED)

        return self._update(job_id, decide_one, expected, caller, "job.paused")

    def sign_pause(self, job_id: int, caller: Caller) -> None:
        """Sign what a leader has paused, so that its tasks get workers again: before a run on demand. NotFoundError."""
        self._update(
            job_id, lambda old: self._next_generation(old) if old.withdrawn else None, None, caller, "job.paused"
        )

    def resume(self, job_id: int, caller: Caller, expected: Expected = None) -> Job:
        """Let a paused or finished job fire again, from now on. ConflictError when it has no fire time left."""

        def decide_one(old: Job) -> Job | None:
            if old.state is JobState.ACTIVE:
                return None
            if not may_fire(old.spec, self._clock.now_ms()):
                raise ConflictError(f"job {job_id} has no fire time left; change its schedule first")
            return self._next_generation(old, state=JobState.ACTIVE)

        return self._update(job_id, decide_one, expected, caller, "job.resumed")

    def finish(self, job_id: int, caller: Caller, expected: Expected = None) -> Job:
        """Take the job off the schedule at once; its history is kept. Safe to repeat."""

        def decide_one(old: Job) -> Job | None:
            return None if old.state is JobState.FINISHED else self._next_generation(old, state=JobState.FINISHED)

        return self._update(job_id, decide_one, expected, caller, "job.finished")

    def purge(self, job_id: int, caller: Caller, expected: Expected = None) -> None:
        """Remove the job, its runs and their output for good. NotFoundError; StaleJobError."""
        job = self._store.jobs.get(job_id)
        _compare(job, expected)
        told = job_note(caller, "job.purged", job, None, at_ms=self._clock.now_ms())
        if not self._store.jobs.delete(job_id, trail=[told]):
            raise NotFoundError(f"there is no job {job_id}")
        self._news.drop(job.tasks())
        log.info("a job was removed", extra={"event": "job.purged", "job": job_id, "by": caller.name})

    def next(self, job_id: int, *, after_ms: int | None, count: int) -> Forecast:
        """Return the job's next fire times after that instant (now, unless told). Raises NotFoundError."""
        job = self._store.jobs.get(job_id)
        after = self._clock.now_ms() if after_ms is None else after_ms
        return forecast(job.spec, after_ms=max(after, job.effective_from_ms), count=count, state=job.state)

    def preview(self, draft: Draft, caller: Caller, *, after_ms: int | None, count: int) -> Forecast:
        """Return what the draft would do, without saving anything. Raises as `create` does."""
        (draft,) = self._copies.fill([draft])
        self._check(draft, caller, None)
        now_ms = self._clock.now_ms()
        spec = settle(draft.spec, None, now_ms=now_ms, job_id=None)
        return forecast(spec, after_ms=now_ms if after_ms is None else after_ms, count=count)

    def apply(
        self, drafts: Sequence[Draft], caller: Caller, *, namespace: str, prune: str | None, dry_run: bool
    ) -> Applied:
        """Bring the namespace's jobs of these names to these specs, in one transaction; leave all others alone.

        With `prune`, an explicit selector over the labels of jobs, named jobs that match it and are not among the
        drafts are finished. With `dry_run` nothing is saved, and the changes show the next fire times before and
        after. Raises as `create` does, with fields named `jobs[3].schedule`.
        """
        check_names(drafts, namespace)
        if faults := rules.check_scope(namespace, caller.scope):
            raise ValidationFailedError(faults)
        for _ in range(_TRIES):
            decided = self._decide(self._copies.fill(drafts), caller, namespace, prune)
            if dry_run:
                return with_next(decided.applied, self._clock.now_ms())
            try:
                return self._save(decided, caller)
            except (ConflictError, StaleWriteError):
                continue
        raise ConflictError("the jobs are being changed by others at the same time; try again")

    # ------------------------------------------------------------------------------------------------- one job

    def _created(self, draft: Draft, caller: Caller, request: RequestKey | None) -> Job:
        """Insert the job; again from the start when a calendar that it names was changed meanwhile."""
        for _ in range(_TRIES):
            pinned = self._checked(draft, caller)
            self._namespaces.check_room(pinned.spec)
            self._artifacts.save(pinned)
            try:
                now_ms = self._clock.now_ms()
                new = new_job(self._signer, pinned.spec, caller, now_ms=now_ms, request=request)
                return self._creations.submit(new)
            except StaleCopyError:
                continue
            except ConflictError as exc:
                raise NameTakenError(str(exc)) from exc
        raise ConflictError("the calendars that the job names are being changed at the same time; try again")

    def _checked(self, draft: Draft, caller: Caller, old: Job | None = None) -> Pinned:
        (draft,) = self._copies.fill([draft])
        self._check(draft, caller, None if old is None else old.spec)
        return self._pin(draft, old)

    def _pin(self, draft: Draft, old: Job | None) -> Pinned:
        """Settle all that is outside of the spec: the file, the dates of holidays, what `H` is resolved for."""
        before = None if old is None else old.spec
        spec = settle(draft.spec, before, now_ms=self._clock.now_ms(), job_id=None if old is None else old.id)
        return self._artifacts.pin(Draft(spec, draft.upload, draft.faults), before)

    def _check(self, draft: Draft, caller: Caller, before: JobSpec | None) -> None:
        faults = rules.check_scope(draft.spec.namespace, caller.scope)
        if faults := [*faults, *self._faults(draft, before, self._clock.now_ms())]:
            raise ValidationFailedError(faults)
        self._allow(draft.spec, caller)

    def _faults(
        self, draft: Draft, before: JobSpec | None, now_ms: int, fires: rules.Fires | None = None
    ) -> list[FieldError]:
        spec = draft.spec
        allowed = self._namespaces.run_as_of(spec.namespace)
        found = rules.check_spec(spec, now_ms=now_ms, run_as_allowed=allowed, before=before, fires=fires)
        if not found and not draft.faults:
            shortest_s = self._namespaces.policy(spec.namespace).quotas.min_interval_s
            found = check_interval(spec, shortest_s, now_ms, before)
        named = {fault.field for fault in draft.faults}
        return [*draft.faults, *(fault for fault in found if fault.field not in named)]

    def _allow(self, spec: JobSpec, caller: Caller) -> None:
        if spec.run_as == ROOT and (fault := root_fault(caller, self._namespaces.policy(spec.namespace).run_as)):
            raise PermissionDeniedError(fault, "run_as")

    def _insert(self, new: Sequence[NewJob]) -> list[Job | Exception]:
        """Insert what was asked for at the same time: in one transaction, or each in its own if a name is taken."""
        if len(new) > 1:
            try:
                weighing = self._namespaces.weighing(one.namespace for one in new)
                return list(self._store.jobs.save_many(new, [], [], weighing=weighing))
            except (ConflictError, StaleWriteError, QuotaExceededError):
                pass  # nothing was saved; one of them is to blame, and the others are not
        return [self._insert_one(one) for one in new]

    def _tell_new(self, outcomes: Sequence[Job | Exception]) -> None:
        """Tell all of a batch in one write, while the next batch is saved."""
        if created := [job for job in outcomes if isinstance(job, Job)]:
            self._tell(created)

    def _insert_one(self, new: NewJob) -> Job | Exception:
        try:
            return self._store.jobs.create(new, weighing=self._namespaces.weighing([new.namespace]))
        except CronkeeperError as exc:
            return exc

    def _next_generation(self, old: Job, *, spec: JobSpec | None = None, state: JobState | None = None) -> Job:
        now_ms, wanted = self._clock.now_ms(), old.state if state is None else state
        return self._sealed(
            replace(
                old,
                spec=self._copies.refreshed([old.spec])[0] if spec is None else spec,
                state=wanted,
                state_reason=old.state_reason if wanted is old.state else "",
                withdrawn=False,
                generation=old.generation + 1,
                updated_ms=now_ms,
                # Never back: a clock that was set back must not let a fire of the past happen again.
                effective_from_ms=max(now_ms, old.effective_from_ms),
            )
        )

    def _sealed(self, job: Job) -> Job:
        task = Task(job.id, job.generation, job.state, job.effective_from_ms, job.spec)
        return replace(job, envelope=self._signer.seal(task))

    def _update(
        self, job_id: int, make: Callable[[Job], Job | None], expected: Expected, caller: Caller, event: str
    ) -> Job:
        """Read, decide, write by compare-and-set; again from the start when somebody else was first."""
        for _ in range(_TRIES):
            old = self._store.jobs.get(job_id)
            _compare(old, expected)
            new = make(old)
            if new is None:
                return old
            try:
                told = job_note(caller, event, old, new, at_ms=self._clock.now_ms())
                weighing = self._namespaces.weighing([new.spec.namespace])
                self._store.jobs.replace(new, expected_generation=old.generation, trail=[told], weighing=weighing)
            except StaleWriteError:
                continue
            except ConflictError as exc:
                raise NameTakenError(str(exc)) from exc
            self._tell([new], {old.id: old})
            log.info(
                "a job was changed",
                extra={"event": event, "job": job_id, "generation": new.generation, "by": caller.name},
            )
            return new
        raise ConflictError(f"job {job_id} is being changed by others at the same time; try again")

    def _tell(self, jobs: Sequence[Job], before: dict[int, Job] | None = None) -> None:
        self._news.put({task: job.envelope for job in jobs for task in job.tasks()})
        gone = [
            task
            for job in jobs
            if before is not None and job.id in before
            for task in before[job.id].tasks()[len(job.tasks()) :]
        ]
        if gone:
            self._news.drop(gone)

    # ---------------------------------------------------------------------------------------------- many jobs

    def _decide(self, drafts: Sequence[Draft], caller: Caller, namespace: str, prune: str | None) -> Decided:
        existing = self._store.jobs.find(namespace, [draft.spec.name for draft in drafts if draft.spec.name])
        now_ms, fires = self._clock.now_ms(), rules.Fires()
        faults: list[FieldError] = []
        for index, draft in enumerate(drafts):
            old = existing.get(draft.spec.name or "")
            found = self._faults(draft, None if old is None else old.spec, now_ms, fires)
            faults += [replace(fault, field=f"jobs[{index}].{fault.field}") for fault in found]
        if faults:
            raise ValidationFailedError(faults)
        pinned = [self._pin(draft, existing.get(draft.spec.name or "")) for draft in drafts]
        pruned = [] if prune is None else self._prunable(namespace, prune, {p.spec.name for p in pinned})
        decided = decide(pinned, existing, pruned)
        for one in decided.touched:
            self._allow(one.spec, caller)
        return decided

    def _prunable(self, namespace: str, selector: str, kept: Collection[str | None]) -> list[Job]:
        found: list[Job] = []
        after = 0
        while page := self._store.jobs.page(JobQuery(limit=MAX_PAGE, after=after, namespace=namespace)):
            found += prunable(page, selector, kept)
            after = page[-1].id
        return found

    def _save(self, decided: Decided, caller: Caller) -> Applied:
        for pinned in decided.touched:
            self._artifacts.save(pinned)
        changed = [
            (self._next_generation(old, spec=pinned.spec, state=state), old) for old, pinned, state in decided.changed
        ]
        changed += [(self._next_generation(old, state=JobState.FINISHED), old) for old in decided.pruned]
        created: list[Job] = []
        if decided.created or changed:
            now_ms = self._clock.now_ms()
            created = self._store.jobs.save_many(
                [one_of_many(self._signer, pinned.spec, caller, now_ms=now_ms) for pinned in decided.created],
                [(new, old.generation) for new, old in changed],
                [],
                trail=[saved_note(caller, old, new) for new, old in changed],
                weighing=self._namespaces.weighing(pinned.spec.namespace for pinned in decided.touched),
            )
            # Each kind by itself: new ones are created without a look at what is there.
            for jobs in filter(None, (created, [new for new, _ in changed])):
                self._tell(jobs, {old.id: old for _, old in changed})
        log.info(
            "jobs were applied",
            extra={"event": "jobs.applied", "new": len(created), "changed": len(changed), "by": caller.name},
        )
        return decided.applied.with_ids({job.spec.name or "": job.id for job in created})


def _compare(job: Job, expected: Expected) -> None:
    if expected is not None and job.generation not in expected:
        raise StaleJobError(job.id, job.generation)
