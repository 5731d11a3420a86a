"""What the sub-stores in memory share: the tables, one lock, and the faults that tests ask for."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState, LastRun
from cronkeeper.domain.named_calendars import NamedCalendar
from cronkeeper.domain.placement import Assignment, WorkerInfo
from cronkeeper.domain.run import UNSUCCESSFUL, Run, RunState
from cronkeeper.errors import FencedError, StaleWriteError, UnavailableError
from cronkeeper.ports import (
    AuditMark,
    Cordon,
    Event,
    Fire,
    JobVersion,
    Missed,
    MoveRequest,
    NamespacePolicy,
    RequestKey,
    Secret,
    Token,
)
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.trail import Entry, Link


@dataclass(slots=True)
class LeaseRow:
    info: WorkerInfo
    #: The incarnation that the leader declared lost last.
    lost: str
    #: By the store's clock; None once it was released.
    beat_ms: int | None
    clock_offset_ms: int


@dataclass(slots=True)
class AnswerRow:
    body_digest: str
    nonce: str
    created_ms: int
    status: int = 0
    body: bytes = b""
    saved: tuple[str, ...] | None = None


@dataclass(slots=True)
class _Fault:
    method: str
    count: int
    landed: bool


class Memory:
    """The tables. Every public method of a sub-store runs inside `call`, and so under the lock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.jobs: dict[int, Job] = {}
        self.spoilt: set[int] = set()
        self.last_job_id = 0
        self.heads: dict[int, Run] = {}
        self.runs: dict[RunKey, Run] = {}
        self.output: dict[RunKey, dict[int, bytes]] = {}
        self.leases: dict[str, LeaseRow] = {}
        self.term = 0
        self.assignments: dict[TaskId, Assignment] = {}
        self.move_requests: dict[TaskId, MoveRequest] = {}
        self.cordons: dict[str, Cordon] = {}
        self.tokens: list[Token] = []
        self.policies: dict[str, NamespacePolicy] = {}
        #: (namespace, token): (minute, count).
        self.creates: dict[tuple[str, str], tuple[int, int]] = {}
        self.answers: dict[tuple[str, str], AnswerRow] = {}
        self.events: list[Event] = []
        self.secrets: dict[tuple[str, str], Secret] = {}
        self.failing: dict[int, str] = {}
        self.versions: dict[tuple[int, int, JobState], JobVersion] = {}
        self.missed: dict[Fire, Missed] = {}
        self.audit_mark = AuditMark()
        self.trail_inbox: list[Entry] = []
        self.trail: list[Link] = []
        self.calendars: dict[tuple[str, str], NamedCalendar] = {}
        self._lock = threading.RLock()
        self._available = True
        self._faults: list[_Fault] = []
        self._calls: Counter[str] = Counter()

    @contextmanager
    def call(self, method: str) -> Iterator[None]:
        """Do one method under the lock, or raise UnavailableError as the test has asked."""
        with self._lock:
            self._calls[method] += 1
            fault = self._fault_of(method)
            if not self._available or (fault is not None and not fault.landed):
                raise UnavailableError(f"{method}: the store in memory was told to be away")
            yield
            if fault is not None:
                raise UnavailableError(f"{method}: the store in memory was told to lose the answer")

    def set_available(self, available: bool) -> None:
        with self._lock:
            self._available = available

    def fail_next(self, method: str, *, count: int, landed: bool) -> None:
        with self._lock:
            self._faults.append(_Fault(method, count, landed))

    def calls(self, method: str) -> int:
        with self._lock:
            return self._calls[method] if method else self._calls.total()

    def spoil_job(self, job_id: int) -> None:
        with self._lock:
            self.spoilt.add(job_id)

    def hold_term(self, term: int) -> None:
        if term != self.term:
            raise FencedError(f"term {term} is over")

    def remember(self, job: Job) -> None:
        """Keep the job as it is now, for the auditor."""
        version = JobVersion(job.id, job.generation, job.state, job.updated_ms, job.effective_from_ms, job.spec)
        self.versions[job.id, job.generation, job.state] = version

    def note(self, entries: Iterable[Entry | None]) -> None:
        """Add entries to the trail's inbox, each once; None stands for a write that nobody asked for."""
        known = {entry.nonce for entry in self.trail_inbox}
        self.trail_inbox += [entry for entry in entries if entry is not None and entry.nonce not in known]

    def note_failure(self, run: Run) -> None:
        """Note the job of a run that has failed, if a leader acts on it."""
        job = self.jobs.get(run.key.task.job_id)
        if job is None or not job.spec.watched:
            return
        if run.state in UNSUCCESSFUL:
            self.failing[job.id] = secrets.token_hex(16)

    def open_answer(self, request: RequestKey) -> AnswerRow | None:
        """Return the row of a request that is still this one's and has saved nothing."""
        row = self.answers.get((request.scope, request.key))
        return row if row is not None and row.nonce == request.nonce and not row.status and row.saved is None else None

    def note_saved(self, saved: Sequence[tuple[RequestKey | None, Sequence[str]]]) -> None:
        """Name what requests save; StaleWriteError, and nothing is named, when one of them was taken over."""
        rows = [(self.open_answer(request), tuple(ids)) for request, ids in saved if request is not None]
        if any(row is None for row, _ in rows):
            raise StaleWriteError("another server has taken this request over")
        for row, ids in rows:
            if row is not None:
                row.saved = ids

    def with_last_run(self, job: Job) -> Job:
        """Return the job with its last run, as a read shows it."""
        head = self.heads.get(job.id)
        last = None if head is None else LastRun(head.id, head.key.fire_ms, head.state, head.ended_ms)
        return replace(job, last_run=last)

    def move_head(self, run: Run) -> None:
        """Remember the run as its job's last one, unless a newer one is known or this one was never started."""
        never = run.state in (RunState.PENDING, RunState.CLAIMED, RunState.SKIPPED)
        if never or (run.state is RunState.CANCELLED and run.started_ms is None):
            return
        known = self.heads.get(run.key.task.job_id)
        if known is None or _order(known.key) <= _order(run.key):
            self.heads[run.key.task.job_id] = run

    def _fault_of(self, method: str) -> _Fault | None:
        for fault in self._faults:
            if fault.method in ("", method):
                fault.count -= 1
                if fault.count <= 0:
                    self._faults.remove(fault)
                return fault
        return None


def uses_of(job: Job) -> dict[str, str]:
    """Return the calendars that a job names, with the digest of its copy of each."""
    copies = job.spec.named_dates
    named = () if job.spec.calendar is None else job.spec.calendar.named
    return {name: copies[name].digest if name in copies else "" for name in named}


def _order(key: RunKey) -> tuple[int, int, int]:
    return (key.fire_ms, key.attempt, key.task.shard)
