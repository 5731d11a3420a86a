"""The contracts between the components and the stores. Adapters and shipped doubles pass one contract suite each.

Rules for every method here
- A read either returns the whole truth or raises UnavailableError; "could not read" is never an empty result.
- Instants are epoch milliseconds, UTC.
- A write whose answer was lost is resolved inside where a nonce or version makes that possible; where it is not,
  UnavailableError is raised only if repeating the very same call is safe. The docstring says which.
- Every call is bounded in time (seconds, not minutes), whatever the server does.
- Methods that take a `term` or a `Leadership` raise FencedError when it is not the newest any more, and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState, JobStatus
from cronkeeper.domain.placement import Assignment, Lease, NodeInfo, Ownership, WorkerInfo
from cronkeeper.domain.run import Run
from cronkeeper.wire.znodes import ClaimNote, LeaderNote, QueuedRun

# --------------------------------------------------------------------------------------------- MySQL (or SQLite)


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


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be inserted. `build` is given the new id and returns the whole row, its signed envelope included."""

    namespace: str
    name: str | None
    build: Callable[[int], Job]


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


class JobStore(Protocol):
    """The truth about jobs. Every write is one transaction: a job is saved whole or not at all."""

    def create(self, new: NewJob) -> Job:
        """Insert one job. Raises ConflictError when the namespace has that name already."""
        ...

    def save_many(self, new: Sequence[NewJob], changed: Sequence[tuple[Job, int]], removed: Sequence[int]) -> list[Job]:
        """Insert, replace (each with its expected generation) and finish jobs in one transaction; return the inserted.

        Raises ConflictError or StaleWriteError, and then nothing is saved.
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

    def replace(self, job: Job, *, expected_generation: int) -> None:
        """Write the new row if the stored generation is still the expected one.

        Raises NotFoundError, StaleWriteError, or ConflictError (the new name is taken).
        """
        ...

    def mark_finished(self, job_id: int, *, generation: int) -> bool:
        """Note that an active job has no fire left. False when it has changed meanwhile."""
        ...

    def delete(self, job_id: int) -> bool:
        """Remove the job and its runs and output for good. False when there was none."""
        ...

    def plan_rows(self, *, changed_since_ms: int = 0) -> list[PlanRow]:
        """Return the rows of all jobs changed at or after that instant (0: all jobs)."""
        ...

    def job_ids(self) -> set[int]:
        """Return the ids of all jobs."""
        ...

    def envelopes(self, job_ids: Sequence[int]) -> dict[int, bytes]:
        """Return the signed tasks of these jobs."""
        ...


class RunStore(Protocol):
    """The ledger: one row for each (task, fire time, attempt). Its unique key is the first fence."""

    def claim(self, runs: Sequence[Run]) -> dict[RunKey, bool]:
        """Insert the rows; for each key say whether it is ours (by nonce). One statement when nobody else wants them.

        Raises UnavailableError: some, all or none may be ours. Calling again with the same nonces is safe.
        """
        ...

    def record(self, runs: Sequence[Run]) -> list[RunKey]:
        """Bring rows to a later state, inserting those that are not there (spooled while MySQL was away).

        A row moves only if its nonce is ours and the transition table leads there; equal or later states stay. Also
        keeps each job's last run. Returns the keys that belong to another nonce: a double start, to be reported.
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

    def last_fires(self, tasks: Sequence[TaskId]) -> dict[TaskId, int]:
        """Return each task's newest fire time that has a row of its schedule (manual runs do not count)."""
        ...

    def open_runs(self, tasks: Sequence[TaskId]) -> list[Run]:
        """Return the tasks' runs that are claimed or running, anywhere."""
        ...

    def lost_runs(self, tasks: Sequence[TaskId], *, since_ms: int) -> list[Run]:
        """Return runs in state lost, with a fire time at or after `since_ms`, that have no later attempt."""
        ...

    def request(self, run: Run) -> None:
        """Insert a pending run on demand. Raises ConflictError when the key exists."""
        ...

    def pending(self, tasks: Sequence[TaskId]) -> list[Run]:
        """Return the tasks' pending runs on demand."""
        ...

    def claim_pending(self, run: Run) -> bool:
        """Move a pending row to claimed with this run's worker, nonce, fence and generation. True when it is ours.

        Safe to repeat with the same nonce.
        """
        ...

    def request_cancel(self, key: RunKey) -> Run:
        """Ask for the run's end; a pending one is cancelled at once. NotFoundError; ConflictError when it is over."""
        ...

    def cancellations(self, worker: str) -> list[RunKey]:
        """Return the worker's active runs whose end was asked for."""
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


