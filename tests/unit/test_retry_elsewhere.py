"""A failed run's next attempt on another worker: the leader moves the task, and the worker waits for that a little."""

from __future__ import annotations

from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job
from cronkeeper.domain.placement import MoveReason
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import MoveRequest
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from tests.unit.manager_town import Town
from tests.unit.test_engine import MINUTE, TASK, World, spec

ELSEWHERE = Retry(4, 30, 30, elsewhere=True)


def town_with(*workers: str, retry: Retry = ELSEWHERE, **fields: object) -> tuple[Town, Job, TaskId]:
    town = Town(*workers)
    job = town.create("0 0 1 1 *", retry=retry, **fields)
    town.run(4)
    return town, job, TaskId(job.id, 0)


def fail(town: Town, job: Job, fire_ms: int, attempt: int = 1, *, shard: int = 0, ago_ms: int = 0) -> str:
    """The worker that has the task reports a failed attempt; return its name."""
    task = TaskId(job.id, shard)
    home = town.homes()[task]
    key = RunKey(task, fire_ms, attempt)
    ended_ms = town.clock.now_ms() - ago_ms
    town.store.runs.record(
        [Run(key, Trigger.TIMER, RunState.FAILED, home, f"n-{key}", generation=1, ended_ms=ended_ms, exit_code=1)]
    )
    return home


def test_each_attempt_has_a_worker_of_its_own_as_long_as_there_are_any() -> None:
    town, job, task = town_with("a", "b", "c")
    fire_ms = town.clock.now_ms()
    homes = []
    for attempt in (1, 2, 3):
        homes.append(fail(town, job, fire_ms, attempt))
        town.run(4)
        assert town.owners()[task] == town.homes()[task] != homes[-1]
    assert sorted(homes) == ["a", "b", "c"]
    assert town.assignment(job).reason is MoveReason.REASSIGN
    assert town.store.move_requests.all() == {}


def test_the_task_moves_once_for_a_failure_and_only_its_own_shard() -> None:
    town, job, task = town_with("a", "b", "c", shards=4)
    before = town.homes()
    fire_ms = town.clock.now_ms()
    fail(town, job, fire_ms)
    town.run(4)
    moved = town.homes()
    assert [one for one in before if before[one] != moved[one]] == [task]
    fail(town, job, fire_ms, shard=1)
    town.run(4)
    assert town.homes()[task] == moved[task]


def test_where_nobody_else_fits_it_stays() -> None:
    town, job, task = town_with("a")
    fail(town, job, town.clock.now_ms())
    town.run(4)
    assert town.homes() == {task: "a"}
    town.join("b", labels={"zone": "mars"})
    job = town.create("0 0 1 1 *", retry=ELSEWHERE, selector="!zone")
    town.run(4)
    fail(town, job, town.clock.now_ms())
    town.run(4)
    assert set(town.homes().values()) == {"a"}
    assert town.store.move_requests.all() == {}


@pytest.mark.parametrize(
    ("retry", "attempt", "ago_ms"),
    [(Retry(4, 30, 30), 1, 0), (ELSEWHERE, 5, 0), (ELSEWHERE, 1, 36_000)],
    ids=["the job does not ask for it", "no attempt is left", "its worker is about to try again by itself"],
)
def test_what_does_not_move(retry: Retry, attempt: int, ago_ms: int) -> None:
    town, job, task = town_with("a", "b", retry=retry)
    town.run(60)
    home = fail(town, job, town.clock.now_ms() - 40_000, attempt, ago_ms=ago_ms)
    town.run(4)
    assert town.homes() == {task: home}


def test_a_person_s_wish_goes_first() -> None:
    wishes = []
    for third in ("a", "b", "c"):
        town, job, task = town_with("a", "b", "c")
        home = town.homes()[task]
        if home == third:
            continue
        fail(town, job, town.clock.now_ms())
        town.store.move_requests.add([MoveRequest(task, third, 1)])
        # One turn: the wish was there when the failure was looked at.
        town.managers[0].step()
        wishes += [(third, wish.worker) for wish in town.store.move_requests.all().values()]
    assert len(wishes) == 2
    assert all(asked == stands for asked, stands in wishes)


def test_a_second_failure_right_after_the_move_moves_it_again() -> None:
    town, job, task = town_with("a", "b", "c")
    fire_ms = town.clock.now_ms()
    first = fail(town, job, fire_ms)
    while town.homes().get(task, first) == first:
        town.run(0.5)
    second = fail(town, job, fire_ms, 2)
    town.run(4)
    assert town.homes()[task] not in (first, second)


def test_a_cordoned_worker_is_not_given_it() -> None:
    town, job, task = town_with("a", "b", "c")
    home = town.homes()[task]
    spared, other = sorted({"a", "b", "c"} - {home})
    town.fleet.cordon(spared)
    town.run(2)
    fail(town, job, town.clock.now_ms())
    town.run(4)
    assert town.homes() == {task: other}


# ------------------------------------------------------------------------------------------------------- in the engine


@pytest.mark.parametrize(("retry", "after_s"), [(Retry(2, 30, 30), 30), (Retry(2, 30, 30, elsewhere=True), 40)])
def test_the_worker_itself_tries_again_if_nobody_has_taken_the_task(tmp_path: Path, retry: Retry, after_s: int) -> None:
    clock = FakeClock()
    world = World(tmp_path, MemoryStore(clock), clock, MemoryEnsemble())
    world.give(spec(retry=retry))
    world.pass_minutes(1)
    (first,) = world.ordered()
    world.begin(first)
    world.end(first, 1)
    fire_ms = RunKey.parse(first).fire_ms
    world.pass_minutes((after_s - 1) * 1000 / MINUTE)
    assert world.ordered() == [first]
    world.pass_minutes(1000 / MINUTE)
    assert world.ordered() == [first, str(RunKey(TASK, fire_ms, 2))]


def test_a_retry_that_was_given_up_is_not_begun_here(tmp_path: Path) -> None:
    clock = FakeClock()
    world = World(tmp_path, MemoryStore(clock), clock, MemoryEnsemble())
    world.give(spec(retry=ELSEWHERE))
    world.pass_minutes(1)
    (first,) = world.ordered()
    world.begin(first)
    world.end(first, 1)
    world.engine.uninstall([TASK])
    world.pass_minutes(5)
    assert world.ordered() == [first]
