"""Jobs and runs: the truth, kept in MySQL (or SQLite)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState, JobStatus
from cronkeeper.domain.run import Run
from cronkeeper.ports.access import RequestKey
from cronkeeper.ports.namespaces import Weighing
from cronkeeper.wire.trail import Entry


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs, oldest (lowest id) first. `after` is the last id of the page before."""

    limit: int = 1000
    after: int = 0
    status: JobStatus | None = None
    #: Free text: a substring of name, executable or description.
    q: str = ""
    namespace: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    #: Only jobs whose `env` names this secret.
    secret: str | None = None
    #: Only jobs that name this calendar; with a digest, only those whose copy of it has another one.
    calendar: str | None = None
    outdated: str = ""
    #: Only jobs of these namespaces; None: of any.
    within: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be inserted. `build` is given the new id and returns the whole row, its signed envelope included."""

    namespace: str
    name: str | None
    build: Callable[[int], Job]
    #: Whose request it answers, if that is to be known after the server's death.
    request: RequestKey | None = None
    #: What the trail says of the job that was built.
    note: Callable[[Job], Entry] | None = None
    #: The token that asks for it: how many it may create in a minute may be bounded.
    by: str = ""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """What the leader needs of a job: little, as it holds 100,000 of them."""

    job_id: int
    generation: int
    state: JobState
    shards: int
    selector: str | None
    schedule: str
    timezone: str
    effective_from_ms: int
    updated_ms: int
    #: See Job.withdrawn.
    withdrawn: bool = False
    #: Short names of the keys that its sealed copies of secrets were sealed with.
    secrets_keys: frozenset[str] = frozenset()


class JobStore(Protocol):
    """The truth about jobs. Every write is one transaction: a job is saved whole or not at all, its trail with it."""

    def create(self, new: NewJob, *, weighing: Weighing | None = None) -> Job:
        """Insert one job. Raises ConflictError when the namespace has that name already, or QuotaExceededError.

        StaleWriteError when its request has been taken over.
        """
        ...

    def save_many(
        self,
        new: Sequence[NewJob],
        changed: Sequence[tuple[Job, int]],
        removed: Sequence[int],
        *,
        trail: Sequence[Entry] = (),
        weighing: Weighing | None = None,
    ) -> list[Job]:
        """Insert, replace (each with its expected generation) and finish jobs in one transaction; return the inserted.

        With a weighing it is held against the quotas of the namespaces, also where others write at the same moment.
        Raises ConflictError, StaleWriteError or QuotaExceededError, and then nothing is saved.
        """
        ...

    def get(self, job_id: int) -> Job:
        """Return the job with its last run. Raises NotFoundError."""
        ...

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, Job]:
        """Return those jobs of the namespace that have one of the names."""
        ...

    def page(self, query: JobQuery) -> list[Job]:
        """Return a page, each job with its last run."""
        ...

    def replace(
        self, job: Job, *, expected_generation: int, trail: Sequence[Entry] = (), weighing: Weighing | None = None
    ) -> None:
        """Write the new row if the stored generation is still the expected one.

        Raises NotFoundError, StaleWriteError, ConflictError (the new name is taken) or QuotaExceededError.
        """
        ...

    def mark_finished(self, job_id: int, *, generation: int) -> bool:
        """Note that an active job has no fire left. False when it has changed meanwhile."""
        ...

    def delete(self, job_id: int, *, trail: Sequence[Entry] = ()) -> bool:
        """Remove the job and its runs and output for good. False when there was none."""
        ...

    def plan_rows(self, *, changed_since_ms: int = 0) -> list[PlanRow]:
        """Return the rows of all jobs changed at or after that instant (0: all jobs)."""
        ...

    def job_ids(self) -> set[int]:
        """Return the ids of all jobs."""
        ...

    def namespaces_of(self, job_ids: Sequence[int]) -> dict[int, str]:
        """Return the namespace of each of these jobs; those that do not exist are not in it."""
        ...

    def envelopes(self, job_ids: Sequence[int]) -> dict[int, bytes]:
        """Return the signed tasks of these jobs."""
        ...

    def reseal(self, envelopes: Mapping[int, tuple[bytes, bytes]], *, trail: Sequence[Entry] = ()) -> int:
        """Put the second of each job's two envelopes in the place of the first; return how many were changed.

        Nothing else of a job changes. One that has another envelope by now is left alone. Safe to repeat.
        """
        ...


class Span(NamedTuple):
    """Fire times after `early_ms`, up to `until_ms`."""

    early_ms: int
    until_ms: int


class LastFire(NamedTuple):
    """What the ledger tells a task's next owner."""

    #: Up to when its fires are decided. None: nothing of its schedule is recorded.
    fire_ms: int | None
    #: The generation of its newest run, whoever asked for it. 0: no run tells one.
    generation: int


