"""A store as a caller of some namespaces sees it: what belongs to others is not there.

The use cases of such a caller stand on this instead of the store itself, so none of them can forget to look. A read of
a foreign job says what a read of a job that does not exist says, after the same question to the database; a write to a
foreign namespace is refused. Whatever is not written down here is refused too: a new method of a port, or a whole new
store, takes a caller of all namespaces until somebody decides here what others see of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, cast

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job
from cronkeeper.domain.named_calendars import NamedCalendar
from cronkeeper.domain.placement import Assignment
from cronkeeper.domain.quota import Usage
from cronkeeper.domain.run import Run
from cronkeeper.domain.scope import Scope
from cronkeeper.errors import NotFoundError, PermissionDeniedError
from cronkeeper.ports import (
    AuditMark,
    Event,
    Fate,
    Fire,
    JobQuery,
    JobStore,
    JobVersion,
    Missed,
    NamespacePolicy,
    NewJob,
    Secret,
    Store,
)

#: So many events are looked through at once, and so many in all, for those that the caller may see.
_LOOK, _MOST = 1000, 20_000
#: The first words of kinds of events whose subject is a job, a task or a run.
_ABOUT_JOBS = frozenset({"fire", "job", "move", "run", "task"})
_JOB_FIRST = re.compile(r"([1-9][0-9]{0,17})(?:[-/.]|$)", re.ASCII)


def scoped(store: Store, scope: Scope) -> Store:
    """Return the store as seen from these namespaces; the store itself for all of them."""
    return store if scope.everywhere else cast(Store, _ScopedStore(store, scope))


class _Closed:
    """Whatever it does not have is refused once it is called, be it a method or a method of a store."""

    def __getattr__(self, name: str) -> _Closed:
        if name.startswith("__"):
            raise AttributeError(name)
        return _CLOSED

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise PermissionDeniedError("this takes a token for all namespaces")


_CLOSED = _Closed()


class _Border:
    """Which jobs are whose."""

    def __init__(self, jobs: JobStore, scope: Scope) -> None:
        self._jobs = jobs
        self.scope = scope

    def mine(self, job_ids: Iterable[int]) -> set[int]:
        """Return those of the jobs that are in the caller's namespaces."""
        found = self._jobs.namespaces_of(sorted(set(job_ids)))
        return {job_id for job_id, namespace in found.items() if self.scope.holds(namespace)}

    def holds(self, job_id: int) -> bool:
        return bool(self.mine([job_id]))

    def demand_jobs(self, job_ids: Collection[int]) -> None:
        """Raise NotFoundError if any of the jobs is not the caller's."""
        if foreign := set(job_ids) - self.mine(job_ids):
            raise NotFoundError(f"there is no job {min(foreign)}")

    def demand(self, namespaces: Iterable[str]) -> None:
        """Raise PermissionDeniedError if any of the namespaces is not the caller's."""
        if not all(map(self.scope.holds, namespaces)):
            raise PermissionDeniedError("is not one of this token's namespaces", "namespace")


class _ScopedStore(_Closed):
    def __init__(self, store: Store, scope: Scope) -> None:
        border = _Border(store.jobs, scope)
        self.jobs = _ScopedJobs(store, border)
        self.runs = _ScopedRuns(store, border)
        self.audit = _ScopedAudit(store, border)
        self.assignments = _ScopedAssignments(store, border)
        self.events = _ScopedEvents(store, border)
        self.secrets = _ScopedSecrets(store, border)
        self.calendars = _ScopedCalendars(store, border)
        self.namespaces = _ScopedNamespaces(store, border)
        # Keys are the token's own.
        self.idempotency = store.idempotency
        self.ping = store.ping


