"""The leader on the doubles that we ship: wipes, healing, bad rows, wishes, and the ends of jobs and runs."""

from __future__ import annotations

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.domain.placement import MoveReason, NodeInfo
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import FencedError, UnavailableError
from cronkeeper.ports import Cordon, MoveRequest
from cronkeeper.wire.znodes import QueuedRun
from tests.unit.manager_town import NOON_MS, Manager, Town

_DAY_MS = 86_400_000


def settled_town(*workers: str, jobs: int = 6) -> Town:
    town = Town(*workers)
    for _ in range(jobs):
        town.create()
    town.run(12)
    return town


# ------------------------------------------------------------------------------------------------------------ wiping


def test_wiped_zookeeper_is_rebuilt_without_a_move() -> None:
    town = settled_town("a", "b", "c", jobs=12)
    before = town.homes()
    town.ensemble.wipe()
    with pytest.raises(FencedError):
        town.managers[0].step()
    town.managers = [Manager(town, "m2")]
    town.run(20)

    assert town.homes() == before
    assert town.owners() == before
    assert town.eyes.is_ready()
    assert {item.reason for item in town.store.assignments.load().values()} == {MoveReason.RESTORE}
    assert town.eyes.task_names() == set(before)


def test_part_of_the_tree_that_was_wiped_comes_back_under_the_same_leader() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    for path in ("/tasks", "/assign", "/owned", "/nodes"):
        town.ensemble.remove(path)
    town.run(5)

    assert town.homes() == before
    assert town.owners() == before
    assert town.eyes.task_names() == set(before)


def test_assignments_that_somebody_took_away_come_back_in_seconds() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.run(50)
    assert town.homes() == before
    for path in [path for path in town.ensemble.snapshot() if path.startswith("/assign/a/")]:
        town.ensemble.remove(path)
    town.ensemble.remove("/assign/a")
    town.run(15)

    assert town.homes() == before
    assert town.owners() == before


def test_cordons_survive_a_wipe_under_the_same_leader() -> None:
    town = settled_town("a", "b")
    town.fleet.cordon("a")
    town.run(2)
    town.ensemble.remove("/nodes")
    town.ensemble.remove("/tasks")
    town.run(3)

    assert town.eyes.nodes()["a"].cordoned


def test_cordons_survive_a_wipe_and_the_end_of_the_leader_that_saw_them() -> None:
    town = settled_town("a", "b")
    town.fleet.cordon("a")
    town.ensemble.wipe()
    with pytest.raises(FencedError):
        town.managers[0].step()
    town.managers = [Manager(town, "m2")]
    town.run(20)
    assert town.eyes.nodes()["a"].cordoned
    town.fleet.uncordon("a")
    town.run(3)
    assert not town.eyes.nodes()["a"].cordoned


def test_a_drain_whose_news_is_lost_counts_all_the_same() -> None:
    town = settled_town("a", "b")
    town.store.cordons.save(Cordon("a", False, True, town.clock.now_ms()))
    town.run(5)
    assert town.eyes.nodes()["a"].draining
    assert set(town.homes().values()) == {"b"}


def test_absence_means_nothing_before_the_tree_is_complete() -> None:
    town = settled_town("a", "b")
    town.set_mysql(False)
    town.ensemble.remove("/tasks")
    for _ in range(10):
        town.clock.advance_ms(500)
        try:
            town.managers[0].step()
        except UnavailableError:
            continue

    assert not town.eyes.is_ready()


# ----------------------------------------------------------------------------------------------------------- healing


def test_missing_task_is_put_back() -> None:
    town = settled_town("a")
    tasks = town.eyes.task_names()
    town.eyes.drop_tasks(sorted(tasks)[:3])
    town.run(2)

    assert town.eyes.task_names() == tasks


def test_edit_that_zookeeper_was_not_told_of_is_told_by_the_leader() -> None:
    town = settled_town("a")
    job = town.edit(town.store.jobs.get(1), schedule="1 * * * *")
    town.run(1)

    assert town.eyes.read_tasks([TaskId(1, 0)]) == {TaskId(1, 0): job.envelope}


def test_task_that_somebody_overwrote_is_healed_within_two_minutes() -> None:
    town = settled_town("a")
    town.eyes.put_tasks({TaskId(1, 0): b"forged"})
    town.run(121)

    assert town.eyes.read_tasks([TaskId(1, 0)]) == {TaskId(1, 0): town.store.jobs.get(1).envelope}


