"""The ledger in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import (
    ACTIVE,
    TERMINAL,
    Reason,
    Run,
    RunEvent,
    RunState,
    Trigger,
    advance,
    may_go,
    outweighs,
    reachable_from,
)
from cronkeeper.errors import ConflictError, NotFoundError
from cronkeeper.ports import LastFire, RequestKey, Span
from cronkeeper.testing.memory_store_state import Memory
from cronkeeper.wire.trail import Entry

_OVER = TERMINAL | {RunState.LOST}
_NEVER_TAKEN_BACK = frozenset({"key", "trigger", "state"})
_MAX_CHUNK_BYTES = 65_536


class MemoryRunStore:
    """See cronkeeper.ports.RunStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def claim(self, runs: Sequence[Run]) -> dict[RunKey, bool]:
        with self._memory.call("runs.claim"):
            for run in runs:
                if not self._is_outdated(run):
                    self._memory.runs.setdefault(run.key, run)
            stored = [(run, self._memory.runs.get(run.key)) for run in runs]
            return {
                run.key: row is not None and row.nonce == run.nonce and row.state is not RunState.LOST
                for run, row in stored
            }

    def _is_outdated(self, run: Run, *, after_assignment: bool = False) -> bool:
        given = self._memory.assignments.get(run.key.task)
        if given is None or given.worker in ("", run.worker) or given.epoch <= run.fence:
            return False
        return not after_assignment or run.key.fire_ms > given.assigned_ms

    def record(self, runs: Sequence[Run]) -> list[RunKey]:
        with self._memory.call("runs.record"):
            kept = [run for run in runs if not (run.is_skip and self._is_outdated(run, after_assignment=True))]
            return sorted({run.key for run in kept if not self._record(run)})

    def get(self, key: RunKey) -> Run:
        with self._memory.call("runs.get"):
            return self._stored(key)

    def history(self, job_id: int, *, limit: int, before: RunKey | None = None) -> list[Run]:
        with self._memory.call("runs.history"):
            runs = [run for run in self._memory.runs.values() if run.key.task.job_id == job_id]
            older = [run for run in runs if before is None or place(run.key) < place(before)]
            return sorted(older, key=lambda run: place(run.key), reverse=True)[:limit]

    def at(self, job_id: int, fire_ms: int) -> list[Run]:
        with self._memory.call("runs.at"):
            runs = self._memory.runs.values()
            found = [run for run in runs if (run.key.task.job_id, run.key.fire_ms) == (job_id, fire_ms)]
            return sorted(found, key=lambda run: run.key)

    def last_fires(self, tasks: Mapping[TaskId, Span]) -> dict[TaskId, LastFire]:
        with self._memory.call("runs.last_fires"):
            fires: dict[TaskId, int] = {}
            newest: dict[TaskId, Run] = {}
            for run in self._of(list(tasks), RunState):
                early_ms, until_ms = tasks[run.key.task]
                counts = run.state is not RunState.SKIPPED or run.key.fire_ms <= early_ms
                scheduled = run.trigger is not Trigger.MANUAL and run.key.attempt == 1
                if scheduled and counts and run.key.fire_ms <= until_ms:
                    fires[run.key.task] = run.key.fire_ms
                if run.state is not RunState.PENDING and run.generation:
                    newest[run.key.task] = run
            return {
                task: LastFire(fires.get(task), newest[task].generation if task in newest else 0)
                for task in fires.keys() | newest.keys()
            }

    def open_runs(self, tasks: Sequence[TaskId]) -> list[Run]:
        with self._memory.call("runs.open_runs"):
            return self._of(tasks, ACTIVE)

    def lost_runs(self, tasks: Sequence[TaskId], *, since_ms: int) -> list[Run]:
        with self._memory.call("runs.lost_runs"):
            return self._latest(tasks, {RunState.LOST}, since_ms)

    def failed_runs(self, tasks: Sequence[TaskId], *, since_ms: int) -> list[Run]:
        with self._memory.call("runs.failed_runs"):
            return self._latest(tasks, {RunState.FAILED, RunState.TIMED_OUT}, since_ms)

    def request(self, *runs: Run, trail: Sequence[Entry] = (), request: RequestKey | None = None) -> None:
        with self._memory.call("runs.request"):
            if any(run.key in self._memory.runs for run in runs):
                raise ConflictError("one of these runs is there already")
            self._memory.note_saved([(request, [run.id for run in runs])])
            self._memory.runs.update({run.key: run for run in runs})
            self._memory.note(trail)

    def request_many(self, runs: Sequence[Run], *, trail: Sequence[Entry] = ()) -> dict[RunKey, bool]:
        with self._memory.call("runs.request_many"):
            self._memory.note(trail)
            stored = {run.key: self._memory.runs.setdefault(run.key, run) for run in runs}
            return {run.key: stored[run.key].nonce == run.nonce for run in runs}

    def pending(self, tasks: Sequence[TaskId]) -> list[Run]:
        with self._memory.call("runs.pending"):
            return may_go(self._of(tasks, {RunState.PENDING}), self._of(tasks, ACTIVE))

    def last_durations(self) -> dict[int, int]:
        with self._memory.call("runs.last_durations"):
            heads = ((job_id, self._memory.runs.get(head.key)) for job_id, head in self._memory.heads.items())
            return {
                job_id: run.ended_ms - run.started_ms
                for job_id, run in heads
                if run is not None and run.started_ms is not None and run.ended_ms is not None
            }

    def claim_pending(self, run: Run) -> bool:
        with self._memory.call("runs.claim_pending"):
            stored = self._memory.runs.get(run.key)
            if stored is None:
                return False
            if stored.state is not RunState.PENDING:
                return stored.nonce == run.nonce and stored.state is not RunState.LOST
            self._memory.runs[run.key] = stored.evolve(
                state=run.state,
                worker=run.worker,
                nonce=run.nonce,
                generation=run.generation,
                fence=run.fence,
                claimed_ms=run.claimed_ms,
                autonomous=run.autonomous,
            )
            return True

    def request_cancel(self, key: RunKey, *, trail: Sequence[Entry] = ()) -> Run:
        with self._memory.call("runs.request_cancel"):
            run = self._stored(key)
            if run.state in _OVER:
                raise ConflictError(f"run {key} is over: {run.state}")
            asked = run.evolve(cancel_requested=True)
            if run.state is RunState.PENDING:
                state = advance(run.state, RunEvent.CANCEL)
                asked = asked.evolve(state=state, reason=Reason.REQUESTED, ended_ms=self._memory.clock.now_ms())
            self._memory.runs[key] = asked
            self._memory.note(trail)
            return asked

    def cancellations(self, worker: str) -> list[RunKey]:
        with self._memory.call("runs.cancellations"):
            active = (run for run in self._memory.runs.values() if run.state in ACTIVE and run.worker == worker)
            return sorted(run.key for run in active if run.cancel_requested)

    def give_up(self, runs: Sequence[Run]) -> list[RunKey]:
        with self._memory.call("runs.give_up"):
            lost = set()
            for run in runs:
                stored = self._memory.runs.get(run.key)
                if stored is None or stored.nonce != run.nonce or stored.state not in (RunState.CLAIMED, RunState.LOST):
                    continue
                if stored.state is RunState.CLAIMED:
                    self._put(stored.evolve(state=advance(stored.state, RunEvent.LOSE), reason=run.reason))
                lost.add(run.key)
            return sorted(lost)

    def lose(self, worker: str, *, term: int, reason: str) -> list[Run]:
        with self._memory.call("runs.lose"):
            why = Reason(reason)
            self._memory.hold_term(term)
            active = [run for run in self._memory.runs.values() if run.state in ACTIVE and run.worker == worker]
            given_up = [run.evolve(state=advance(run.state, RunEvent.LOSE), reason=why) for run in active]
            for run in given_up:
                self._put(run)
            return sorted(given_up, key=lambda run: run.key)

    def append_output(self, key: RunKey, *, offset: int, data: bytes) -> None:
        with self._memory.call("runs.append_output"):
            if len(data) > _MAX_CHUNK_BYTES:
                raise ValueError(f"a chunk of output has at most {_MAX_CHUNK_BYTES} bytes, not {len(data)}")
            if data:
                self._memory.output.setdefault(key, {})[offset] = data

    def read_output(self, key: RunKey, *, offset: int, limit: int) -> bytes:
        with self._memory.call("runs.read_output"):
            found = b""
            for start, data in sorted(self._memory.output.get(key, {}).items()):
                at = offset + len(found)
                if start <= at < start + len(data):
                    found += data[at - start :]
            return found[:limit]

    def purge(self, *, before_ms: int, limit: int) -> int:
        with self._memory.call("runs.purge"):
            heads = {(job_id, head.key.fire_ms) for job_id, head in self._memory.heads.items()}
            old = [run for run in self._memory.runs.values() if run.key.fire_ms < before_ms and run.state in _OVER]
            free = [run.key for run in old if (run.key.task.job_id, run.key.fire_ms) not in heads]
            chosen = sorted(free, key=lambda key: key.fire_ms)[:limit]
            for key in chosen:
                del self._memory.runs[key]
                self._memory.output.pop(key, None)
            self._memory.events = [event for event in self._memory.events if event.at_ms >= before_ms]
            answers = self._memory.answers.items()
            self._memory.answers = {key: row for key, row in answers if row.created_ms >= before_ms}
            return len(chosen)

    def _record(self, run: Run) -> bool:
        """Bring a row to a later state; False when it belongs to another nonce."""
        stored = self._memory.runs.get(run.key)
        if stored is None:
            self._put(run)
            return True
        if outweighs(run, stored):
            self._put(run)
            return True
        if stored.state is not RunState.PENDING and stored.nonce != run.nonce:
            return False
        state = run.state
        if stored.state is RunState.LOST and state in (RunState.TIMED_OUT, RunState.CANCELLED):
            state = RunState.FAILED
        if state is not stored.state and state in reachable_from(stored.state):
            self._put(_merge(stored, run).evolve(state=state))
        else:
            self._memory.move_head(stored)
        return self._memory.runs[run.key].nonce == run.nonce

    def _put(self, run: Run) -> None:
        self._memory.runs[run.key] = run
        self._memory.move_head(run)
        self._memory.note_failure(run)

    def _stored(self, key: RunKey) -> Run:
        run = self._memory.runs.get(key)
        if run is None:
            raise NotFoundError(f"there is no run {key}")
        return run

    def _of(self, tasks: Sequence[TaskId], states: Collection[RunState] | type[RunState]) -> list[Run]:
        wanted, runs = set(tasks), self._memory.runs.values()
        return sorted((run for run in runs if run.key.task in wanted and run.state in states), key=lambda run: run.key)

    def _latest(self, tasks: Sequence[TaskId], states: Collection[RunState], since_ms: int) -> list[Run]:
        found = self._of(tasks, states)
        return [run for run in found if run.key.fire_ms >= since_ms and not self._has_later_attempt(run.key)]

    def _has_later_attempt(self, key: RunKey) -> bool:
        keys = self._memory.runs
        return any((k.task, k.fire_ms) == (key.task, key.fire_ms) and k.attempt > key.attempt for k in keys)


def _merge(stored: Run, report: Run) -> Run:
    """Return the stored run with what the report knows; what the report does not know stays."""
    changes = {}
    for field in fields(Run):
        old, new = getattr(stored, field.name), getattr(report, field.name)
        if field.name in _NEVER_TAKEN_BACK or new is None or new in ("", 0, False):
            continue
        changes[field.name] = max(old, new) if field.name == "output_bytes" else new
    if report.exit_code is not None:
        changes["exit_code"] = report.exit_code
    return stored.evolve(**changes)


def place(key: RunKey) -> tuple[int, int, int]:
    """Return where in a job's history a run stands."""
    return (key.fire_ms, key.task.shard, key.attempt)