class _ScopedJobs(_Closed):
    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.jobs
        self._border = border

    def create(self, new: NewJob, **more: Any) -> Job:
        self._border.demand([new.namespace])
        return self._store.create(new, **more)

    def save_many(
        self, new: Sequence[NewJob], changed: Sequence[tuple[Job, int]], removed: Sequence[int], **more: Any
    ) -> list[Job]:
        self._border.demand([item.namespace for item in new] + [job.spec.namespace for job, _ in changed])
        self._border.demand_jobs([*(job.id for job, _ in changed), *removed])
        return self._store.save_many(new, changed, removed, **more)

    def replace(self, job: Job, *, expected_generation: int, **more: Any) -> None:
        # The generation says that the job is still where it was read.
        self._border.demand([job.spec.namespace])
        self._border.demand_jobs([job.id])
        self._store.replace(job, expected_generation=expected_generation, **more)

    def delete(self, job_id: int, **more: Any) -> bool:
        return self._border.holds(job_id) and self._store.delete(job_id, **more)

    def get(self, job_id: int) -> Job:
        # Asked before the row is read: a foreign row that cannot be read must not say so.
        self._border.demand_jobs([job_id])
        job = self._store.get(job_id)
        if not self._border.scope.holds(job.spec.namespace):
            raise NotFoundError(f"there is no job {job_id}")
        return job

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, Job]:
        return self._store.find(namespace, names) if self._border.scope.holds(namespace) else {}

    def page(self, query: JobQuery) -> list[Job]:
        return self._store.page(replace(query, within=self._border.scope.names))

    def namespaces_of(self, job_ids: Sequence[int]) -> dict[int, str]:
        found = self._store.namespaces_of(job_ids)
        return {job_id: name for job_id, name in found.items() if self._border.scope.holds(name)}


class _ScopedRuns(_Closed):
    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.runs
        self._border = border

    def get(self, key: RunKey) -> Run:
        self._demand(key)
        return self._store.get(key)

    def history(self, job_id: int, *, limit: int, before: RunKey | None = None) -> list[Run]:
        return self._store.history(job_id, limit=limit, before=before) if self._border.holds(job_id) else []

    def at(self, job_id: int, fire_ms: int) -> list[Run]:
        return self._store.at(job_id, fire_ms) if self._border.holds(job_id) else []

    def request(self, *runs: Run, **more: Any) -> None:
        self._border.demand_jobs({run.key.task.job_id for run in runs})
        self._store.request(*runs, **more)

    def request_many(self, runs: Sequence[Run], **more: Any) -> dict[RunKey, bool]:
        self._border.demand_jobs({run.key.task.job_id for run in runs})
        return self._store.request_many(runs, **more)

    def request_cancel(self, key: RunKey, **more: Any) -> Run:
        self._demand(key)
        return self._store.request_cancel(key, **more)

    def read_output(self, key: RunKey, *, offset: int, limit: int) -> bytes:
        return self._store.read_output(key, offset=offset, limit=limit) if self._border.holds(key.task.job_id) else b""

    def last_durations(self) -> dict[int, int]:
        found = self._store.last_durations()
        return {job_id: found[job_id] for job_id in self._border.mine(found)}

    def _demand(self, key: RunKey) -> None:
        if not self._border.holds(key.task.job_id):
            raise NotFoundError(f"there is no run {key}")


class _ScopedAudit(_Closed):
    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.audit
        self._border = border

    def versions(self, job_ids: Sequence[int]) -> list[JobVersion]:
        return self._store.versions(sorted(self._border.mine(job_ids)))

    def fates(self, fires: Sequence[Fire]) -> dict[Fire, Fate]:
        mine = self._border.mine(fire.task.job_id for fire in fires)
        return self._store.fates([fire for fire in fires if fire.task.job_id in mine])

    def mark(self) -> AuditMark:
        return self._store.mark()

    def missed_of(self, job_id: int, *, limit: int) -> list[Missed]:
        return self._store.missed_of(job_id, limit=limit) if self._border.holds(job_id) else []

    def missed_at(self, job_id: int, fire_ms: int) -> list[Missed]:
        return self._store.missed_at(job_id, fire_ms) if self._border.holds(job_id) else []


class _ScopedAssignments(_Closed):
    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.assignments
        self._border = border

    def load(self) -> dict[TaskId, Assignment]:
        found = self._store.load()
        mine = self._border.mine(task.job_id for task in found)
        return {task: item for task, item in found.items() if task.job_id in mine}

    def workers_of(self, job_ids: Sequence[int]) -> dict[int, list[str]]:
        return self._store.workers_of(sorted(self._border.mine(job_ids)))


