"""The fleet's use cases on the doubles: what is shown, what is refused, and what the leader then does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.domain.placement import MoveReason, WorkerState
from cronkeeper.errors import ConflictError, NotFoundError, UnavailableError
from cronkeeper.ports import Role
from cronkeeper_manager.fleet import MoveView
from cronkeeper_manager.service.values import Caller
from tests.unit.manager_town import Town

CALLER = Caller("1", "ada", Role.ADMIN)


def settled_town(*workers: str, jobs: int = 6) -> Town:
    town = Town(*workers)
    for _ in range(jobs):
        town.create()
    town.run(3)
    return town


def tasks_on(town: Town, worker: str) -> list[TaskId]:
    return sorted(task for task, home in town.homes().items() if home == worker)


def triples(moves: Iterable[MoveView]) -> list[tuple[TaskId, str | None, str | None]]:
    return [(move.task, move.from_, move.to) for move in moves]


def test_worker_is_shown_with_what_it_said_and_what_it_has() -> None:
    town = Town()
    town.join("a", labels={"zone": "x"}, capacity=50)
    town.create()
    town.run(2)
    view = town.fleet.worker("a")

    assert (view.host, view.state, view.labels, view.capacity, view.tasks) == (
        "host-a",
        WorkerState.UP,
        {"zone": "x"},
        50,
        1,
    )
    assert (view.version, view.last_seen_ms, view.clock_offset_ms) == ("1", town.clock.now_ms(), 0)


def test_unknown_worker_is_not_found() -> None:
    town = settled_town("a")

    for ask in (town.fleet.worker, town.fleet.cordon, town.fleet.uncordon, town.fleet.drain):
        with pytest.raises(NotFoundError):
            ask("nobody")


def test_lost_worker_is_still_shown_and_remembers_when_it_was_seen() -> None:
    town = settled_town("a", "b")
    seen_ms = town.clock.now_ms()
    town.nodes["a"].die()
    town.run(20)
    view = town.fleet.worker("a")

    assert (view.state, view.tasks, view.host, view.last_seen_ms) == (WorkerState.LOST, 0, "host-a", seen_ms)


def test_worker_between_two_sessions_is_not_yet_lost() -> None:
    town = settled_town("a")
    town.nodes["a"].die()
    town.clock.advance_ms(1000)

    assert town.fleet.worker("a").state is WorkerState.UP


@pytest.mark.parametrize(
    ("act", "state"),
    [("cordon", WorkerState.CORDONED), ("drain", WorkerState.DRAINING)],
)
def test_wish_is_shown_at_once_and_taken_back_by_uncordon(act: str, state: WorkerState) -> None:
    town = settled_town("a", "b")
    getattr(town.fleet, act)("a")
    assert town.fleet.worker("a").state is state

    town.fleet.uncordon("a")
    assert town.fleet.worker("a").state is WorkerState.UP
    assert town.eyes.nodes()["a"].last == town.nodes["a"].info


def test_cordoned_worker_keeps_its_tasks_and_gets_none() -> None:
    town = settled_town("a", "b")
    before = tasks_on(town, "a")
    town.fleet.cordon("a")
    for _ in range(6):
        town.create()
    town.run(3)

    assert tasks_on(town, "a") == before


def test_drain_shows_the_moves_that_then_happen() -> None:
    town = settled_town("a", "b", "c")
    shown = town.fleet.drain("a", dry_run=True)
    assert town.fleet.worker("a").state is WorkerState.UP
    assert town.fleet.drain("a", dry_run=False) == shown
    town.run(5)

    assert {move.reason for move in shown} == {MoveReason.DRAIN}
    assert {move.task: town.homes()[move.task] for move in shown} == {move.task: move.to for move in shown}
    assert tasks_on(town, "a") == []


def test_reassign_moves_every_shard() -> None:
    town = Town("a", "b")
    job = town.create(shards=4)
    town.run(3)
    away = tasks_on(town, "b")
    shown = town.fleet.reassign(job.id, "a", dry_run=True)
    assert town.store.move_requests.all() == {}

    assert triples(town.fleet.reassign(job.id, "a")) == triples(shown) == [(task, "b", "a") for task in away]
    town.run(4)
    assert len(tasks_on(town, "a")) == 4


def test_reassign_to_where_it_is_moves_nothing() -> None:
    town = settled_town("a")

    assert town.fleet.reassign(1, "a") == []
    assert town.store.move_requests.all() == {}


def test_reassign_of_what_is_not_there_is_not_found() -> None:
    town = settled_town("a")

    with pytest.raises(NotFoundError):
        town.fleet.reassign(99, "a")
    with pytest.raises(NotFoundError):
        town.fleet.reassign(1, "nobody")


def test_reassign_that_cannot_be_is_refused_with_the_reason() -> None:
    town = settled_town("a", "b")
    job = town.create(selector="zone=x")
    town.join("x", labels={"zone": "x"})
    town.join("small", labels={"zone": "x"}, capacity=0)
    town.join("away", labels={"zone": "x"})
    town.run(2)
    town.fleet.cordon("b")
    town.nodes["away"].die()

    for worker, why in (
        ("a", "labels"),
        ("b", "cordoned"),
        ("small", "room"),
        ("away", "away just now"),
    ):
        with pytest.raises(ConflictError, match=why):
            town.fleet.reassign(job.id, worker)
    assert town.store.move_requests.all() == {}


def test_reassign_of_a_finished_job_is_refused() -> None:
    town = settled_town("a", "b")
    town.edit(town.store.jobs.get(1), JobState.FINISHED)

    with pytest.raises(ConflictError, match="finished"):
        town.fleet.reassign(1, "a")


def test_reassign_checks_the_room_for_all_shards_together() -> None:
    town = Town("a")
    job = town.create("* * * * *", shards=3)
    town.run(3)
    town.join("b", capacity=2)
    town.run(2)

    with pytest.raises(ConflictError, match="no room"):
        town.fleet.reassign(job.id, "b")


def test_everything_of_one_worker_moves_to_another_or_nothing_does() -> None:
    town = settled_town("a", "b", "c")
    moved = tasks_on(town, "a")
    assert triples(town.fleet.reassign_all("a", "b", dry_run=True)) == [(task, "a", "b") for task in moved]
    town.fleet.reassign_all("a", "b", caller=CALLER)
    told = town.store.trail.waiting(limit=10)[-1]
    assert (told.action, told.kind, told.object_id, told.actor.name) == ("job.reassigned", "worker", "a", "ada")
    town.run(4)
    assert tasks_on(town, "a") == []
    assert set(moved) <= set(tasks_on(town, "b"))

    town.join("tiny", capacity=0)
    with pytest.raises(ConflictError):
        town.fleet.reassign_all("b", "tiny")
    assert town.store.move_requests.all() == {}


def test_rebalance_evens_the_fleet_out_in_bounded_steps() -> None:
    town = settled_town("a", jobs=12)
    town.join("b")
    town.run(3)
    assert tasks_on(town, "b") == []

    assert len(town.fleet.rebalance(max_moves=2, dry_run=True)) == 2
    town.run(2)
    assert tasks_on(town, "b") == []
    town.fleet.rebalance(max_moves=100)
    town.run(4)
    assert len(tasks_on(town, "a")) == len(tasks_on(town, "b")) == 6
    assert town.fleet.rebalance() == []


def test_plan_tells_what_a_loss_would_move_and_does_nothing() -> None:
    town = settled_town("a", "b")
    before = town.ensemble.snapshot()
    answer = town.fleet.plan({"lose": ["a"]})

    assert triples(answer.moves) == [(task, "a", "b") for task in tasks_on(town, "a")]
    assert {move.reason for move in answer.moves} == {MoveReason.WORKER_LOST}
    assert answer.unplaced == {}
    assert answer.load == {"b": pytest.approx(6 * 0.2)}
    assert town.ensemble.snapshot() == before


def test_plan_names_what_would_have_no_place() -> None:
    town = settled_town("a")
    answer = town.fleet.plan({"lose": ["a"], "drain": [], "add": []})

    assert set(answer.unplaced) == set(town.homes())
    assert answer.moves == []


def test_plan_with_a_new_worker_gives_it_what_has_no_place() -> None:
    town = settled_town("a")
    job = town.create(selector="gpu")
    town.run(2)
    answer = town.fleet.plan({"add": [{"labels": {"gpu": "yes"}, "capacity": 100}]})

    assert triples(answer.moves) == [(TaskId(job.id, 0), None, "new-1")]
    assert set(answer.load) == {"a", "new-1"}


def test_plan_names_an_unknown_worker() -> None:
    with pytest.raises(NotFoundError):
        settled_town("a").fleet.plan({"lose": ["nobody"]})


def test_fleet_says_that_zookeeper_is_away() -> None:
    town = settled_town("a")
    town.eyes.cut()

    for ask in (town.fleet.workers, lambda: town.fleet.cordon("a"), lambda: town.fleet.plan({})):
        with pytest.raises(UnavailableError):
            ask()
