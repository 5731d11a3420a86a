"""The planner, rule by rule. What holds over whole histories is in test_planner_properties.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.labels import parse_selector
from cronkeeper.domain.placement import Assign, MoveReason, Revoke, WorkerState
from cronkeeper_manager.foresight import foresee, rebalance
from cronkeeper_manager.planner import decide, loads, plan, settle_requests, unplaced, why_not
from cronkeeper_manager.world import PlanTask, PlanWorker, World

ONE, TWO, THREE = TaskId(1, 0), TaskId(2, 0), TaskId(3, 0)


def task(task_id: TaskId, *, load: float = 1.0, selector: str | None = None, held: bool = False) -> PlanTask:
    return PlanTask(task_id, 1, load, None if selector is None else parse_selector(selector), held)


def worker(
    name: str,
    *,
    state: WorkerState = WorkerState.UP,
    capacity: int = 100,
    labels: Mapping[str, str] | None = None,
    settled: bool = True,
    skewed: bool = False,
) -> PlanWorker:
    return PlanWorker(name, labels or {}, capacity, state, settled, skewed)


def world(
    tasks: list[PlanTask],
    workers: list[PlanWorker],
    *,
    assigned: Mapping[str, set[TaskId]] | None = None,
    owned: Mapping[str, set[TaskId]] | None = None,
    last: Mapping[TaskId, str] | None = None,
    requests: Mapping[TaskId, str] | None = None,
) -> World:
    """A world in which what is assigned is owned, unless told otherwise."""
    given = assigned or {}
    return World(
        {t.id: t for t in tasks},
        {w.id: w for w in workers},
        given,
        given if owned is None else owned,
        {t: w for w, ts in given.items() for t in ts} if last is None else last,
        requests or {},
    )


def test_new_task_goes_to_the_least_loaded_worker() -> None:
    here = world([task(ONE), task(TWO, load=5)], [worker("a"), worker("b")], assigned={"a": {TWO}})

    assert plan(here) == [Assign(ONE, "b", MoveReason.NEW)]


def test_load_counts_in_fires_a_minute_and_not_in_tasks() -> None:
    many = [task(TaskId(n, 0), load=0.001) for n in range(10, 60)]
    here = world(
        [task(ONE), task(TWO, load=10), *many],
        [worker("a"), worker("b")],
        assigned={"a": {TWO}, "b": {t.id for t in many}},
    )

    assert plan(here) == [Assign(ONE, "b", MoveReason.NEW)]


def test_load_is_measured_against_each_workers_capacity() -> None:
    here = world(
        [task(ONE), task(TWO, load=2), task(THREE, load=4)],
        [worker("small", capacity=10), worker("large", capacity=100)],
        assigned={"small": {TWO}, "large": {THREE}},
    )

    assert plan(here) == [Assign(ONE, "large", MoveReason.NEW)]


def test_equal_tasks_are_spread_evenly() -> None:
    tasks = [task(TaskId(n, 0)) for n in range(1, 31)]
    moves = plan(world(tasks, [worker("a"), worker("b"), worker("c")]))

    assert sorted([move.worker for move in moves].count(name) for name in "abc") == [10, 10, 10]


def test_choice_does_not_depend_on_the_order_of_workers_or_tasks() -> None:
    tasks = [task(TaskId(n, 0)) for n in range(1, 20)]
    workers = [worker(name) for name in "abcd"]

    assert plan(world(tasks, workers)) == plan(world(tasks[::-1], workers[::-1]))


def test_selector_is_obeyed() -> None:
    here = world([task(ONE, selector="disk=ssd")], [worker("a"), worker("b", labels={"disk": "ssd"})])

    assert plan(here) == [Assign(ONE, "b", MoveReason.NEW)]


def test_selector_that_no_longer_matches_revokes() -> None:
    here = world([task(ONE, selector="disk=ssd")], [worker("a"), worker("b")], assigned={"a": {ONE}})

    assert plan(here) == [Revoke(ONE, "a", MoveReason.SELECTOR)]


def test_selector_of_a_worker_that_is_away_is_not_judged() -> None:
    here = world([task(ONE, selector="disk=ssd")], [worker("a", settled=False)], assigned={"a": {ONE}})

    assert plan(here) == []


def test_capacity_is_never_exceeded_by_a_new_task() -> None:
    here = world([task(ONE, load=8), task(TWO, load=8)], [worker("a", capacity=10)], assigned={"a": {ONE}})

    assert plan(here) == []
    assert unplaced(here) == {TWO: "no worker that may take it has room for 8 fires a minute more"}


def test_worker_that_is_too_full_after_an_edit_keeps_its_tasks() -> None:
    here = world([task(ONE, load=50)], [worker("a", capacity=10), worker("b")], assigned={"a": {ONE}})

    assert plan(here) == []


@pytest.mark.parametrize(
    ("case", "unfit"),
    [
        ("cordoned", worker("a", state=WorkerState.CORDONED)),
        ("draining", worker("a", state=WorkerState.DRAINING)),
        ("lost", worker("a", state=WorkerState.LOST)),
        ("away, nobody knows", worker("a", settled=False)),
        ("its clock is wrong", worker("a", skewed=True)),
        ("without capacity", worker("a", capacity=0)),
    ],
)
def test_nothing_new_goes_to_a_worker_that_is(case: str, unfit: PlanWorker) -> None:
    here = world([task(ONE)], [unfit])

    assert plan(here) == [], case
    assert ONE in unplaced(here)


@pytest.mark.parametrize(
    ("case", "keeper"),
    [
        ("cordoned", worker("a", state=WorkerState.CORDONED)),
        ("away, nobody knows", worker("a", settled=False)),
        ("its clock is wrong", worker("a", skewed=True)),
        ("draining with nobody else there", worker("a", state=WorkerState.DRAINING)),
    ],
)
def test_a_worker_keeps_what_it_has_while_it_is(case: str, keeper: PlanWorker) -> None:
    assert plan(world([task(ONE)], [keeper], assigned={"a": {ONE}})) == [], case


def test_newcomer_takes_nothing_that_has_a_home() -> None:
    tasks = [task(TaskId(n, 0)) for n in range(1, 50)]
    here = world(tasks, [worker("a"), worker("new")], assigned={"a": {t.id for t in tasks}})

    assert plan(here) == []


def test_death_moves_the_dead_workers_tasks_only() -> None:
    here = world(
        [task(ONE), task(TWO), task(THREE)],
        [worker("a", state=WorkerState.LOST), worker("b"), worker("c")],
        assigned={"a": {ONE}, "b": {TWO}, "c": {THREE}},
    )
    moves = plan(here)

    assert [(move.task, move.reason) for move in moves] == [(ONE, MoveReason.WORKER_LOST)]


def test_dead_workers_task_is_known_as_such_after_its_znodes_are_gone() -> None:
    here = world([task(ONE)], [worker("a", state=WorkerState.LOST), worker("b")], last={ONE: "a"})

    assert plan(here) == [Assign(ONE, "b", MoveReason.WORKER_LOST)]


def test_task_is_assigned_only_after_its_release_was_observed() -> None:
    released = world([task(ONE)], [worker("a"), worker("b")], last={ONE: ""})
    releasing = replace(released, owned={"a": {ONE}})

    assert plan(releasing) == []
    assert unplaced(releasing) == {ONE: "waiting until a has let go of it"}
    assert [(move.task, move.reason) for move in plan(released)] == [(ONE, MoveReason.HANDOVER)]


def test_ownership_of_a_lost_worker_does_not_count() -> None:
    here = world([task(ONE)], [worker("a", state=WorkerState.LOST), worker("b")], owned={"a": {ONE}}, last={ONE: "a"})

    assert plan(here) == [Assign(ONE, "b", MoveReason.WORKER_LOST)]


def test_ownership_of_a_worker_that_is_merely_away_counts() -> None:
    here = world([task(ONE)], [worker("a", settled=False), worker("b")], owned={"a": {ONE}}, last={ONE: ""})

    assert plan(here) == []


def test_draining_worker_is_relieved_of_what_fits_elsewhere() -> None:
    here = world(
        [task(ONE, load=3), task(TWO, load=2)],
        [worker("a", state=WorkerState.DRAINING), worker("b", capacity=4)],
        assigned={"a": {ONE, TWO}},
    )
    decision = decide(here)

    assert decision.moves == [Revoke(ONE, "a", MoveReason.DRAIN)]
    assert decision.staying == {TWO: "no worker that may take it has room for 2 fires a minute more"}


def test_room_promised_to_a_task_on_its_way_is_not_given_to_another() -> None:
    here = world(
        [task(ONE, load=3), task(TWO, load=2)],
        [worker("a", state=WorkerState.DRAINING), worker("b", capacity=4)],
        owned={"a": {ONE}},
        last={ONE: ""},
    )

    assert plan(here) == []


def test_removed_task_is_revoked() -> None:
    assert plan(world([], [worker("a")], assigned={"a": {ONE}})) == [Revoke(ONE, "a", MoveReason.REMOVED)]


def test_task_given_to_two_stays_with_the_one_that_owns_it() -> None:
    here = world([task(ONE)], [worker("a"), worker("b")], assigned={"a": {ONE}, "b": {ONE}}, owned={"b": {ONE}})

    assert plan(here) == [Revoke(ONE, "a", MoveReason.HANDOVER)]


def test_after_a_wipe_everybody_gets_back_what_it_had() -> None:
    tasks = [task(TaskId(n, 0)) for n in range(1, 21)]
    workers = [worker(name, settled=False) for name in "abc"]
    last = {t.id: "abc"[t.id.job_id % 3] for t in tasks}
    moves = plan(world(tasks, workers, last=last))

    assert {move.task: move.worker for move in moves} == last
    assert {move.reason for move in moves} == {MoveReason.RESTORE}


def test_restore_comes_before_new_tasks() -> None:
    here = world([task(ONE, load=8), task(TWO, load=3)], [worker("a", capacity=10)], last={TWO: "a"})

    assert plan(here) == [Assign(TWO, "a", MoveReason.RESTORE)]


def test_assignment_that_vanished_is_given_back_to_its_owner_at_once() -> None:
    here = world([task(ONE)], [worker("a"), worker("b")], owned={"a": {ONE}}, last={ONE: "a"})

    assert plan(here) == [Assign(ONE, "a", MoveReason.RESTORE)]


def test_request_revokes_then_assigns_to_the_wished_worker() -> None:
    before = world([task(ONE)], [worker("a"), worker("b")], assigned={"a": {ONE}}, requests={ONE: "b"})
    after = world([task(ONE)], [worker("a"), worker("b")], last={ONE: ""}, requests={ONE: "b"})

    assert plan(before) == [Revoke(ONE, "a", MoveReason.REASSIGN)]
    assert plan(after) == [Assign(ONE, "b", MoveReason.REASSIGN)]


def test_request_is_fulfilled_when_the_task_is_there() -> None:
    here = world([task(ONE)], [worker("a"), worker("b")], assigned={"b": {ONE}}, requests={ONE: "b"})

    assert settle_requests(here) == ({ONE}, {})


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (worker("b", state=WorkerState.LOST), "worker b is lost"),
        (worker("b", state=WorkerState.CORDONED), "worker b is cordoned"),
        (worker("b", skewed=True), "the clock of worker b is wrong"),
        (worker("b", capacity=0), "worker b has no room for 1 fires a minute more"),
        (worker("b", labels={"disk": "hdd"}), "the labels of worker b do not match disk=ssd"),
        (worker("c", labels={"disk": "ssd"}), "worker b is not known"),
    ],
)
def test_impossible_request_moves_nothing_and_is_named(target: PlanWorker, why: str) -> None:
    here = world(
        [task(ONE, selector="disk=ssd")],
        [worker("a", labels={"disk": "ssd"}), replace(target, labels=target.labels or {"disk": "ssd"})],
        assigned={"a": {ONE}},
        requests={ONE: "b"},
    )

    assert plan(here) == []
    assert settle_requests(here) == (set(), {ONE: why})
    assert why_not(here, ONE, "b") == why


def test_request_waits_while_its_worker_is_away() -> None:
    here = world([task(ONE)], [worker("a"), worker("b", settled=False)], assigned={"a": {ONE}}, requests={ONE: "b"})

    assert plan(here) == []
    assert settle_requests(here) == (set(), {})


def test_request_for_a_task_that_is_gone_is_impossible() -> None:
    assert settle_requests(world([], [worker("b")], requests={ONE: "b"})) == (
        set(),
        {ONE: "there is no such task any more"},
    )


def test_held_task_stays_where_it_is_even_on_a_draining_worker() -> None:
    here = world([task(ONE, held=True)], [worker("a", state=WorkerState.DRAINING), worker("b")], assigned={"a": {ONE}})

    assert plan(here) == []


def test_held_task_is_not_placed_but_restored() -> None:
    fresh = world([task(ONE, held=True)], [worker("a")])

    assert plan(fresh) == []
    assert ONE in unplaced(fresh)
    assert plan(replace(fresh, last={ONE: "a"})) == [Assign(ONE, "a", MoveReason.RESTORE)]


def test_loads_count_what_is_still_owned() -> None:
    here = world([task(ONE, load=2), task(TWO, load=3)], [worker("a")], assigned={"a": {ONE}}, owned={"a": {ONE, TWO}})

    assert loads(here) == {"a": 5}


def test_rebalance_moves_towards_the_empty_worker_and_stops_when_even() -> None:
    tasks = [task(TaskId(n, 0)) for n in range(1, 11)]
    here = world(tasks, [worker("a"), worker("b")], assigned={"a": {t.id for t in tasks}})
    moves = rebalance(here, max_moves=100)

    assert len(moves) == 5
    assert {(move.worker, move.reason) for move in moves} == {("b", MoveReason.REBALANCE)}
    assert len(rebalance(here, max_moves=3)) == 3


def test_rebalance_leaves_an_even_fleet_alone() -> None:
    here = world([task(ONE), task(TWO)], [worker("a"), worker("b")], assigned={"a": {ONE}, "b": {TWO}})

    assert rebalance(here, max_moves=10) == []


def test_rebalance_obeys_selectors_and_capacity() -> None:
    here = world(
        [task(ONE, load=4, selector="disk=ssd"), task(TWO, load=4), task(THREE, load=4)],
        [worker("a", capacity=12, labels={"disk": "ssd"}), worker("b", capacity=4)],
        assigned={"a": {ONE, TWO, THREE}},
    )

    assert rebalance(here, max_moves=10) == []
    assert [m.task for m in rebalance(replace(here, workers={**here.workers, "b": worker("b")}), max_moves=9)] == [
        TWO,
        THREE,
    ]


def test_foresight_plays_a_drain_to_its_end() -> None:
    here = world(
        [task(ONE), task(TWO)],
        [worker("a", state=WorkerState.DRAINING), worker("b")],
        assigned={"a": {ONE}, "b": {TWO}},
    )
    journeys, end = foresee(here)

    assert [(j.task, j.origin, j.target, j.reason) for j in journeys] == [(ONE, "a", "b", MoveReason.DRAIN)]
    assert end.assigned["b"] == {ONE, TWO}


def test_task_owned_by_two_is_given_to_nobody_until_one_is_left() -> None:
    here = world([task(ONE)], [worker("a"), worker("b")], owned={"a": {ONE}, "b": {ONE}}, last={ONE: "b"})

    assert plan(here) == []


# ---------------------------------------------------------------------------------------------- secrets, two witnesses

KEY, OTHER = frozenset({"key-one"}), frozenset({"key-two"})


def test_task_with_secrets_goes_to_a_worker_that_holds_their_key() -> None:
    secretive = replace(task(ONE), keys=KEY)
    holder, stranger = replace(worker("b"), keys=KEY | OTHER), replace(worker("a"), keys=OTHER)
    here = world([secretive, task(TWO, load=5)], [stranger, holder], assigned={"b": {TWO}})

    assert plan(here) == [Assign(ONE, "b", MoveReason.NEW)]


def test_task_with_secrets_needs_all_of_their_keys() -> None:
    here = world([replace(task(ONE), keys=KEY | OTHER)], [replace(worker("a"), keys=KEY)])

    assert plan(here) == []


def test_task_with_secrets_that_nobody_can_open_has_no_worker_and_a_reason_of_its_own() -> None:
    here = world([replace(task(ONE), keys=KEY)], [replace(worker("a"), keys=frozenset())])

    assert "the key of its secrets" in unplaced(here)[ONE]


def test_worker_that_does_not_say_which_keys_it_holds_is_given_secrets_as_before() -> None:
    here = world([replace(task(ONE), keys=KEY)], [worker("a")])

    assert plan(here) == [Assign(ONE, "a", MoveReason.NEW)]


def test_worker_that_has_lost_the_key_lets_go_of_tasks_with_secrets_and_of_no_other() -> None:
    here = world(
        [replace(task(ONE), keys=KEY), task(TWO)],
        [replace(worker("a"), keys=frozenset()), replace(worker("b"), keys=KEY)],
        assigned={"a": {ONE, TWO}},
    )

    assert plan(here) == [Revoke(ONE, "a", MoveReason.SECRETS)]


def test_worker_that_is_away_keeps_its_tasks_with_secrets_until_it_says_what_it_holds() -> None:
    away = replace(worker("a", settled=False), keys=frozenset())
    here = world([replace(task(ONE), keys=KEY)], [away, replace(worker("b"), keys=KEY)], assigned={"a": {ONE}})

    assert plan(here) == []


def test_task_with_secrets_is_not_restored_to_a_worker_without_their_key() -> None:
    here = world(
        [replace(task(ONE), keys=KEY)],
        [replace(worker("a"), keys=frozenset()), replace(worker("b"), keys=KEY)],
        last={ONE: "a"},
    )

    assert plan(here) == [Assign(ONE, "b", MoveReason.HANDOVER)]


def test_request_to_a_worker_without_the_key_is_impossible_and_says_so() -> None:
    here = world(
        [replace(task(ONE), keys=KEY)],
        [replace(worker("a"), keys=KEY), replace(worker("b"), keys=OTHER)],
        assigned={"a": {ONE}},
        requests={ONE: "b"},
    )

    assert "key of the job's secrets" in settle_requests(here)[1][ONE]
    assert plan(here) == []


def test_rebalancing_moves_no_task_with_secrets_to_a_worker_without_their_key() -> None:
    here = world(
        [replace(task(ONE), keys=KEY), replace(task(TWO), keys=KEY)],
        [replace(worker("a"), keys=KEY), replace(worker("b"), keys=frozenset())],
        assigned={"a": {ONE, TWO}},
    )

    assert rebalance(here, max_moves=5) == []


def test_nodes_own_task_with_secrets_stays_with_its_node() -> None:
    own = replace(task(ONE), keys=KEY, only="a")
    here = world([own], [replace(worker("a"), keys=frozenset())], assigned={"a": {ONE}})

    assert plan(here) == []


def test_worker_of_which_mysql_has_never_heard_is_given_nothing_new() -> None:
    here = world(
        [task(ONE), task(TWO)], [replace(worker("ghost"), unheard=True), worker("a")], assigned={"ghost": {TWO}}
    )

    assert plan(here) == [Assign(ONE, "a", MoveReason.NEW)]
    assert why_not(here, TWO, "ghost") == "MySQL has never heard of worker ghost"
