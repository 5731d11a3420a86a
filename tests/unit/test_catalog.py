"""The leader's catalog of jobs: what changes, what stays, and what cannot be read."""

from __future__ import annotations

from dataclasses import replace

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.ports import PlanRow
from cronkeeper_manager.catalog import Catalog
from cronkeeper_manager.load import MIN_LOAD
from cronkeeper_manager.observe import Snapshot, build_world
from cronkeeper_manager.planner import plan

_AT_MS = 1_798_761_600_000  # 2027-01-01T00:00:00Z


def row(job_id: int, schedule: str = "* * * * *", *, shards: int = 1, selector: str | None = None) -> PlanRow:
    return PlanRow(job_id, 1, JobState.ACTIVE, shards, selector, schedule, "UTC", 0, 0)


def catalog(*rows: PlanRow) -> Catalog:
    return Catalog().replaced(rows, [item.job_id for item in rows])


def snapshot(jobs: Catalog, assigned: dict[str, set[TaskId]]) -> Snapshot:
    return Snapshot(
        now_ms=0,
        now_s=0.0,
        full=True,
        fresh=True,
        ready=True,
        sessions={},
        nodes={},
        stale_nodes=set(),
        leases={},
        mysql_ok_s=0.0,
        catalog=jobs,
        names=set(),
        assigned=assigned,
        owned=assigned,
        copies={},
        last={},
        requests={},
        known=set(assigned),
    )


def test_tasks_have_load_selector_and_generation() -> None:
    found = catalog(row(1, "@every 30s", shards=2, selector="zone=x"))

    assert sorted(found.tasks) == [TaskId(1, 0), TaskId(1, 1)]
    task = found.tasks[TaskId(1, 0)]
    assert (task.load, str(task.selector), task.generation, task.held) == (2.0, "zone=x", 1, False)


def test_equal_selectors_are_one_object() -> None:
    found = catalog(row(1, selector="zone=x"), row(2, selector="zone=x"))

    assert found.tasks[TaskId(1, 0)].selector is found.tasks[TaskId(2, 0)].selector


def test_unchanged_rows_leave_the_catalog_as_it_is() -> None:
    found = catalog(row(1), row(2))

    assert found.updated([row(1)]) is found
    assert found.replaced([row(1), row(2)], [1, 2]) is found


def test_changed_row_replaces_its_tasks() -> None:
    found = catalog(row(1, shards=3), row(2)).updated([replace(row(1), generation=2)])

    assert sorted(found.tasks) == [TaskId(1, 0), TaskId(2, 0)]
    assert found.tasks[TaskId(1, 0)].generation == 2


def test_finished_and_removed_jobs_have_no_tasks_and_paused_ones_do() -> None:
    finished, paused = replace(row(1), state=JobState.FINISHED), replace(row(2), state=JobState.PAUSED)
    found = catalog(row(1), row(2), row(3)).updated([finished, paused]).replaced([finished, paused], [1, 2])

    assert sorted(found.tasks) == [TaskId(2, 0)]
    assert found.is_known(TaskId(1, 0))
    assert not found.is_known(TaskId(3, 0))


def test_jobs_that_fire_once_are_known_until_they_do_not() -> None:
    found = catalog(row(1, "@at 2027-01-01T00:00:00Z"), row(2))

    assert found.once == {1: _AT_MS}
    assert found.updated([row(1)]).once == {}


def test_row_that_cannot_be_planned_with_is_held_and_told_until_it_is_mended() -> None:
    found = catalog(row(1, "rubbish"), row(2, selector="(("), row(3))

    assert set(found.bad) == {1, 2}
    assert [found.tasks[TaskId(n, 0)].held for n in (1, 2, 3)] == [True, True, False]
    assert found.tasks[TaskId(1, 0)].load == MIN_LOAD
    assert found.updated([row(1), row(2)]).bad == {}


def test_job_without_a_readable_row_stays_where_it_is() -> None:
    found = catalog(row(1), row(2)).replaced([row(2)], [1, 2])
    here = snapshot(found, {"a": {TaskId(1, 0), TaskId(2, 0)}})

    assert found.bad == {1: "its row cannot be read"}
    assert plan(build_world(here, {})) == []
    assert found.replaced([row(1), row(2)], [1, 2]).bad == {}


def test_job_that_is_gone_does_not_stay() -> None:
    found = catalog(row(1), row(2)).replaced([row(2)], [2])
    here = snapshot(found, {"a": {TaskId(1, 0), TaskId(2, 0)}})

    assert [move.task for move in plan(build_world(here, {}))] == [TaskId(1, 0)]
