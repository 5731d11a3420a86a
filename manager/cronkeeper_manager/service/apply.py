"""PURE: many jobs at once, by name: what an `apply` creates, changes, leaves and prunes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cronkeeper.domain.job import Job, JobSpec, JobState, JobStatus, spec_to_dict
from cronkeeper.domain.labels import parse_selector
from cronkeeper.domain.secret_env import without_boxes
from cronkeeper.errors import FieldError, ValidationFailedError
from cronkeeper_manager.service.artifacts import Pinned
from cronkeeper_manager.service.preview import upcoming
from cronkeeper_manager.service.values import Draft

MAX_PAGE = 10_000
#: How many fire times a dry run shows before and after a change.
SHOWN_FIRES = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One job that is created, changed or pruned. `fields` maps a field to what it was and what it becomes."""

    name: str
    job_id: int | None
    fields: Mapping[str, tuple[Any, Any]]
    before: JobSpec | None
    after: JobSpec | None
    #: Fire times (epoch ms); only a dry run fills them in.
    next_before: tuple[int, ...] = ()
    next_after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """What was (or, in a dry run, would be) done, each list in the order of the request."""

    created: tuple[Change, ...]
    changed: tuple[Change, ...]
    unchanged: tuple[tuple[str, int], ...]
    pruned: tuple[Change, ...]

    def with_ids(self, ids: Mapping[str, int]) -> Applied:
        """Return the same with the ids of created jobs."""
        created = (Change(one.name, ids.get(one.name), one.fields, one.before, one.after) for one in self.created)
        return replace(self, created=tuple(created))


@dataclass(frozen=True, slots=True)
class Decided:
    """What is to be written."""

    created: tuple[Pinned, ...]
    changed: tuple[tuple[Job, Pinned, JobState], ...]
    pruned: tuple[Job, ...]
    applied: Applied

    @property
    def touched(self) -> list[Pinned]:
        """The specs that are written, with their files."""
        return [*self.created, *(pinned for _, pinned, _ in self.changed)]


def check_names(drafts: Sequence[Draft], namespace: str) -> None:
    """Raise ValidationFailedError unless every draft has a name of its own in that namespace."""
    faults: list[FieldError] = []
    first: dict[str, int] = {}
    for index, draft in enumerate(drafts):
        name = draft.spec.name
        if name is None:
            faults.append(FieldError(f"jobs[{index}].name", "is required here", "jobs are applied by name"))
        elif name in first:
            faults.append(
                FieldError(f"jobs[{index}].name", f"is the name of jobs[{first[name]}], too", "names are unique")
            )
        else:
            first[name] = index
        if draft.spec.namespace != namespace:
            faults.append(
                FieldError(f"jobs[{index}].namespace", f"is not {namespace}", "apply one namespace at a time")
            )
    if faults:
        raise ValidationFailedError(faults)


def decide(wanted: Sequence[Pinned], existing: Mapping[str, Job], pruned: Sequence[Job]) -> Decided:
    """Compare what is wanted with what there is. A finished job of a wanted name is taken up again."""
    created: list[Pinned] = []
    changed: list[tuple[Job, Pinned, JobState]] = []
    unchanged: list[tuple[str, int]] = []
    changes: list[Change] = []
    for pinned in wanted:
        name = pinned.spec.name or ""
        old = existing.get(name)
        if old is None:
            created.append(pinned)
            continue
        fields = differences(old.spec, pinned.spec)
        state = old.state
        if old.state is JobState.FINISHED:
            state = JobState.ACTIVE
            fields["status"] = (JobStatus.FINISHED.value, JobStatus.SCHEDULED.value)
        if not fields:
            unchanged.append((name, old.id))
            continue
        changed.append((old, pinned, state))
        changes.append(Change(name, old.id, fields, old.spec, pinned.spec))
    return Decided(
        tuple(created),
        tuple(changed),
        tuple(pruned),
        Applied(
            tuple(Change(pinned.spec.name or "", None, {}, None, pinned.spec) for pinned in created),
            tuple(changes),
            tuple(unchanged),
            tuple(Change(job.spec.name or "", job.id, {}, job.spec, None) for job in pruned),
        ),
    )


def differences(old: JobSpec, new: JobSpec) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, as {field: (was, becomes)} in their JSON shapes."""
    if old == new:
        return {}
    was, becomes = without_boxes(spec_to_dict(old)), without_boxes(spec_to_dict(new))
    return {field: (was[field], becomes[field]) for field in was if was[field] != becomes[field]}


def prunable(jobs: Sequence[Job], selector: str, kept: Collection[str | None]) -> list[Job]:
    """Return the named jobs that still fire, match the selector and are not kept. A job without a name stays."""
    wanted = parse_selector(selector)
    return [
        job
        for job in jobs
        if job.spec.name is not None
        and job.spec.name not in kept
        and job.state is not JobState.FINISHED
        and wanted.matches(job.spec.labels)
    ]


def with_next(applied: Applied, now_ms: int) -> Applied:
    """Fill in the next fire times before and after each change."""

    def fill(change: Change) -> Change:
        return replace(
            change,
            next_before=() if change.before is None else upcoming(change.before, after_ms=now_ms, count=SHOWN_FIRES),
            next_after=() if change.after is None else upcoming(change.after, after_ms=now_ms, count=SHOWN_FIRES),
        )

    return replace(
        applied,
        created=tuple(map(fill, applied.created)),
        changed=tuple(map(fill, applied.changed)),
        pruned=tuple(map(fill, applied.pruned)),
    )