def test_finished_job_is_revoked_released_and_then_dropped() -> None:
    town = settled_town("a", jobs=2)
    task = TaskId(1, 0)
    town.nodes["a"].answers = False
    town.edit(town.store.jobs.get(1), JobState.FINISHED)
    town.run(2)
    assert task not in town.homes()
    assert task in town.eyes.task_names(), "its worker has not let go of it yet"

    town.nodes["a"].answers = True
    town.run(2)
    assert town.eyes.task_names() == {TaskId(2, 0)}


def test_purged_job_leaves_nothing_behind() -> None:
    town = settled_town("a", jobs=2)
    town.store.jobs.delete(1)
    town.run(130)

    assert town.eyes.task_names() == {TaskId(2, 0)}
    assert set(town.homes()) == {TaskId(2, 0)}
    assert set(town.store.assignments.load()) == {TaskId(2, 0)}


def test_foreign_task_znode_is_dropped_only_after_a_full_look() -> None:
    town = settled_town("a", jobs=1)
    town.eyes.put_tasks({TaskId(999, 0): b"what is this"})
    town.run(2)
    assert TaskId(999, 0) in town.eyes.task_names(), "its job may be newer than the last look at all jobs"

    town.run(10)

    assert town.eyes.task_names() == {TaskId(1, 0)}


# ---------------------------------------------------------------------------------------------------------- bad rows


def test_job_whose_schedule_cannot_be_read_stops_nobody_else() -> None:
    town = Town("a")
    town.create("not a schedule")
    good = town.create()
    town.run(3)

    assert set(town.homes()) == {TaskId(good.id, 0)}
    assert town.events("job.unreadable") == ["1"]


def test_job_whose_row_became_unreadable_stays_where_it_is() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.store.spoil_job(2)
    town.nodes["a"].labels = {"other": "label"}
    after = town.create()
    town.run(130)

    assert {task: worker for task, worker in town.homes().items() if task in before} == before
    assert TaskId(after.id, 0) in town.homes()


def test_job_whose_edit_cannot_be_read_stays_where_it_is() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.edit(town.store.jobs.get(3), selector="this is (no selector")
    town.run(130)

    assert town.homes() == before
    assert town.events("job.unreadable") == ["3"]


# ----------------------------------------------------------------------------------------------------------- telling


def test_task_that_fits_nowhere_is_told_of_once_after_a_while() -> None:
    town = settled_town("a", jobs=1)
    town.create(selector="gpu")
    town.run(25)
    assert town.events("task.unplaced") == []

    town.run(60)
    assert town.events("task.unplaced") == ["2/0"]


def test_worker_whose_clock_is_wrong_is_told_of_and_gets_nothing_new() -> None:
    town = settled_town("a", "b", jobs=4)
    before = town.homes()
    town.nodes["a"].clock_offset_ms = 11_000
    town.run(2)
    for _ in range(4):
        town.create()
    town.run(3)

    assert town.events("worker.clock") == ["a"]
    assert {task: town.homes()[task] for task in before} == before
    assert {worker for task, worker in town.homes().items() if task not in before} == {"b"}


def test_next_leader_does_not_tell_of_old_losses_again() -> None:
    town = settled_town("a", "b")
    town.nodes["a"].die()
    town.run(10)
    town.managers[0].die()
    town.managers = [Manager(town, "m2")]
    town.run(15)

    assert town.events("worker.lost") == ["a"]


# ------------------------------------------------------------------------------------------------------------ wishes


def test_drained_worker_is_emptied() -> None:
    town = settled_town("a", "b")
    town.fleet.drain("a")
    town.run(5)

    assert set(town.homes().values()) == {"b"}
    assert town.owners() == town.homes()
    assert {town.assignment(town.store.jobs.get(t.job_id)).reason for t in town.homes()} >= {MoveReason.HANDOVER}


def test_task_changes_hands_only_after_its_release() -> None:
    town = settled_town("a", "b")
    moved = {task for task, worker in town.homes().items() if worker == "a"}
    town.nodes["a"].answers = False
    town.fleet.drain("a")
    town.run(30)
    assert not moved & set(town.homes())

    released_ms = town.clock.now_ms()
    town.nodes["a"].answers = True
    town.run(2)
    assert {town.homes()[task] for task in moved} == {"b"}
    first = town.store.assignments.load()[sorted(moved)[0]]
    assert first.since_ms < released_ms, "what came due while it was let go of is the new owner's to look after"