class MoveRequestStore(Protocol):
    """Wishes that the leader has not yet fulfilled or dropped."""

    def add(self, requests: Sequence[MoveRequest]) -> None:
        """Write or overwrite; one for each task."""
        ...

    def all(self) -> dict[TaskId, MoveRequest]: ...

    def drop(self, tasks: Sequence[TaskId], *, term: int) -> None:
        """Remove fulfilled or impossible wishes, under the leader's term. Safe to repeat."""
        ...


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token as the store knows it: only the SHA-256 of its secret, in hex."""

    id: int
    name: str
    role: Role
    digest: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None


class TokenStore(Protocol):
    def add(self, *, name: str, role: Role, digest: str, created_ms: int, expires_ms: int | None) -> Token: ...

    def find(self, digest: str) -> Token | None:
        """Return the token with this digest, whatever its state."""
        ...

    def all(self) -> list[Token]: ...

    def revoke(self, token_id: int, *, at_ms: int) -> bool:
        """False when there is no such token. Safe to repeat."""
        ...


class Idempotency(StrEnum):
    NEW = "new"
    REPLAY = "replay"
    IN_FLIGHT = "in_flight"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class IdempotencyResult:
    outcome: Idempotency
    status: int = 0
    body: bytes = b""


class IdempotencyStore(Protocol):
    """Remembers answers by (scope, key) for 24 hours; scope is token, method and path."""

    def begin(self, scope: str, key: str, *, body_digest: str, now_ms: int) -> IdempotencyResult: ...

    def finish(self, scope: str, key: str, *, status: int, body: bytes) -> None: ...

    def abandon(self, scope: str, key: str) -> None:
        """Forget a key whose request failed before anything was saved."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person may want to know later: `kind` is a dotted word such as `run.double` or `worker.lost`."""

    at_ms: int
    kind: str
    subject: str
    detail: str


class EventStore(Protocol):
    def add(self, events: Sequence[Event]) -> None: ...

    def latest(self, *, limit: int, kind: str | None = None, subject: str | None = None) -> list[Event]:
        """Newest first."""
        ...


class Store(Protocol):
    """One database. Safe to use from several threads; not across a fork."""

    jobs: JobStore
    runs: RunStore
    leases: LeaseStore
    terms: TermStore
    assignments: AssignmentStore
    move_requests: MoveRequestStore
    tokens: TokenStore
    idempotency: IdempotencyStore
    events: EventStore

    def ping(self) -> None:
        """One cheap round trip. Raises UnavailableError."""
        ...

    def close(self) -> None: ...


# ------------------------------------------------------------------------------------------------------ ZooKeeper


@dataclass(frozen=True, slots=True)
class Leadership:
    """Proof of leadership in ZooKeeper: the election znode that every leader write checks in its own transaction."""

    znode: str
    epoch: int


