"""The jobs as the leader holds them: 100,000 rows turned into plannable tasks, and kept so between refreshes. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import MAX_SHARDS, JobState
from cronkeeper.domain.labels import Selector, parse_selector
from cronkeeper.domain.schedule import parse_schedule
from cronkeeper.ports import PlanRow
from cronkeeper_manager.load import MIN_LOAD, expected_load
from cronkeeper_manager.planner import PlanTask


@dataclass(frozen=True, slots=True)
class Catalog:
    """All jobs as of one refresh. A new one is made for every change; an unchanged refresh returns the same object."""

    rows: Mapping[int, PlanRow] = field(default_factory=dict)
    #: The tasks that shall have a worker: those of active and paused jobs.
    tasks: Mapping[TaskId, PlanTask] = field(default_factory=dict)
    #: Job -> why its row cannot be planned with. Its tasks stay where they are.
    bad: Mapping[int, str] = field(default_factory=dict)
    #: Active jobs that fire once -> when.
    once: Mapping[int, int] = field(default_factory=dict)

    def updated(self, changed: Iterable[PlanRow]) -> Catalog:
        """Return the catalog with these rows new or changed."""
        fresh = [row for row in changed if self.rows.get(row.job_id) != row]
        return self._with(fresh, ()) if fresh else self

    def replaced(self, everything: Iterable[PlanRow], job_ids: Iterable[int]) -> Catalog:
        """Return the catalog of exactly these rows.

        `job_ids` (read before the rows) are the jobs that exist: one without a row has a row that cannot be read.
        """
        rows = {row.job_id: row for row in everything}
        unreadable = {job_id: "its row cannot be read" for job_id in job_ids if job_id not in rows}
        gone = [job_id for job_id in self.rows if job_id not in rows]
        fresh = [row for row in rows.values() if self.rows.get(row.job_id) != row]
        after = self._with(fresh, gone) if fresh or gone else self
        bad = {job_id: why for job_id, why in after.bad.items() if job_id in rows} | unreadable
        return after if bad == after.bad else Catalog(after.rows, after.tasks, bad, after.once)

    def tasks_of(self, job_id: int) -> list[TaskId]:
        """Return the tasks that the job shall have."""
        row = self.rows.get(job_id)
        return [] if row is None or row.state is JobState.FINISHED else _task_ids(row)

    def is_known(self, task: TaskId) -> bool:
        """Say whether the job exists; what is not known here may be newer than the last refresh."""
        return task.job_id in self.rows or task.job_id in self.bad

    def _with(self, fresh: Iterable[PlanRow], gone: Iterable[int]) -> Catalog:
        rows, tasks, bad, once = dict(self.rows), dict(self.tasks), dict(self.bad), dict(self.once)
        for job_id in gone:
            _forget(rows.pop(job_id), tasks, bad, once)
        for row in fresh:
            if row.job_id in rows:
                _forget(rows[row.job_id], tasks, bad, once)
            rows[row.job_id] = row
            _add(row, tasks, bad, once)
        return Catalog(rows, tasks, bad, once)


def _forget(row: PlanRow, tasks: dict[TaskId, PlanTask], bad: dict[int, str], once: dict[int, int]) -> None:
    for task_id in _task_ids(row):
        tasks.pop(task_id, None)
    bad.pop(row.job_id, None)
    once.pop(row.job_id, None)


def _add(row: PlanRow, tasks: dict[TaskId, PlanTask], bad: dict[int, str], once: dict[int, int]) -> None:
    # An unreadable row may have become readable.
    bad.pop(row.job_id, None)
    if row.state is JobState.FINISHED:
        return
    load, selector, held = MIN_LOAD, None, False
    try:
        load, at_ms = _load_and_instant(row.schedule, row.timezone)
        selector = None if row.selector is None else _selector(row.selector)
        if at_ms is not None and row.state is JobState.ACTIVE:
            once[row.job_id] = at_ms
    except ValueError as exc:
        # Written by hand or by a newer version. The others must not suffer, and its worker may know better than we do.
        bad[row.job_id], held = str(exc), True
    for task_id in _task_ids(row):
        tasks[task_id] = PlanTask(task_id, row.generation, load, selector, held)


def _task_ids(row: PlanRow) -> list[TaskId]:
    return [TaskId(row.job_id, shard) for shard in range(min(max(row.shards, 1), MAX_SHARDS))]


@lru_cache(maxsize=65_536)
def _load_and_instant(text: str, timezone: str) -> tuple[float, int | None]:
    """Return the schedule's load, and the instant of its last fire when it consists of `@at`. Raises ValueError."""
    schedule = parse_schedule(text, timezone)
    return expected_load(schedule), schedule.last_ms


@lru_cache(maxsize=8192)
def _selector(text: str) -> Selector:
    return parse_selector(text)
