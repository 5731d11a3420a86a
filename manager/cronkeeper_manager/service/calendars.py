"""Calendars: make, change, remove; and bring the copies up to date that jobs hold of their days.

A calendar's change is two steps: its own row, which decides, and then each job that names it, saved and signed anew as
a generation that takes effect from its own instant. Whatever stops in between is finished by the same request again:
the copies themselves say which jobs are left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from cronkeeper.domain.calendars import ends_within
from cronkeeper.domain.job import Job, JobSpec, JobState
from cronkeeper.domain.named_calendars import NamedCalendar
from cronkeeper.errors import ConflictError, NotFoundError, StaleWriteError
from cronkeeper.ports import JobQuery, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.trail import Entry
from cronkeeper_manager.service.calendar_rules import CalendarDraft, check_calendar
from cronkeeper_manager.service.holiday_dates import region_fault, settle
from cronkeeper_manager.service.jobs import Jobs
from cronkeeper_manager.service.named_copies import NamedCopies
from cronkeeper_manager.service.preview import upcoming
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller

log = logging.getLogger(__name__)

#: How many jobs an answer shows, each with so many fire times before and after.
SHOWN_JOBS, SHOWN_FIRES = 20, 3
#: One request saves so many jobs anew, in transactions of so many; the same request again goes on.
MAX_JOBS_EACH, _BATCH = 5000, 100
#: A refresh adds to jobs whose holidays are known for less than this.
REFRESH_YEARS = 2
_TRIES = 5
#: Says what these jobs' specs are to be.
Make = Callable[[Sequence[Job]], list[JobSpec]]


class StaleCalendarError(StaleWriteError):
    """The calendar has changed since the caller read it; `generation` is the present one, 0 if it is gone."""

    def __init__(self, name: str, generation: int) -> None:
        super().__init__(f"the calendar {name} has changed, or is gone; read it again")
        self.generation = generation


@dataclass(frozen=True, slots=True)
class Affected:
    """A job whose copy changes: its next fire times (epoch ms) before and after."""

    job_id: int
    name: str | None
    next_before: tuple[int, ...]
    next_after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CalendarChange:
    """What became (or, in a dry run, would become) of a calendar and of the jobs that name it."""

    calendar: NamedCalendar
    created: bool
    #: How many jobs were saved anew, or would be.
    changed: int
    #: How many are left for the same request again; none in a dry run.
    remaining: int
    shown: tuple[Affected, ...]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did (or would do) to a page of jobs."""

    looked: int
    changed: int
    shown: tuple[Affected, ...]
    #: Jobs that name a region which the library knows no longer: their dates stay as they are.
    left: tuple[int, ...]
    #: Where the next page begins; None after the last.
    after: int | None