def test_request_moves_a_task_once_and_is_dropped() -> None:
    town = settled_town("a", "b")
    task, home = next(iter(sorted(town.homes().items())))
    other = "b" if home == "a" else "a"
    town.fleet.reassign(task.job_id, other)
    town.run(3)

    assert town.homes()[task] == other
    assert town.store.assignments.load()[task].reason is MoveReason.REASSIGN
    assert town.store.move_requests.all() == {}
    assert town.events("move.fulfilled") == [str(task)]


def test_impossible_request_is_dropped_with_an_event() -> None:
    town = settled_town("a")
    before = town.homes()
    town.store.move_requests.add([MoveRequest(TaskId(1, 0), "nobody", town.clock.now_ms())])
    town.run(2)

    assert town.homes() == before
    assert town.store.move_requests.all() == {}
    assert town.events("move.impossible") == ["1/0"]


def test_cordon_that_comes_while_the_leader_writes_a_node_is_kept() -> None:
    town = settled_town("a")
    town.eyes.save_node(NodeInfo("a", cordoned=True))
    town.nodes["a"].labels = {"new": "label"}
    town.run(2)
    node = town.eyes.nodes()["a"]

    assert node.cordoned
    assert node.last == town.nodes["a"].info


# ----------------------------------------------------------------------------------------------------------- endings


def test_job_that_fires_once_is_finished_after_its_run() -> None:
    town = Town("a")
    job = town.create("@at 2026-03-01T12:01:00Z")
    town.run(65)
    run = town.start_run(job, "a", NOON_MS + 60_000)
    town.run(30)
    assert town.store.jobs.get(job.id).state is JobState.ACTIVE

    town.end_run(run)
    town.run(10)
    assert town.store.jobs.get(job.id).state is JobState.FINISHED
    assert town.eyes.task_names() == set()
    assert town.homes() == {}


def test_job_that_fires_once_waits_for_its_retries() -> None:
    town = Town("a")
    job = town.create("@at 2026-03-01T12:01:00Z", retry=Retry(limit=2))
    town.run(65)
    town.end_run(town.start_run(job, "a", NOON_MS + 60_000), RunState.FAILED)
    town.run(30)

    assert town.store.jobs.get(job.id).state is JobState.ACTIVE


def test_job_that_never_ran_is_finished_after_its_grace() -> None:
    town = Town("a")
    job = town.create("@at 2026-03-01T12:01:00Z", grace_s=120)
    town.run(170)
    assert town.store.jobs.get(job.id).state is JobState.ACTIVE

    town.run(30)
    assert town.store.jobs.get(job.id).state is JobState.FINISHED


def test_job_whose_window_has_ended_is_finished() -> None:
    town = Town("a")
    job = town.create("* * * * *", ends_at_ms=NOON_MS + 30_000, grace_s=60)
    forever = town.create("* * * * *")
    town.run(60)

    assert town.store.jobs.get(job.id).state is JobState.FINISHED
    assert town.store.jobs.get(forever.id).state is JobState.ACTIVE


def test_old_runs_are_removed() -> None:
    town = settled_town("a", jobs=1)
    job = town.store.jobs.get(1)
    old, young = (town.start_run(job, "a", NOON_MS - days * _DAY_MS) for days in (91, 89))
    town.end_run(old)
    town.end_run(young)
    town.run(70)

    assert [run.key for run in town.store.runs.history(1, limit=10)] == [young.key]


def test_queued_run_is_consumed_once_it_is_over_or_gone() -> None:
    town = settled_town("a", jobs=1)
    now_ms = town.clock.now_ms()
    waiting, over, gone = (RunKey(TaskId(1, 0), now_ms + n, 1) for n in range(3))
    town.store.runs.request(Run(waiting, Trigger.MANUAL, RunState.PENDING))
    town.store.runs.request(Run(over, Trigger.MANUAL, RunState.PENDING))
    town.store.runs.request_cancel(over)
    for key in (waiting, over, gone):
        town.eyes.enqueue(QueuedRun(key, "somebody"))
    town.run(11)
    assert {item.key for item in town.eyes.queued()} == {waiting, gone}

    town.run(61)
    assert {item.key for item in town.eyes.queued()} == {waiting}
