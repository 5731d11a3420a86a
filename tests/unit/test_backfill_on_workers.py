"""Runs of a backfill on a worker: found in the ledger, oldest first, claimed once, late and yet not too late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Concurrency
from cronkeeper.domain.run import Reason, Run, RunState, Trigger, may_go
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper_worker.agent import LOOK_S, SOON_S
from tests.unit import test_agent
from tests.unit.test_engine import MINUTE, TASK, World, spec

DAY = 1440


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    clock = FakeClock()
    return lambda: World(tmp_path, MemoryStore(clock), clock, MemoryEnsemble(), "w1")


@pytest.fixture
def world(make: Callable[[], World]) -> World:
    return make()


def wanted(minute: int, now_ms: int, *, at_once: int = 1, attempt: int = 1, task: TaskId = TASK) -> Run:
    """A fire of a day ago."""
    key = RunKey(task, now_ms // MINUTE * MINUTE + (minute - DAY) * MINUTE, attempt)
    return Run(key, Trigger.MANUAL, RunState.PENDING, nonce="of the api", fence=at_once)


def backfill(world: World, *minutes: int, at_once: int = 1, attempt: int = 1) -> list[RunKey]:
    runs = [wanted(minute, world.clock.now_ms(), at_once=at_once, attempt=attempt) for minute in minutes]
    assert all(world.store.runs.request_many(runs).values())
    return [run.key for run in runs]


def hear(world: World) -> list[str]:
    """What the agent does in its turn, and the engine with it; returns all that was ever ordered."""
    world.report()
    world.engine.demand([run.key for run in world.store.runs.pending([TASK])])
    return world.ordered()


def test_a_backfill_runs_oldest_first_and_one_at_a_time(world: World) -> None:
    world.give(spec())
    keys = backfill(world, 3, 1, 2)
    oldest_first = [str(keys[index]) for index in (1, 2, 0)]
    for count in (1, 2, 3):
        assert hear(world) == oldest_first[:count] == hear(world)
        world.begin(oldest_first[count - 1])
        assert hear(world) == oldest_first[:count]
        world.end(oldest_first[count - 1])
    hear(world)
    assert world.states() == ["succeeded"] * 3


def test_as_many_go_at_once_as_are_allowed(world: World) -> None:
    world.give(spec(concurrency=Concurrency.ALLOW))
    keys = [str(key) for key in backfill(world, 1, 2, 3, 4, at_once=2)]
    assert hear(world) == keys[:2]
    world.begin(keys[0])
    world.end(keys[1])
    assert hear(world) == keys[:3]


def test_while_a_backfill_waits_the_schedule_goes_on(world: World) -> None:
    world.give(spec())
    backfill(world, 1, 2, 3)
    world.end(hear(world)[0])
    world.pass_minutes(1)
    assert world.journal.entry(RunKey.parse(world.ordered()[-1])).run.trigger is Trigger.TIMER  # type: ignore[union-attr]


def test_a_restart_does_not_find_a_run_of_the_past_too_late(world: World) -> None:
    world.give(spec())
    (key,) = backfill(world, 1)
    world.runner.away = True
    hear(world)
    world.runner.away = False
    before = len(world.ordered())
    world.boot()
    world.install_again()
    world.engine.resume(world.journal.open_entries(), lambda key: False, lambda _key: None)
    assert world.ordered()[before:] == [str(key)]
    world.report()
    assert world.states() == ["claimed"]


def test_what_was_skipped_is_claimed_as_its_next_attempt(world: World) -> None:
    world.give(spec())
    (key,) = backfill(world, 1, attempt=2)
    first = RunKey(key.task, key.fire_ms, 1)
    world.store.runs.record([Run(first, Trigger.TIMER, RunState.SKIPPED, "w1", "n", reason=Reason.LATE)])
    assert hear(world) == [str(key)]
    assert world.store.runs.get(key).state is RunState.CLAIMED


def test_of_two_workers_one_runs_it(make: Callable[[], World], tmp_path: Path) -> None:
    one = make()
    (tmp_path / "other").mkdir()
    two = World(tmp_path / "other", one.store, one.clock, MemoryEnsemble(), "w2")
    for world in (one, two):
        world.give(spec())
    keys = backfill(one, 1)
    for world in (one, two):
        world.engine.demand(keys)
    assert (one.ordered(), two.ordered()) == ([str(keys[0])], [])


def test_an_agent_looks_again_soon_while_a_backfill_has_more(tmp_path: Path) -> None:
    world = test_agent.World(tmp_path)
    task = test_agent.T1
    world.put(task)
    world.assign(task)
    world.ready()
    assert world.agent.step() == LOOK_S
    runs = [wanted(minute, world.clock.now_ms(), task=task) for minute in (1, 2)]
    world.store.runs.request_many(runs)
    assert world.agent.step() == SOON_S
    assert world.demands == [test_agent.Demand([runs[0].key], Trigger.MANUAL)]


def test_only_runs_of_backfills_wait_for_their_turn() -> None:
    plain = [wanted(minute, 0, at_once=0).evolve(key=RunKey(TASK, minute, 1)) for minute in (9, 10)]
    runs = [wanted(0, 0, at_once=2).evolve(key=RunKey(TASK, minute, 1)) for minute in (1, 2, 3)]
    busy = [runs[0].evolve(state=RunState.RUNNING, worker="w1", fence=40)]
    scheduled = [run.evolve(trigger=Trigger.CRON) for run in busy]
    assert may_go([*plain, *reversed(runs)], []) == [*runs[:2], *plain]
    assert may_go([*plain, *runs[1:]], busy) == [runs[1], *plain]
    assert may_go(runs, scheduled) == runs[:2]
    assert busy[0].at_once == 0 and runs[0].evolve(state=RunState.CANCELLED).at_once == 0
