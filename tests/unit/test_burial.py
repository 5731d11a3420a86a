"""What the leader does about the lost, each thing once, and for nobody else."""

from __future__ import annotations

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import RunState
from cronkeeper.errors import NotFoundError, UnavailableError
from cronkeeper.wire.znodes import ClaimNote
from tests.unit.manager_town import NOON_MS, Town


def settled_town() -> Town:
    town = Town("a", "b")
    for _ in range(6):
        town.create()
    town.run(12)
    return town


def task_of(town: Town, worker: str) -> TaskId:
    return next(task for task, home in sorted(town.homes().items()) if home == worker)


def test_the_claims_of_the_living_are_left_to_them() -> None:
    town = settled_town()
    keys = {name: RunKey(task_of(town, name), NOON_MS, 1) for name in town.nodes}
    for name, key in keys.items():
        town.nodes[name].coordinator.claim(key, ClaimNote("n", name, RunState.CLAIMED))
    town.nodes["a"].die()
    town.run(20)
    assert town.store.runs.get(keys["a"]).state is RunState.LOST
    with pytest.raises(NotFoundError):
        town.store.runs.get(keys["b"])


def test_runs_are_given_up_once_for_each_death() -> None:
    town = settled_town()
    before = town.store.calls("runs.lose")
    for death in (1, 2):
        job = town.create(selector="host=nowhere")
        run = town.start_run(job, "a", NOON_MS + death)
        town.nodes["a"].die()
        town.run(40)
        assert town.store.runs.get(run.key).state is RunState.LOST, "also at its second death"
        assert town.store.calls("runs.lose") == before + death
        town.nodes["a"].revive()
        town.run(20)


def test_runs_are_given_up_before_the_tasks_are_free_for_others() -> None:
    town = settled_town()
    task = task_of(town, "a")
    job = town.store.jobs.get(task.job_id)
    run = town.start_run(job, "a", NOON_MS)
    town.nodes["a"].die()
    town.store.fail_next("runs.lose")
    with pytest.raises(UnavailableError):
        town.run(20)
    assert town.homes()[task] == "a", "nothing is cleared yet"
    assert task in town.eyes.owned("a")
    town.run(5)
    assert town.store.runs.get(run.key).state is RunState.LOST
    assert town.homes()[task] == "b"
