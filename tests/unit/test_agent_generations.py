"""A worker takes no task of an older generation than one that has run: whoever writes in a store may put one back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper_worker.assignments import Overtaken, overtaken
from tests.unit.engine_town import MINUTE, TASK, EngineTown
from tests.unit.test_agent import T1, T2, World


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    return lambda: World(tmp_path)


@pytest.fixture
def world(make: Callable[[], World]) -> World:
    """A node that is given task 1 in generation 1, and task 2; of task 1 another node has run generation 2."""
    made = make()
    ran(made, T1, 2)
    made.put(T1, generation=1)
    made.put(T2, generation=1)
    made.assign(T1, T2)
    made.ready()
    return made


def ran(world: World, task: TaskId, generation: int, *, ago_s: int = 60) -> None:
    key = RunKey(task, world.clock.now_ms() - ago_s * 1000, 1)
    world.store.runs.claim([Run(key, Trigger.TIMER, RunState.CLAIMED, "w2", f"n{generation}", generation=generation)])


def refusals(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the tasks that were told as refused, and why."""
    told = [vars(record) for record in caplog.records if vars(record).get("event") == "task.refused"]
    return [(said["task"], said["error"]) for said in told]


def test_an_older_generation_than_has_run_is_told_once_and_stops_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        world.agent.step()
    assert (set(world.installed), set(world.leader.owned("w1"))) == ({T2}, {T2})
    assert refusals(caplog) == [("1/0", "generation 1, and generation 2 has run already")]


def test_it_is_told_again_when_it_is_given_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.agent.step()
    world.leader.move([], [("w1", T1)], world.leadership())
    world.agent.step()
    world.assign(T1, epoch=9)
    world.agent.step()
    assert len(refusals(caplog)) == 2


def test_what_is_lost_of_a_refused_task_is_not_looked_after(world: World) -> None:
    world.store.runs.lose("w2", term=world.store.terms.take("m1"), reason="worker_lost")
    world.agent.step()
    assert not world.demands
    world.put(T1, generation=2)
    world.agent.step()
    assert [(demand.keys[0].task, demand.trigger) for demand in world.demands] == [(T1, Trigger.CATCH_UP)]


@pytest.mark.parametrize("generation", [2, 3])
def test_the_one_that_has_run_and_any_newer_one_are_taken_as_soon_as_they_come(world: World, generation: int) -> None:
    world.agent.step()
    world.put(T1, generation=generation)
    world.agent.step()
    assert world.installed[T1].generation == generation
    # It goes on where the last owner was.
    assert world.installed[T1].view.cursor_ms == world.clock.now_ms() - 60_000


def test_the_same_bytes_are_taken_once_the_ledger_says_otherwise_and_told_again_if_it_changes_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.agent.step()
    ran(world, T1, 1, ago_s=30)
    world.agent.step()
    assert world.installed[T1].generation == 1
    ran(world, T1, 2, ago_s=10)
    world.assign(T1, epoch=7)
    world.agent.step()
    assert set(world.installed) == {T2}
    assert len(refusals(caplog)) == 2


def test_what_is_given_anew_and_was_run_by_a_newer_generation_meanwhile_is_let_go(make: Callable[[], World]) -> None:
    world = make()
    world.put(T1, generation=1)
    world.assign(T1, epoch=5)
    world.ready()
    world.agent.step()
    assert set(world.installed) == {T1}
    # It was given up without a word to it; the owner between had a newer one.
    ran(world, T1, 2, ago_s=0)
    world.agent.step()
    assert set(world.installed) == {T1}
    world.assign(T1, epoch=9)
    world.agent.step()
    assert (world.installed, world.leader.owned("w1")) == ({}, {})
    world.put(T1, generation=2)
    world.agent.step()
    assert (world.installed[T1].generation, world.installed[T1].fence) == (2, 9)


def test_without_mysql_it_is_taken_and_let_go_when_mysql_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.set_available(False)
    world.agent.step()
    assert set(world.installed) == {T1, T2}
    world.store.set_available(True)
    for _ in range(3):
        world.agent.step()
        assert (set(world.installed), set(world.leader.owned("w1"))) == ({T2}, {T2})
    assert len(refusals(caplog)) == 1


def test_without_mysql_it_is_taken_and_let_go_though_the_daemon_is_another_one_by_then(world: World) -> None:
    world.store.set_available(False)
    world.agent.step()
    world.start("again")
    world.agent.step()
    assert set(world.installed) == {T1, T2}
    world.store.set_available(True)
    for _ in range(2):
        world.agent.step()
        assert (set(world.installed), set(world.leader.owned("w1"))) == ({T2}, {T2})


