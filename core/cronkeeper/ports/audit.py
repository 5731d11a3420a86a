"""What the auditor keeps, and what it asks of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.ports.access import Event


@dataclass(frozen=True, slots=True)
class JobVersion:
    """A job as it was saved once. It was in force from `since_ms` until the next version's `since_ms`."""

    job_id: int
    generation: int
    state: JobState
    since_ms: int
    #: It never fires for an instant at or before this one.
    effective_from_ms: int
    spec: JobSpec


@dataclass(frozen=True, slots=True, order=True)
class Fire:
    """One fire time of one task, whatever became of it."""

    task: TaskId
    fire_ms: int

    def __str__(self) -> str:
        return f"{self.task}@{self.fire_ms}"


@dataclass(frozen=True, slots=True)
class Fate:
    """What the ledger says of a fire: the little of its newest attempt that an auditor needs."""

    fire: Fire
    attempt: int
    state: RunState
    trigger: Trigger
    worker: str
    generation: int
    reason: Reason | None
    claimed_ms: int | None
    fence: int = 0
    nonce: str = ""


@dataclass(frozen=True, slots=True)
class SignedRow:
    """A job's row beside its signed task: what the leader plans by, and what workers go by."""

    job_id: int
    generation: int
    state: JobState
    effective_from_ms: int
    schedule: str
    timezone: str
    selector: str | None
    shards: int
    #: JSON, see spec_to_dict.
    spec: str
    envelope: bytes
    #: See Job.withdrawn.
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class Missed:
    """The auditor's word on a fire. While `held`, it is not a verdict yet: the fire waits for somebody to be heard."""

    fire: Fire
    reason: str
    detail: str
    noted_ms: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class AuditMark:
    """How far the auditor is. All zero before its first turn."""

    #: Every fire whose fate had to be known by this instant has been decided about.
    decided_ms: int = 0
    #: Every fire that was to be known as overdue by this instant has been looked at.
    warned_ms: int = 0
    #: Every row of the ledger up to this fire has been checked for being expected.
    checked: Fire = Fire(TaskId(0, 0), 0)
    #: When a leader audited last.
    beat_ms: int = 0
    #: When nobody did, oldest first: (last turn before, first turn after).
    gaps: tuple[tuple[int, int], ...] = ()
    #: Of fires before this instant nothing can be told: auditing began later, or their rows were removed since.
    known_from_ms: int = 0


class AuditStore(Protocol):
    """Versions of jobs, fires that were missed, and how far the auditor is. All writes are under the leader's term."""

    def versions(self, job_ids: Sequence[int]) -> list[JobVersion]:
        """Return all versions of these jobs, by job and then oldest first. Those that cannot be read are left out."""
        ...

    def changed_versions(self, since_ms: int, *, after: tuple[int, int] = (0, 0), limit: int) -> list[JobVersion]:
        """Return a page of the versions that began at or after that instant, by job and generation, beyond `after`.

        A page shorter than `limit` may still have others behind it (rows that cannot be read are left out): ask until
        one is empty.
        """
        ...

    def fates(self, fires: Sequence[Fire]) -> dict[Fire, Fate]:
        """Return what the ledger says of these fires; those without a row are not in it."""
        ...

    def recorded(self, after: Fire, until_ms: int, *, limit: int) -> list[Fate]:
        """Return first attempts that a schedule asked for, by fire time, then task; `after` is the last one known."""
        ...

    def ahead(self, by_ms: int, *, limit: int) -> list[Fate]:
        """Return what is recorded of fires that are more than `by_ms` ahead of the database's clock, the next first."""
        ...

    def drop_ahead(self, fates: Sequence[Fate], by_ms: int, *, term: int) -> int:
        """Remove such rows, as long as they are what was seen, under the leader's term; return how many."""
        ...

    def signed(self, job_ids: Sequence[int]) -> list[SignedRow]:
        """Return the rows of these jobs with their signed tasks. Those that cannot be read are left out."""
        ...

    def mark(self) -> AuditMark:
        """Return how far the auditor is."""
        ...

    def save(
        self,
        mark: AuditMark,
        *,
        missed: Sequence[Missed],
        withdrawn: Sequence[Fire],
        events: Sequence[Event],
        term: int,
    ) -> None:
        """Write all of it in one transaction, under the leader's term. Safe to repeat. Raises FencedError."""
        ...

    def missed_page(self, after: Fire, *, limit: int) -> list[Missed]:
        """Return missed fires by task and fire time, beyond `after`; held ones too."""
        ...

    def held(self, *, limit: int) -> list[Missed]:
        """Return the fires that wait for a verdict, longest noted first."""
        ...

    def missed_of(self, job_id: int, *, limit: int) -> list[Missed]:
        """Return the job's missed fires, newest first. Held ones, and those that got a row since, are left out."""
        ...

    def missed_at(self, job_id: int, fire_ms: int) -> list[Missed]:
        """Return what is noted of the job's fires at that fire time, by shard; held ones too."""
        ...

    def purge(self, *, before_ms: int, limit: int) -> int:
        """Remove missed fires and job versions that were over before; the newest version of each job stays.

        At most `limit` of each; returns how many in all.
        """
        ...