class _ScopedSecrets(_Closed):
    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.secrets
        self._border = border

    def save(self, secret: Secret, **more: Any) -> None:
        self._border.demand([secret.namespace])
        self._store.save(secret, **more)

    def find(self, namespace: str, names: Collection[str]) -> dict[str, Secret]:
        return self._store.find(namespace, names) if self._border.scope.holds(namespace) else {}

    def all(self, namespace: str | None = None) -> list[Secret]:
        return [secret for secret in self._store.all(namespace) if self._border.scope.holds(secret.namespace)]

    def delete(self, namespace: str, name: str, **more: Any) -> bool:
        return self._border.scope.holds(namespace) and self._store.delete(namespace, name, **more)


class _ScopedNamespaces(_Closed):
    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.namespaces
        self._border = border

    def get(self, name: str) -> NamespacePolicy:
        if not self._border.scope.holds(name):
            raise NotFoundError(f"there is no namespace {name!a}")
        return self._store.get(name)

    def all(self) -> list[NamespacePolicy]:
        return [policy for policy in self._store.all() if self._border.scope.holds(policy.name)]

    def usage(self, name: str, load_of: Callable[[str], float]) -> Usage:
        return self._store.usage(name, load_of) if self._border.scope.holds(name) else Usage()


class _ScopedEvents(_Closed):
    """Events about the caller's jobs and their runs; those about workers and the fleet are not for it."""

    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.events
        self._border = border

    def latest(self, *, limit: int, kind: str | None = None, subject: str | None = None, skip: int = 0) -> list[Event]:
        found: list[Event] = []
        for start in range(0, _MOST, _LOOK):
            page = self._store.latest(limit=_LOOK, kind=kind, subject=subject, skip=start)
            jobs = {event: job_of_event(event) for event in page}
            mine = self._border.mine(job_id for job_id in jobs.values() if job_id is not None)
            found += [event for event in page if jobs[event] in mine]
            if len(page) < _LOOK or len(found) >= skip + limit:
                break
        # What came in between two pages moves the second: an event may come twice.
        return list(dict.fromkeys(found))[skip : skip + limit]


class _ScopedCalendars(_Closed):
    def __init__(self, store: Store, border: _Border) -> None:
        self._store = store.calendars
        self._scope = border.scope

    def get(self, namespace: str, name: str) -> NamedCalendar:
        self._demand(namespace, name)
        return self._store.get(namespace, name)

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, NamedCalendar]:
        return self._store.find(namespace, names) if self._scope.holds(namespace) else {}

    def names(self, namespace: str) -> list[str]:
        return self._store.names(namespace) if self._scope.holds(namespace) else []

    def page(
        self, *, within: frozenset[str] | None = None, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[NamedCalendar]:
        names = self._scope.names
        mine = names if within is None or names is None else within & names
        return self._store.page(within=mine, after=after, limit=limit)

    def save(self, calendar: NamedCalendar, *, expected_generation: int, **more: Any) -> None:
        self._demand(calendar.namespace, calendar.name)
        self._store.save(calendar, expected_generation=expected_generation, **more)

    def delete(self, namespace: str, name: str, *, expected_generation: int, **more: Any) -> None:
        self._demand(namespace, name)
        self._store.delete(namespace, name, expected_generation=expected_generation, **more)

    def count_uses(self, namespace: str, name: str, *, outdated: str = "") -> int:
        return self._store.count_uses(namespace, name, outdated=outdated) if self._scope.holds(namespace) else 0

    def _demand(self, namespace: str, name: str) -> None:
        if not self._scope.holds(namespace):
            raise NotFoundError(f"there is no calendar {name} in namespace {namespace}")


def job_of_event(event: Event) -> int | None:
    """Return the job that an event is about: its subject is a job (`17`), a task (`17/0`) or a run. None: no job."""
    # By kind as well: a worker's id may look like any of them.
    if event.kind.partition(".")[0] not in _ABOUT_JOBS:
        return None
    match = _JOB_FIRST.match(event.subject)
    return None if match is None else int(match[1])