def test_what_was_taken_without_mysql_and_edited_since_stays(world: World) -> None:
    world.store.set_available(False)
    world.agent.step()
    world.put(T1, generation=2)
    world.agent.step()
    world.store.set_available(True)
    world.agent.step()
    assert world.installed[T1].generation == 2


def test_what_was_refused_is_not_taken_when_mysql_goes_away(world: World) -> None:
    world.agent.step()
    world.store.set_available(False)
    for _ in range(2):
        world.agent.step()
        assert set(world.installed) == {T2}
    world.put(T1, generation=2)
    world.agent.step()
    assert world.installed[T1].generation == 2


def test_what_nobody_has_run_keeps_nothing_out(make: Callable[[], World]) -> None:
    world = make()
    now_ms = world.clock.now_ms()
    world.store.runs.request(Run(RunKey(T1, now_ms, 1), Trigger.MANUAL, RunState.PENDING, generation=2))
    world.store.runs.claim([Run(RunKey(T2, now_ms, 1), Trigger.TIMER, RunState.CLAIMED, "w2", "n", generation=0)])
    world.put(T1, generation=1)
    world.put(T2, generation=1)
    world.assign(T1, T2)
    world.ready()
    world.agent.step()
    assert set(world.installed) == {T1, T2}


def asked(world: World) -> int:
    """Do one step; return how often it asked what has run."""
    before = world.store.calls("runs.last_fires")
    world.agent.step()
    return world.store.calls("runs.last_fires") - before


def test_a_take_over_of_any_number_asks_the_ledger_once(world: World) -> None:
    assert asked(world) == 1


def test_what_was_taken_without_mysql_is_asked_for_once_as_soon_as_mysql_answers(make: Callable[[], World]) -> None:
    world = make()
    world.put(T1)
    world.assign(T1, epoch=5)
    world.ready()
    world.store.set_available(False)
    world.agent.step()
    world.store.set_available(True)
    assert asked(world) == 1
    world.agent.reborn("again")
    assert asked(world) == 0
    world.store.set_available(False)
    world.assign(T1, epoch=6)
    world.agent.step()
    world.store.set_available(True)
    world.assign(T1, epoch=7)
    assert asked(world) == 1


def test_overtaken() -> None:
    generations = {TaskId(number, 0): number for number in (1, 2, 3, 4)}
    last = {TaskId(1, 0): 2, TaskId(2, 0): 2, TaskId(3, 0): 2, TaskId(9, 0): 9}
    assert overtaken(generations, last) == {TaskId(1, 0): Overtaken(1, 2)}


@pytest.fixture
def town() -> Iterator[EngineTown]:
    """Two whole workers, and a job that fires every minute."""
    made = EngineTown(JobSpec("true", "* * * * *", JobType.COMMAND), "a", "b")
    yield made
    for worker in made.workers.values():
        worker.fences.close()
        worker.journal.close()


def minutes(town: EngineTown, count: int) -> set[tuple[str, int]]:
    """Let so many minutes pass; return who has started what generation meanwhile."""
    before = len(town.starts)
    for _ in range(count * 6):
        for worker in town.workers.values():
            for step in (worker.lease.step, worker.agent.step, worker.reporter.step):
                worker.try_to(step)
            worker.look()
            for run_id in sorted(worker.processes.live):
                worker.processes.end(run_id, "ok")
        town.clock.advance_ms(MINUTE // 6)
    return {(start.worker, start.generation) for start in town.starts[before:]}


def test_an_older_generation_that_is_put_back_and_moved_is_run_by_nobody(town: EngineTown) -> None:
    older = town.leader.read_tasks([TASK])
    town.assign("a")
    assert minutes(town, 2) == {("a", 1)}
    town.edit(replace(town.spec, description="newer"))
    assert minutes(town, 2) == {("a", 2)}
    town.leader.put_tasks(older)
    assert minutes(town, 2) == {("a", 2)}

    town.revoke()
    assert minutes(town, 1) == set()
    town.assign("b")
    assert minutes(town, 3) == set()

    # The row says 1: its next generation is one that has run, with another text.
    town.generation = 1
    town.edit(replace(town.spec, description="again"))
    assert minutes(town, 2) == {("b", 2)}
