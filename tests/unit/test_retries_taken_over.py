"""Retries that the last owner of a task had not come to: its next owner does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Task
from cronkeeper.wire.znodes import ClaimNote
from cronkeeper_worker.journal import Phase
from tests.unit.test_agent import SIGNER, T1
from tests.unit.test_agent import World as AgentWorld
from tests.unit.test_engine import MINUTE, TASK, World, spec

RETRY = Retry(3, 60, 3600)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], AgentWorld]:
    return lambda: AgentWorld(tmp_path)


def failed(world: AgentWorld, *, age_ms: int = 20_000, attempt: int = 1, generation: int = 1) -> Run:
    """The last owner's run of a fire of a minute ago."""
    now_ms = world.clock.now_ms()
    key = RunKey(T1, now_ms - max(60_000, age_ms + 1000), attempt)
    run = Run(key, Trigger.TIMER, RunState.FAILED, "w2", f"n{attempt}", generation=generation, ended_ms=now_ms - age_ms)
    world.store.runs.record([run])
    return run


def take(world: AgentWorld, **fields: object) -> dict[RunKey, int]:
    world.put(T1, **({"retry": RETRY} | fields))  # type: ignore[arg-type]
    world.assign(T1)
    world.ready()
    world.agent.step()
    return world.retries


def test_a_retry_whose_back_off_goes_on_is_taken_over_with_its_instant(make: Callable[[], AgentWorld]) -> None:
    world = make()
    run = failed(world)
    assert run.ended_ms is not None
    assert take(world) == {RunKey(T1, run.key.fire_ms, 2): run.ended_ms + 60_000}


def test_a_retry_that_has_begun_or_is_not_wanted_is_left_alone(make: Callable[[], AgentWorld]) -> None:
    world = make()
    failed(world)
    failed(world, attempt=2)
    world.store.runs.record([Run(RunKey(T1, failed(world, age_ms=90_000).key.fire_ms, 2), Trigger.RETRY,
                                 RunState.RUNNING, "w2", "n")])  # fmt: skip
    assert [key.attempt for key in take(world)] == [3]
    assert world.retries.keys() == {RunKey(T1, world.clock.now_ms() - 60_000, 3)}


@pytest.mark.parametrize(
    ("fields", "generation"),
    [({"retry": Retry(0, 60, 60)}, 1), ({"grace_s": 60}, 1), ({}, 0)],
    ids=["no retry is allowed", "it is due since longer than the grace", "a change allows it that came later"],
)
def test_what_is_not_taken_over(make: Callable[[], AgentWorld], fields: dict[str, object], generation: int) -> None:
    world = make()
    failed(world, age_ms=125_000, generation=generation)
    assert take(world, **fields) == {}


def test_a_paused_task_s_retries_are_not_taken_over(make: Callable[[], AgentWorld]) -> None:
    world = make()
    failed(world)
    body = Task(1, 1, JobState.PAUSED, 0, spec(retry=RETRY))
    world.leader.put_tasks({T1: SIGNER.seal(body)})
    world.assign(T1)
    world.ready()
    world.agent.step()
    assert world.retries == {}


def test_a_retry_that_the_last_owner_was_granted_by_zookeeper_is_not_taken_over(
    make: Callable[[], AgentWorld],
) -> None:
    world = make()
    run = failed(world)
    key = RunKey(T1, run.key.fire_ms, 2)
    world.worker.claim(key, ClaimNote("theirs", "w2", RunState.CLAIMED))
    world.store.set_available(False)
    assert take(world) == {}
    world.store.set_available(True)
    world.agent.step()
    assert world.retries == {}
    assert world.store.runs.get(key).worker == "w2"


def test_without_mysql_it_is_put_off(make: Callable[[], AgentWorld]) -> None:
    world = make()
    failed(world)
    world.store.set_available(False)
    assert take(world) == {}
    world.store.set_available(True)
    world.agent.step()
    assert len(world.retries) == 1


def test_a_run_that_fails_at_its_last_owner_later_is_tried_again_by_the_new_one(
    make: Callable[[], AgentWorld],
) -> None:
    world = make()
    running = Run(RunKey(T1, world.clock.now_ms() - 60_000, 1), Trigger.TIMER, RunState.RUNNING, "w2", "n",
                  generation=1)  # fmt: skip
    world.store.runs.record([running])
    assert take(world) == {}
    assert world.foreign
    world.store.runs.record([running.evolve(state=RunState.FAILED, ended_ms=world.clock.now_ms())])
    world.agent.refresh_foreign([T1])
    world.agent.step()
    assert world.retries == {RunKey(T1, running.key.fire_ms, 2): world.clock.now_ms() + 60_000}


# ------------------------------------------------------------------------------------------------------- in the engine


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock = FakeClock()
    found = World(tmp_path, MemoryStore(clock), clock, MemoryEnsemble())
    found.give(spec(retry=RETRY))
    return found


def test_a_retry_that_was_taken_over_waits_for_its_instant_and_runs_once(world: World) -> None:
    key = RunKey(TASK, world.clock.now_ms() - MINUTE, 2)
    due_ms = world.clock.now_ms() + 5000
    world.engine.retry({key: due_ms})
    world.engine.retry({key: due_ms})
    entry = world.journal.entry(key)
    assert entry is not None
    assert (entry.phase, entry.not_before_ms, entry.run.trigger) == (Phase.WAITING, due_ms, Trigger.RETRY)
    assert world.journal.dirty(9) == [], "nothing to report before it is claimed"
    world.clock.advance_ms(4000)
    world.engine.look(Trigger.TIMER)
    assert world.runner.orders == []
    world.clock.advance_ms(1000)
    world.engine.look(Trigger.TIMER)
    assert [order.run_id for order in world.runner.orders] == [str(key)]


def test_a_retry_that_this_node_gave_up_itself_may_come_back_to_it(world: World) -> None:
    key = RunKey(TASK, world.clock.now_ms() - MINUTE, 2)
    world.engine.retry({key: world.clock.now_ms() + 5000})
    world.engine.uninstall([TASK])
    given_up = world.journal.entry(key)
    assert given_up is not None and given_up.phase is Phase.OVER
    world.give(spec(retry=RETRY))
    world.engine.retry({key: world.clock.now_ms()})
    world.engine.look(Trigger.TIMER)
    assert [order.run_id for order in world.runner.orders] == [str(key)]


def test_a_retry_of_a_task_that_is_not_here_is_nobody_s_business(world: World) -> None:
    world.engine.retry({RunKey(TaskId(9, 0), 1000, 2): 0})
    assert world.journal.open_entries() == []