class Calendars:
    """The use cases of calendars. Errors common to all: UnavailableError."""

    def __init__(self, store: Store, jobs: Jobs, clock: Clock, *, most: int = MAX_JOBS_EACH) -> None:
        self._store = store
        self._jobs = jobs
        self._copies = NamedCopies(store)
        self._clock = clock
        self._most = most

    def get(self, namespace: str, name: str) -> NamedCalendar:
        """Return the calendar. Raises NotFoundError."""
        return self._store.calendars.get(namespace, name)

    def page(self, *, within: frozenset[str] | None, after: tuple[str, str], limit: int) -> list[NamedCalendar]:
        """Return a page of calendars, by namespace and name."""
        return self._store.calendars.page(within=within, after=after, limit=limit)

    def put(
        self,
        namespace: str,
        name: str,
        draft: CalendarDraft,
        caller: Caller,
        *,
        expected: Collection[tuple[int, int]] | None = None,
        dry_run: bool = False,
    ) -> CalendarChange:
        """Make the calendar what the draft says, and save the jobs that name it anew. Safe to repeat.

        `expected` are the (created_ms, generation) that the caller may have seen; None for any. Raises NotFoundError
        (a foreign namespace), ValidationFailedError, StaleCalendarError or ConflictError (others are changing it at
        the same time).
        """
        if not caller.scope.holds(namespace):
            raise NotFoundError(f"there is no calendar {name} in namespace {namespace}")
        dates = check_calendar(namespace, name, draft)
        for _ in range(_TRIES):
            old = self._store.calendars.find(namespace, [name]).get(name)
            _compare(name, old, expected)
            now_ms = self._clock.now_ms()
            new = NamedCalendar(namespace, name, draft.description, dates, 1, now_ms, now_ms)
            if old is not None:
                same = (old.description, old.dates) == (draft.description, dates)
                new = old if same else replace(new, generation=old.generation + 1, created_ms=old.created_ms)
            found = CalendarChange(new, old is None, self._outdated(new), 0, self._shown(new))
            if dry_run:
                return found
            try:
                if new is not old:
                    told = _note(caller, "calendar.saved", old, new, at_ms=now_ms)
                    generation = 0 if old is None else old.generation
                    self._store.calendars.save(new, expected_generation=generation, trail=[told])
            except StaleWriteError:
                continue
            changed = self._renew(new, caller)
            log.info(
                "a calendar was saved",
                extra={"event": "calendar.saved", "calendar": name, "jobs": changed, "by": caller.name},
            )
            return replace(found, changed=changed, remaining=self._outdated(new))
        raise ConflictError(f"the calendar {name} is being changed by others at the same time; try again")

    def delete(
        self, namespace: str, name: str, caller: Caller, expected: Collection[tuple[int, int]] | None = None
    ) -> None:
        """Remove a calendar that no job names. Raises NotFoundError, StaleCalendarError or ConflictError."""
        old = self._store.calendars.get(namespace, name)
        _compare(name, old, expected)
        try:
            told = _note(caller, "calendar.removed", old, None, at_ms=self._clock.now_ms())
            self._store.calendars.delete(namespace, name, expected_generation=old.generation, trail=[told])
        except StaleWriteError as exc:
            raise StaleCalendarError(name, old.generation) from exc
        except ConflictError as exc:
            raise ConflictError(f"the calendar {name} is named by {self._users(namespace, name)}") from exc
        log.info("a calendar was removed", extra={"event": "calendar.removed", "calendar": name, "by": caller.name})

    def refresh(self, caller: Caller, *, after: int, limit: int, dry_run: bool) -> Refreshed:
        """Look at a page of jobs: copy more years of holidays where fewer than two are left, and calendars anew.

        Only days beyond those that a job has are added: none of its known days changes. Safe to repeat.
        """
        page = self._store.jobs.page(JobQuery(limit=limit, after=after))
        alive = [job for job in page if job.state is not JobState.FINISHED]
        wanted = [pair for pair in zip(alive, self._topped_up(alive), strict=True) if pair[0].spec != pair[1]]
        shown = tuple(self._affected(job, spec) for job, spec in wanted[:SHOWN_JOBS])
        changed = len(wanted)
        if not dry_run:
            jobs = [job for job, _ in wanted]
            batches = (jobs[at : at + _BATCH] for at in range(0, len(jobs), _BATCH))
            changed = sum(self._save(batch, self._topped_up, caller) for batch in batches)
        left = tuple(job.id for job in alive if self._needs_dates(job.spec) and not _known_regions(job.spec))
        return Refreshed(len(page), changed, shown, left, page[-1].id if len(page) == limit else None)

    # ---------------------------------------------------------------------------------------------------- helpers

    def _renew(self, calendar: NamedCalendar, caller: Caller) -> int:
        """Save the jobs anew whose copies have other days; return how many."""
        changed, after = 0, 0
        while changed < self._most:
            page = self._page(calendar, limit=_BATCH, after=after)
            if not page:
                break
            after = page[-1].id
            changed += self._save(page, self._present, caller)
        return changed

    def _present(self, jobs: Sequence[Job]) -> list[JobSpec]:
        return self._copies.refreshed([job.spec for job in jobs])

    def _topped_up(self, jobs: Sequence[Job]) -> list[JobSpec]:
        now_ms = self._clock.now_ms()
        return [
            settle(spec, spec, now_ms=now_ms, job_id=job.id)
            if self._needs_dates(spec) and _known_regions(spec)
            else spec
            for job, spec in zip(jobs, self._present(jobs), strict=True)
        ]

    def _needs_dates(self, spec: JobSpec) -> bool:
        return ends_within(spec.holiday_dates, REFRESH_YEARS * 12, now_ms=self._clock.now_ms())

    def _save(self, jobs: Sequence[Job], make: Make, caller: Caller) -> int:
        """Save what `make` changes, in one transaction; each job on its own if one is being changed by others."""
        try:
            wanted = [pair for pair in zip(jobs, make(jobs), strict=True) if pair[0].spec != pair[1]]
            if wanted:
                self._jobs.renew(wanted, caller)
            return len(wanted)
        except (StaleWriteError, NotFoundError):
            return sum(self._save_one(job.id, make, caller) for job in jobs)

    def _save_one(self, job_id: int, make: Make, caller: Caller) -> int:
        for _ in range(_TRIES):
            try:
                job = self._store.jobs.get(job_id)
                (spec,) = make([job])
                if spec == job.spec:
                    return 0
                self._jobs.renew([(job, spec)], caller)
                return 1
            except StaleWriteError:
                continue
            except NotFoundError:
                return 0
        raise ConflictError(f"job {job_id} is being changed by others at the same time; try again")

    def _outdated(self, calendar: NamedCalendar) -> int:
        return self._store.calendars.count_uses(calendar.namespace, calendar.name, outdated=calendar.dates.digest)

    def _page(self, calendar: NamedCalendar, *, limit: int, after: int = 0) -> list[Job]:
        return self._store.jobs.page(
            JobQuery(
                limit=limit,
                after=after,
                namespace=calendar.namespace,
                calendar=calendar.name,
                outdated=calendar.dates.digest,
            )
        )

    def _shown(self, calendar: NamedCalendar) -> tuple[Affected, ...]:
        jobs = self._page(calendar, limit=SHOWN_JOBS)
        return tuple(
            self._affected(job, job.spec.evolve(named_dates={**job.spec.named_dates, calendar.name: calendar.dates}))
            for job in jobs
        )

    def _affected(self, job: Job, spec: JobSpec) -> Affected:
        now_ms = self._clock.now_ms()
        before, after = (upcoming(one, after_ms=now_ms, count=SHOWN_FIRES) for one in (job.spec, spec))
        return Affected(job.id, job.spec.name, before, after)

    def _users(self, namespace: str, name: str) -> str:
        jobs = self._store.jobs.page(JobQuery(limit=SHOWN_JOBS, namespace=namespace, calendar=name))
        more = self._store.calendars.count_uses(namespace, name) - len(jobs)
        told = ", ".join(job.spec.name or str(job.id) for job in jobs)
        return f"the jobs {told}{f' and {more} more' if more > 0 else ''}"


def _note(caller: Caller, action: str, old: NamedCalendar | None, new: NamedCalendar | None, *, at_ms: int) -> Entry:
    item = new or old
    assert item is not None
    was, becomes = (None if one is None else _told(one) for one in (old, new))
    return note(caller, action, "calendar", item.name, at_ms=at_ms, namespace=item.namespace, old=was, new=becomes)


def _told(item: NamedCalendar) -> dict[str, object]:
    days = {"exclude": list(item.dates.exclude), "include": list(item.dates.include)}
    return {"generation": item.generation, "description": item.description, **days}


def _known_regions(spec: JobSpec) -> bool:
    return spec.calendar is not None and not any(map(region_fault, spec.calendar.holidays))


def _compare(name: str, old: NamedCalendar | None, expected: Collection[tuple[int, int]] | None) -> None:
    if expected is not None and (old is None or (old.created_ms, old.generation) not in expected):
        raise StaleCalendarError(name, 0 if old is None else old.generation)
