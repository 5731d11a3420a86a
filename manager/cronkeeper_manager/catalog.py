"""The jobs as the leader holds them: 100,000 rows turned into plannable tasks, and kept so between refreshes. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cronkeeper.domain.ids import TaskId, node_shard
from cronkeeper.domain.job import MAX_SHARDS, JobState
from cronkeeper.domain.labels import Selector, parse_selector
from cronkeeper.domain.schedule import is_reboot, parse_schedule
from cronkeeper.ports import PlanRow
from cronkeeper_manager.load import MIN_LOAD, expected_load
from cronkeeper_manager.world import PlanTask


@dataclass(frozen=True, slots=True)
class Catalog:
    """All jobs as of one refresh. A new one is made for every change; an unchanged refresh returns the same object."""

    rows: Mapping[int, PlanRow] = field(default_factory=dict)
    #: The tasks that shall have a worker: those of active and paused jobs, unless they were withdrawn.
    tasks: Mapping[TaskId, PlanTask] = field(default_factory=dict)
    #: Job -> why its row cannot be planned with. Its tasks stay where they are.
    bad: Mapping[int, str] = field(default_factory=dict)
    #: Active jobs that fire once -> when.
    once: Mapping[int, int] = field(default_factory=dict)
    #: Jobs of which each node that fits has a task of its own (`@reboot`) -> what those tasks are like.
    everywhere: Mapping[int, PlanTask] = field(default_factory=dict)
    #: Such jobs -> the nodes' tasks, as far as the nodes are known: see `on_nodes`.
    of_nodes: Mapping[int, tuple[TaskId, ...]] = field(default_factory=dict)
    #: Workers that have no such tasks, as another has the same shard -> that other.
    twins: Mapping[str, str] = field(default_factory=dict)

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
        return after if bad == after.bad else replace(after, bad=bad)

    def on_nodes(self, labels: Mapping[str, Mapping[str, str] | None]) -> Catalog:
        """Return the catalog with a task for each of these nodes that fits, of each job that runs everywhere.

        What is not known of a node (None) does not speak against it. It is to be asked again of the catalog without.
        """
        if not self.everywhere:
            return self
        shards: dict[int, str] = {}
        found = {worker: shards.setdefault(node_shard(worker), worker) for worker in sorted(labels)}
        tasks, of_nodes = dict(self.tasks), {}
        for job_id, like in self.everywhere.items():
            fitting = {TaskId(job_id, shard): w for shard, w in shards.items() if _fits(like.selector, labels[w])}
            of_nodes[job_id] = tuple(fitting)
            tasks.update((task_id, replace(like, id=task_id, only=w)) for task_id, w in fitting.items())
        twins = {worker: first for worker, first in found.items() if worker != first}
        return replace(self, tasks=tasks, of_nodes=of_nodes, twins=twins)

    def tasks_of(self, job_id: int) -> list[TaskId]:
        """Return the tasks that the job shall have."""
        if job_id in self.of_nodes:
            return list(self.of_nodes[job_id])
        row = self.rows.get(job_id)
        return [] if row is None or not _is_placed(row) else _task_ids(row)

    def is_known(self, task: TaskId) -> bool:
        """Say whether the job exists; what is not known here may be newer than the last refresh."""
        return task.job_id in self.rows or task.job_id in self.bad

    def _with(self, fresh: Iterable[PlanRow], gone: Iterable[int]) -> Catalog:
        draft = _Draft(dict(self.rows), dict(self.tasks), dict(self.bad), dict(self.once), dict(self.everywhere))
        for job_id in gone:
            _forget(draft.rows.pop(job_id), draft)
        for row in fresh:
            if row.job_id in draft.rows:
                _forget(draft.rows[row.job_id], draft)
            draft.rows[row.job_id] = row
            _add(row, draft)
        return Catalog(draft.rows, draft.tasks, draft.bad, draft.once, draft.everywhere)


@dataclass(slots=True)
class _Draft:
    """A catalog in the making."""

    rows: dict[int, PlanRow]
    tasks: dict[TaskId, PlanTask]
    bad: dict[int, str]
    once: dict[int, int]
    everywhere: dict[int, PlanTask]


def _forget(row: PlanRow, draft: _Draft) -> None:
    for task_id in _task_ids(row):
        draft.tasks.pop(task_id, None)
    draft.bad.pop(row.job_id, None)
    draft.once.pop(row.job_id, None)
    draft.everywhere.pop(row.job_id, None)


def _add(row: PlanRow, draft: _Draft) -> None:
    # An unreadable row may have become readable.
    draft.bad.pop(row.job_id, None)
    if not _is_placed(row):
        return
    load, selector, held = MIN_LOAD, None, False
    try:
        load, at_ms = _load_and_instant(row.schedule, row.timezone)
        selector = None if row.selector is None else _selector(row.selector)
        if at_ms is not None and row.state is JobState.ACTIVE:
            draft.once[row.job_id] = at_ms
    except ValueError as exc:
        # Written by hand or by a newer version. The others must not suffer, and its worker may know better than we do.
        draft.bad[row.job_id], held = str(exc), True
    for task_id in _task_ids(row):
        draft.tasks[task_id] = PlanTask(task_id, row.generation, load, selector, held, keys=_same(row.secrets_keys))
    if is_reboot(row.schedule):
        # No load: a node that is full starts like any other.
        draft.everywhere[row.job_id] = PlanTask(TaskId(row.job_id, 0), row.generation, 0.0, selector, held)


def _is_placed(row: PlanRow) -> bool:
    return row.state is not JobState.FINISHED and not row.withdrawn


def _task_ids(row: PlanRow) -> list[TaskId]:
    count = 0 if is_reboot(row.schedule) else min(max(row.shards, 1), MAX_SHARDS)
    return [TaskId(row.job_id, shard) for shard in range(count)]


def _fits(selector: Selector | None, labels: Mapping[str, str] | None) -> bool:
    return selector is None or labels is None or selector.matches(labels)


@lru_cache(maxsize=65_536)
def _load_and_instant(text: str, timezone: str) -> tuple[float, int | None]:
    """Return the schedule's load, and the instant of its last fire when it consists of `@at`. Raises ValueError."""
    schedule = parse_schedule(text, timezone)
    return expected_load(schedule), schedule.last_ms


@lru_cache(maxsize=1024)
def _same(keys: frozenset[str]) -> frozenset[str]:
    """Return one object for all that are equal."""
    return keys


@lru_cache(maxsize=8192)
def _selector(text: str) -> Selector:
    return parse_selector(text)