class RunStore(Protocol):
    """The ledger: one row for each (task, fire time, attempt). Its unique key is the first fence."""

    def claim(self, runs: Sequence[Run]) -> dict[RunKey, bool]:
        """Insert the rows; for each key say whether it is ours (by nonce). One statement when nobody else wants them.

        A row of ours that was given up (lost) is not ours any more: a later attempt may be under way elsewhere. Nor is
        anything new granted to a worker whose task was given to another one since, by a higher epoch than its fence.

        Raises UnavailableError: some, all or none may be ours. Calling again with the same nonces is safe.
        """
        ...

    def record(self, runs: Sequence[Run]) -> list[RunKey]:
        """Bring rows to a later state, inserting those that are not there (spooled while MySQL was away).

        A row moves only if its nonce is ours and the transition table leads there; equal or later states stay. A row
        that another worker skipped gives way to a run that did start: what happened counts. Also keeps each job's
        last run. What a former owner skipped after its task was another's is left out: it had nothing to decide any
        more. Returns the keys that belong to another nonce: a double start, to be reported.
        Safe to repeat.
        """
        ...

    def get(self, key: RunKey) -> Run:
        """Raises NotFoundError."""
        ...

    def history(self, job_id: int, *, limit: int, before: RunKey | None = None) -> list[Run]:
        """Return the job's runs, newest fire time first (then highest shard and attempt first), below `before`."""
        ...

    def at(self, job_id: int, fire_ms: int) -> list[Run]:
        """Return all runs of the job for one fire time, by shard and attempt."""
        ...

    def last_fires(self, tasks: Mapping[TaskId, Span]) -> dict[TaskId, LastFire]:
        """Return up to when each task's fires are decided: its newest fire time that has a row of its schedule.

        Within a task's span a skip does not count: a worker that skips a fire, as an earlier one waits, may die with
        the one that waits. Nor does anything after the span: a former owner went on without knowing that it was one.
        To decide such a fire again is harmless, as its row refuses the claim. Manual runs never count.

        And by which generation of the job: that of the task's newest row, of any time and trigger, that a worker has
        decided about (it is not pending) and that names one. A task of which neither is known is not in it.
        """
        ...

    def open_runs(self, tasks: Sequence[TaskId]) -> list[Run]:
        """Return the tasks' runs that are claimed or running, anywhere."""
        ...

    def lost_runs(self, tasks: Sequence[TaskId], *, since_ms: int) -> list[Run]:
        """Return runs in state lost, with a fire time at or after `since_ms`, that have no later attempt."""
        ...

    def failed_runs(self, tasks: Sequence[TaskId], *, since_ms: int) -> list[Run]:
        """Return runs that failed or timed out, as `lost_runs` does those that are lost."""
        ...

    def request(self, *runs: Run, trail: Sequence[Entry] = (), request: RequestKey | None = None) -> None:
        """Insert pending runs on demand, all or none, with their trail. ConflictError when one of the keys exists.

        StaleWriteError when the request has been taken over.
        """
        ...

    def request_many(self, runs: Sequence[Run], *, trail: Sequence[Entry] = ()) -> dict[RunKey, bool]:
        """Insert pending runs on demand; for each key say whether the row is this one, by nonce. Existing rows stay.

        Their trail is written first: no run without its entry.

        Raises UnavailableError: some, all or none may be there. Calling again with the same nonces is safe.
        """
        ...

    def pending(self, tasks: Sequence[TaskId]) -> list[Run]:
        """Return the tasks' pending runs on demand; of those of backfills only what may go now, by `may_go`."""
        ...

    def last_durations(self) -> dict[int, int]:
        """Return how long each job's last run took, in ms, by the job's id; of those whose last run has ended."""
        ...

    def claim_pending(self, run: Run) -> bool:
        """Move a pending row to claimed with this run's worker, nonce, fence and generation. True when it is ours.

        Safe to repeat with the same nonce.
        """
        ...

    def request_cancel(self, key: RunKey, *, trail: Sequence[Entry] = ()) -> Run:
        """Ask for the run's end; a pending one is cancelled at once. NotFoundError; ConflictError when it is over."""
        ...

    def cancellations(self, worker: str) -> list[RunKey]:
        """Return the worker's active runs whose end was asked for."""
        ...

    def give_up(self, runs: Sequence[Run]) -> list[RunKey]:
        """Move those of these claims to lost whose rows are ours (by nonce) and claimed; return those that are lost.

        For claims on which nobody will act: their answer was lost, and then the other fence refused them, or their
        task went to another worker. What is not there, or has come further, stays. Each run's reason is kept with it.
        Safe to repeat.
        """
        ...

    def lose(self, worker: str, *, term: int, reason: str) -> list[Run]:
        """Move all active runs of a worker to lost, under the leader's term; return them."""
        ...

    def append_output(self, key: RunKey, *, offset: int, data: bytes) -> None:
        """Keep a chunk of a run's output (at most 64 KiB) that starts at byte `offset`. Safe to repeat."""
        ...

    def read_output(self, key: RunKey, *, offset: int, limit: int) -> bytes:
        """Return up to about `limit` bytes of output from `offset` on; empty when there is no more (yet)."""
        ...

    def purge(self, *, before_ms: int, limit: int) -> int:
        """Remove ended runs (with output) whose fire time is older, at most `limit`; return how many."""
        ...