class Coordinator(Protocol):
    """ZooKeeper, as we use it. Paths: DESIGN section 5. One session for each process; never used across a fork.

    Watches carry nothing: with `watch=True` a read also arranges that `on_change`'s callback is called after the next
    change of what was read. The callback is called from the library's thread and must only set an event.
    """

    def start(self, timeout_s: float) -> None:
        """Connect. Raises UnavailableError after `timeout_s`, but goes on trying in the background."""
        ...

    def stop(self) -> None:
        """Close the session (its ephemeral znodes go at once). Bounded; safe to repeat."""
        ...

    @property
    def connected(self) -> bool:
        """A hint, not a lease: see `silence_s`."""
        ...

    @property
    def session_id(self) -> int:
        """The session's id, 0 before the first connection. Another id means that all ephemerals are gone."""
        ...

    def silence_s(self) -> float:
        """Return seconds (boot-time clock) since the *sending* of the last probe that was acknowledged."""
        ...

    def on_change(self, wake: Callable[[], None]) -> None: ...

    def ensure_layout(self) -> None:
        """Create the top-level and bucket znodes that are missing. Safe to repeat."""
        ...

    # -- readiness: absence means nothing until a leader has said that the tree is complete

    def is_ready(self, *, watch: bool = False) -> bool:
        """Say whether a leader has completed the tree (false after the tree was wiped)."""
        ...

    def mark_ready(self, leadership: Leadership) -> None: ...

    # -- workers and nodes

    def announce(self, info: WorkerInfo) -> None:
        """Create this session's ephemeral worker znode; replace a stale one of an earlier start on the same host.

        Raises ConflictError when a live namesake on another host holds the name. Safe to repeat.
        """
        ...

    def workers(self, *, watch: bool = False) -> dict[str, WorkerInfo]: ...

    def nodes(self, *, watch: bool = False) -> dict[str, NodeInfo]: ...

    def save_node(self, node: NodeInfo) -> None: ...

    def drop_node(self, worker: str) -> None: ...

    # -- tasks

    def put_tasks(self, tasks: Mapping[TaskId, bytes]) -> None:
        """Create or overwrite signed tasks, in multi-operations. Safe to repeat."""
        ...

    def drop_tasks(self, tasks: Iterable[TaskId]) -> None: ...

    def task_names(self, *, watch: bool = False) -> set[TaskId]: ...

    def read_tasks(self, tasks: Iterable[TaskId], *, watch: bool = False) -> dict[TaskId, bytes]:
        """Return the signed tasks that exist, of those asked for (pipelined)."""
        ...

    # -- assignment

    def assigned(self, worker: str, *, watch: bool = False) -> dict[TaskId, Assignment]:
        """Return what one worker is given."""
        ...

    def all_assigned(self) -> dict[str, set[TaskId]]:
        """Return who is given what, names only, for every worker that has an assignment folder."""
        ...

    def owned(self, worker: str) -> dict[TaskId, Ownership]: ...

    def all_owned(self, *, watch: bool = False) -> dict[str, set[TaskId]]: ...

    def own(self, items: Sequence[Ownership]) -> None: ...

    def disown(self, worker: str, tasks: Iterable[TaskId]) -> None: ...

    def move(self, assign: Sequence[Assignment], revoke: Sequence[tuple[str, TaskId]], leadership: Leadership) -> None:
        """Write assignments and remove others, in batches that each check the leadership. Safe to repeat."""
        ...

    def clear_worker(self, worker: str, leadership: Leadership) -> None:
        """Remove a lost worker's /assign and /owned subtrees. Safe to repeat."""
        ...

    # -- the second fence

    def claim(self, key: RunKey, note: ClaimNote) -> bool:
        """Create the claim; True when it is ours (by nonce, read back when the answer was lost), False when another's.

        Never repeated across a session's end. Raises UnavailableError when nobody can tell.
        """
        ...

    def update_claim(self, key: RunKey, note: ClaimNote) -> None: ...

    def claims(self, worker: str) -> dict[RunKey, ClaimNote]:
        """Return the worker's claims that have not been carried home to MySQL."""
        ...

    def drop_claim(self, key: RunKey) -> None: ...

    # -- runs on demand

    def enqueue(self, item: QueuedRun) -> None: ...

    def queued(self, tasks: Iterable[TaskId] | None = None, *, watch: bool = False) -> list[QueuedRun]:
        """Return the queued runs (of these tasks)."""
        ...

    def consume(self, key: RunKey) -> None:
        """Remove a queued run that has ended. Safe to repeat."""
        ...

    # -- election

    def campaign(self, note: LeaderNote) -> None:
        """Stand for leadership with this session (idempotent)."""
        ...

    def leadership(self) -> Leadership | None:
        """Return the proof when this session leads, else None. Watches the candidate ahead."""
        ...

    def resign(self) -> None: ...

    def leader(self) -> LeaderNote | None:
        """Return who leads, as told by the election znode."""
        ...


# --------------------------------------------------------------------------------------------------------- objects


@dataclass(frozen=True, slots=True)
class BlobInfo:
    key: str
    url: str
    size: int


class BlobStore(Protocol):
    """Files by key, write-once: a key is made of the content's sha256, so that overwriting changes nothing."""

    def put(self, key: str, data: bytes) -> BlobInfo:
        """Store an object. Safe to repeat. UnavailableError when the store cannot be reached."""
        ...

    def stat(self, key: str) -> BlobInfo:
        """Raises NotFoundError."""
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the object in chunks. NotFoundError; UnavailableError, also when it breaks off half-way."""
        ...

    def delete(self, key: str) -> None: ...

    def url_of(self, key: str) -> str: ...

    def key_of(self, url: str) -> str:
        """Return the key behind a URL of this store (`s3://bucket/key`, `file:///...` or the store's http URL).

        Raises ValueError for a URL of anything else: nothing but our own store is ever fetched from.
        """
        ...

    def check(self) -> None:
        """Raise UnavailableError or ConfigError when the store cannot be used."""
        ...
