"""Leases, terms, assignments, move requests and cordons in memory."""

from __future__ import annotations

from collections.abc import Sequence

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, Lease, WorkerInfo
from cronkeeper.ports import Beat, Cordon, MoveRequest
from cronkeeper.testing.memory_store_state import LeaseRow, Memory
from cronkeeper.wire.trail import Entry


class MemoryLeaseStore:
    """See cronkeeper.ports.LeaseStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def beat(self, info: WorkerInfo, *, local_ms: int) -> Beat:
        with self._memory.call("leases.beat"):
            now = self._memory.clock.now_ms()
            offset = local_ms - now
            stored = self._memory.leases.get(info.id)
            lost = "" if stored is None else stored.lost
            if lost and lost == info.epoch:
                return Beat(offset, lost=True)
            self._memory.leases[info.id] = LeaseRow(info, lost, now, offset)
            return Beat(offset, lost=False)

    def leases(self) -> list[Lease]:
        with self._memory.call("leases.leases"):
            rows = sorted(self._memory.leases.items())
            return [
                Lease(worker, row.info.epoch, self._age(row), row.lost == row.info.epoch, row.clock_offset_ms, row.info)
                for worker, row in rows
            ]

    def declare_lost(self, worker: str, *, incarnation: str, stale_ms: int, term: int) -> bool:
        with self._memory.call("leases.declare_lost"):
            self._memory.hold_term(term)
            row = self._memory.leases.get(worker)
            if row is None or row.info.epoch != incarnation:
                return False
            if row.lost != incarnation and self._age(row) < stale_ms:
                return False
            row.lost = incarnation
            return True

    def release(self, worker: str, *, incarnation: str) -> None:
        with self._memory.call("leases.release"):
            row = self._memory.leases.get(worker)
            if row is not None and row.info.epoch == incarnation:
                row.beat_ms = None

    def _age(self, row: LeaseRow) -> int:
        """Return the age by the store's clock; of a released lease, the time since 1970, as in the database."""
        return max(0, self._memory.clock.now_ms() - (row.beat_ms or 0))


class MemoryTermStore:
    """See cronkeeper.ports.TermStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def take(self, holder: str) -> int:
        with self._memory.call("terms.take"):
            self._memory.term += 1
            return self._memory.term

    def hold(self, term: int) -> None:
        with self._memory.call("terms.hold"):
            self._memory.hold_term(term)


class MemoryAssignmentStore:
    """See cronkeeper.ports.AssignmentStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def load(self) -> dict[TaskId, Assignment]:
        with self._memory.call("assignments.load"):
            return dict(self._memory.assignments)

    def save(self, assignments: Sequence[Assignment], *, term: int) -> None:
        with self._memory.call("assignments.save"):
            self._memory.hold_term(term)
            self._memory.assignments.update({item.task: item for item in assignments})

    def workers_of(self, job_ids: Sequence[int]) -> dict[int, list[str]]:
        with self._memory.call("assignments.workers_of"):
            found: dict[int, set[str]] = {}
            for item in self._memory.assignments.values():
                if item.worker and item.task.job_id in job_ids:
                    found.setdefault(item.task.job_id, set()).add(item.worker)
            return {job_id: sorted(workers) for job_id, workers in found.items()}

    def forget(self, job_ids: Sequence[int], *, term: int) -> None:
        with self._memory.call("assignments.forget"):
            self._memory.hold_term(term)
            kept = self._memory.assignments.items()
            self._memory.assignments = {task: item for task, item in kept if task.job_id not in job_ids}


class MemoryMoveRequestStore:
    """See cronkeeper.ports.MoveRequestStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def add(self, requests: Sequence[MoveRequest], *, trail: Sequence[Entry] = ()) -> None:
        with self._memory.call("move_requests.add"):
            self._memory.move_requests.update({item.task: item for item in requests})
            self._memory.note(trail)

    def all(self) -> dict[TaskId, MoveRequest]:
        with self._memory.call("move_requests.all"):
            return dict(self._memory.move_requests)

    def drop(self, tasks: Sequence[TaskId], *, term: int) -> None:
        with self._memory.call("move_requests.drop"):
            self._memory.hold_term(term)
            for task in tasks:
                self._memory.move_requests.pop(task, None)


class MemoryCordonStore:
    """See cronkeeper.ports.CordonStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def save(self, cordon: Cordon, *, trail: Sequence[Entry] = ()) -> None:
        with self._memory.call("cordons.save"):
            self._memory.cordons[cordon.worker] = cordon
            self._memory.note(trail)

    def all(self) -> dict[str, Cordon]:
        with self._memory.call("cordons.all"):
            return dict(self._memory.cordons)
