"""What the leader and the workers keep in MySQL about each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, Lease, WorkerInfo
from cronkeeper.wire.trail import Entry


class LeaseStore(Protocol):
    """The second witness of a worker's life. All ages are measured by the database's clock alone."""

    def beat(self, info: WorkerInfo, *, local_ms: int) -> Beat:
        """Renew the lease of this daemon (info.epoch names its start), taking over the row of an earlier start."""
        ...

    def leases(self) -> list[Lease]:
        """Return every worker's lease."""
        ...

    def declare_lost(self, worker: str, *, incarnation: str, stale_ms: int, term: int) -> bool:
        """Mark a lease lost if it is still that incarnation's and at least `stale_ms` old: compare-and-set."""
        ...

    def release(self, worker: str, *, incarnation: str) -> None:
        """A clean goodbye: the lease is over at once. Safe to repeat."""
        ...


@dataclass(frozen=True, slots=True)
class Beat:
    #: Local clock minus the database's, corrected by half the round trip.
    clock_offset_ms: int
    #: The leader declared this incarnation lost: its runs have been given up. Re-announce with a new epoch.
    lost: bool


class TermStore(Protocol):
    """The leader's fence in MySQL."""

    def take(self, holder: str) -> int:
        """Begin a new term, one higher than any before, and return it."""
        ...

    def hold(self, term: int) -> None:
        """Move the row of the term. Raises FencedError when a newer term exists."""
        ...


class AssignmentStore(Protocol):
    """The leader's own copy of who was given what, so that a wiped ZooKeeper is rebuilt without moving anything."""

    def load(self) -> dict[TaskId, Assignment]:
        """Return the last assignment of every task; a revoked one keeps its epoch and has an empty worker."""
        ...

    def save(self, assignments: Sequence[Assignment], *, term: int) -> None:
        """Write or overwrite rows, under the leader's term."""
        ...

    def workers_of(self, job_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return the workers that the jobs' tasks are assigned to, sorted, without repeats."""
        ...

    def forget(self, job_ids: Sequence[int], *, term: int) -> None:
        """Drop the rows of removed jobs."""
        ...


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """An admin's wish: this task shall move to this worker, once."""

    task: TaskId
    worker: str
    requested_ms: int


@dataclass(frozen=True, slots=True)
class Cordon:
    """What an admin wants of a worker: nothing new for it (cordoned), and what it has moved away (draining)."""

    worker: str
    cordoned: bool
    draining: bool
    changed_ms: int


class CordonStore(Protocol):
    """The truth about cordons and drains; what `/nodes/<worker>` says of them is news of it."""

    def save(self, cordon: Cordon, *, trail: Sequence[Entry] = ()) -> None:
        """Write or overwrite, with its trail. Safe to repeat."""
        ...

    def all(self) -> dict[str, Cordon]:
        """Return what was ever wanted of each worker, by its id; a worker that nobody cordoned is not among them."""
        ...


class MoveRequestStore(Protocol):
    """Wishes that the leader has not yet fulfilled or dropped."""

    def add(self, requests: Sequence[MoveRequest], *, trail: Sequence[Entry] = ()) -> None:
        """Write or overwrite, one for each task, with their trail. Safe to repeat."""
        ...

    def all(self) -> dict[TaskId, MoveRequest]: ...

    def drop(self, tasks: Sequence[TaskId], *, term: int) -> None:
        """Remove fulfilled or impossible wishes, under the leader's term. Safe to repeat."""
        ...
