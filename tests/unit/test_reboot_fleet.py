"""`@reboot` in the fleet: each node that fits has a task of its own, which never moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cronkeeper.domain.ids import RunKey, TaskId, node_shard
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.placement import Assign, Assignment, MoveReason, Revoke, WorkerState
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Fire, JobVersion, Role
from cronkeeper_manager.auditor import is_unexpected, spans
from cronkeeper_manager.endings import has_no_fire_left
from cronkeeper_manager.foresight import rebalance
from cronkeeper_manager.planner import decide, why_not
from cronkeeper_manager.world import PlanTask
from tests.harness.api import NOON_MS
from tests.harness.api import World as Api
from tests.unit.manager_town import Town
from tests.unit.test_catalog import catalog, row
from tests.unit.test_planner import worker, world

W1, W2 = TaskId(1, node_shard("w1")), TaskId(1, node_shard("w2"))
REBOOT = "@reboot"


def task(task_id: TaskId, only: str) -> PlanTask:
    return PlanTask(task_id, 1, 0.0, only=only)


def homes(town: Town, job: Job) -> set[str]:
    found = {task: worker for task, worker in town.homes().items() if task.job_id == job.id}
    assert all(task.shard == node_shard(worker) for task, worker in found.items())
    return set(found.values())


# -------------------------------------------------------------------------------------------------------- the catalog


def test_each_node_that_fits_has_a_task_of_its_own() -> None:
    base = catalog(row(1, REBOOT, selector="zone=x"), row(2))
    assert (set(base.tasks), base.tasks_of(1)) == ({TaskId(2, 0)}, [])
    found = base.on_nodes({"w1": {"zone": "x"}, "w2": {"zone": "y"}, "w3": None})
    w3 = TaskId(1, node_shard("w3"))
    assert set(found.tasks) == {TaskId(2, 0), W1, w3}
    assert {found.tasks[W1].only, found.tasks[w3].only} == {"w1", "w3"}
    assert sorted(found.tasks_of(1)) == sorted([W1, w3])
    assert base.on_nodes({}).tasks_of(1) == []


def test_a_catalog_without_such_jobs_stays_the_same_object() -> None:
    base = catalog(row(1))
    assert base.on_nodes({"w1": {}}) is base


def test_an_edit_to_and_from_times_leaves_nothing_behind() -> None:
    base = catalog(row(1, shards=2))
    there = base.updated([replace(row(1, REBOOT), generation=2)])
    assert (there.tasks, set(there.on_nodes({"w1": {}}).tasks)) == ({}, {W1})
    back = there.updated([replace(row(1), generation=3)])
    assert (set(back.tasks), back.on_nodes({"w1": {}}) is back) == ({TaskId(1, 0)}, True)
    assert there.replaced([], []).on_nodes({"w1": {}}).tasks == {}


def test_of_two_workers_with_the_same_shard_one_is_told_that_it_has_none() -> None:
    """Found by search: these two have the same."""
    one, two = "n28177", "n9209"
    found = catalog(row(1, REBOOT)).on_nodes({two: {}, one: {}})
    assert node_shard(one) == node_shard(two)
    assert (found.twins, [task.only for task in found.tasks.values()]) == ({two: one}, [one])


# -------------------------------------------------------------------------------------------------------- the planner


def test_a_nodes_own_task_goes_to_it_and_to_nobody_else() -> None:
    here = world([task(W1, "w1")], [worker("w1", capacity=0), worker("w2")])
    assert decide(here).moves == [Assign(W1, "w1", MoveReason.NEW)]
    wrong = world([task(W1, "w1")], [worker("w1"), worker("w2")], assigned={"w2": {W1}})
    assert decide(wrong).moves == [Revoke(W1, "w2", MoveReason.HANDOVER)]
    assert "w1's own" in why_not(here, W1, "w2")
    forgotten = world([task(W1, "w1")], [worker("w1"), worker("w2")], last={W1: "w2"})
    assert decide(forgotten).moves == [Assign(W1, "w1", MoveReason.HANDOVER)]


@pytest.mark.parametrize("state", [WorkerState.LOST, WorkerState.CORDONED, WorkerState.DRAINING])
def test_while_its_node_is_away_or_closed_it_lacks_nothing(state: WorkerState) -> None:
    for held in (False, True):
        own = replace(task(W1, "w1"), held=held)
        found = decide(world([own], [worker("w1", state=state), worker("w2")]))
        assert (found.moves, found.unplaced, found.staying) == ([], {}, {})


def test_a_drain_takes_it_away_and_rebalancing_leaves_it() -> None:
    here = world([task(W1, "w1")], [worker("w1", state=WorkerState.DRAINING), worker("w2")], assigned={"w1": {W1}})
    assert decide(here).moves == [Revoke(W1, "w1", MoveReason.DRAIN)]
    full = world([replace(task(W1, "w1"), load=90)], [worker("w1"), worker("w2")], assigned={"w1": {W1}})
    assert rebalance(full, max_moves=9) == []


# -------------------------------------------------------------------------------------------------------- whole turns


def test_nodes_get_it_as_they_come_and_lose_it_as_they_cease_to_fit() -> None:
    town = Town()
    for name, zone in (("w1", "x"), ("w2", "y"), ("w3", "x")):
        town.join(name, labels={"zone": zone})
    job = town.create(REBOOT, selector="zone=x")
    town.run(5)
    assert homes(town, job) == {"w1", "w3"}
    town.join("w4", labels={"zone": "x"})
    town.run(5)
    assert homes(town, job) == {"w1", "w3", "w4"}
    town.nodes["w4"].labels["zone"] = "y"
    town.run(5)
    assert homes(town, job) == {"w1", "w3"}
    job = town.edit(job, selector=None)
    town.run(5)
    assert homes(town, job) == {"w1", "w2", "w3", "w4"}
    assert set(town.eyes.task_names()) == {TaskId(job.id, node_shard(name)) for name in town.nodes}
    assert town.events("task.unplaced") == []
    town.edit(job, JobState.FINISHED)
    town.run(5)
    assert (homes(town, job), set(town.eyes.task_names())) == (set(), set())


def test_a_node_that_dies_takes_its_task_with_it_and_has_it_again_when_it_is_back() -> None:
    town = Town("w1", "w2", "w3")
    job = town.create(REBOOT)
    town.run(5)
    town.nodes["w2"].die()
    town.run(60)
    assert homes(town, job) == {"w1", "w3"}
    assert town.events("task.unplaced") == []
    town.nodes["w2"].revive()
    town.run(10)
    assert homes(town, job) == {"w1", "w2", "w3"}


def test_the_leader_never_takes_such_a_job_for_finished() -> None:
    town = Town("w1")
    job = town.create(REBOOT)
    town.run(120)
    assert town.store.jobs.get(job.id).state is JobState.ACTIVE
    assert not has_no_fire_left(job, town.clock.now_ms())
    ended = town.row(job.id, job.spec.evolve(ends_at_ms=town.clock.now_ms()))
    assert has_no_fire_left(ended, town.clock.now_ms())


def test_a_nodes_start_is_nothing_unexpected() -> None:
    job = Town().create(REBOOT)
    version = JobVersion(1, 1, JobState.ACTIVE, 0, 0, job.spec)
    assert not is_unexpected(spans([version]), Fire(W1, 5000))
    assert is_unexpected(spans([version]), Fire(TaskId(1, 0), 5000))
    timed = replace(version, spec=job.spec.evolve(schedule="5 * * * *"))
    assert is_unexpected(spans([timed]), Fire(W1, 5000))


# ------------------------------------------------------------------------------------------------------------ the API


@pytest.fixture
def api() -> Iterator[Api]:
    found = Api()
    yield found
    found.close()


def test_its_next_fires_are_told_in_words(api: Api) -> None:
    job = api.post_job(schedule="@REBOOT")
    assert (job["schedule"], job["next_fire"], job["status"]) == ("@REBOOT", None, "scheduled")
    said = api.call("GET", f"/jobs/{job['id']}/next").get_json()
    assert said["next"] == []
    assert said["words"] == "At each start of each node that fits"
    assert any("at each start of each node that fits" in note for note in said["notes"])
    assert not any("no fire time left" in note for note in said["notes"])
    assert api.call("POST", f"/jobs/{job['id']}/pause").status_code == 200
    assert api.call("POST", f"/jobs/{job['id']}/resume").status_code == 200


def test_what_makes_no_sense_with_it_is_refused_by_name(api: Api) -> None:
    for field, given in (("shards", {"shards": 2}), ("schedule", {"ends_at": "2001-01-01T00:00:00Z"})):
        answer = api.call("POST", "/jobs", json={"executable": "x", "type": "command", "schedule": REBOOT, **given})
        assert (answer.status_code, [one["field"] for one in answer.get_json()["errors"]]) == (422, [field])
    job = api.post_job(schedule=REBOOT)
    moved = api.call("POST", f"/jobs/{job['id']}/reassign", json={"worker": "w1"}, role=Role.ADMIN)
    assert moved.status_code == 409
    past = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    assert api.call("POST", f"/jobs/{job['id']}/backfill", json=past).status_code == 422


def test_on_demand_each_node_that_has_it_runs_it(api: Api) -> None:
    job = api.post_job(schedule=REBOOT)
    assert api.call("POST", "/jobs/1/run").status_code == 409
    given = [Assignment(W1, "w1", 1, 1, MoveReason.NEW, 0), Assignment(W2, "w2", 1, 1, MoveReason.NEW, 0)]
    api.store.assignments.save(given, term=api.store.terms.take("m1"))
    assert api.call("GET", f"/jobs/{job['id']}").get_json()["workers"] == ["w1", "w2"]
    assert api.call("POST", "/jobs/1/run").status_code == 202
    assert {run.key.task for run in api.store.runs.history(1, limit=9)} == {W1, W2}


def test_why_knows_the_start_of_a_node(api: Api) -> None:
    api.post_job(schedule=REBOOT)
    api.store.runs.record([Run(RunKey(W1, NOON_MS - 5000, 1), Trigger.TIMER, RunState.SUCCEEDED, "w1", "n")])
    said = api.call("GET", "/jobs/1/why?at=2026-03-01T11:59:55Z").get_json()
    assert (said["decision"], "the start of node w1: succeeded" in said["words"]) == ("run", True)
    nothing = api.call("GET", "/jobs/1/why?at=2026-03-01T13:00:00Z").get_json()
    assert "No fire follows that is known beforehand" in nothing["words"]


def test_the_forecast_leaves_it_out(api: Api) -> None:
    api.post_job(schedule=REBOOT)
    api.post_job()
    assert api.call("GET", "/forecast").get_json()["jobs"] == 1
