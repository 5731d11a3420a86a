"""Pending runs of a backfill, as every store shows them to workers; and how long last runs took."""

from __future__ import annotations

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Store
from tests.contract.test_store.builders import MINUTE_MS, nonce, run

TASK, OTHER = TaskId(1, 0), TaskId(1, 1)


def wanted(minute: int, *, task: TaskId = TASK, at_once: int = 0, attempt: int = 1) -> Run:
    """A run that nobody has claimed: of a backfill, or (0) a plain one on demand."""
    key = RunKey(task, minute * MINUTE_MS, attempt)
    return Run(key, Trigger.MANUAL, RunState.PENDING, nonce=nonce(), generation=1, fence=at_once)


def claimed(pending: Run) -> Run:
    return pending.evolve(state=RunState.CLAIMED, worker="w1", nonce=nonce(), fence=7, claimed_ms=10)


def minutes(store: Store, *tasks: TaskId) -> list[tuple[int, int]]:
    return [(one.key.task.shard, one.key.fire_ms // MINUTE_MS) for one in store.runs.pending(tasks)]


def test_a_backfill_is_inserted_at_once_and_never_twice(store: Store) -> None:
    runs = [wanted(minute, at_once=2) for minute in range(1, 6)]
    # A worker has the task: whoever asks for a run is none, and needs no leave.
    given = Assignment(TASK, "w1", 1, 40, MoveReason.NEW, 10)
    store.assignments.save([given], term=store.terms.take("m1"))
    store.runs.claim([run(fire_ms=3 * MINUTE_MS)])
    again = [one.evolve(nonce=nonce()) for one in runs]
    assert [minute for minute, one in enumerate(runs, 1) if store.runs.request_many([one])[one.key]] == [1, 2, 4, 5]
    assert not any(store.runs.request_many(again).values())


def test_of_a_backfill_only_the_oldest_are_to_be_seen_and_plain_runs_on_demand_all(store: Store) -> None:
    store.runs.request_many([wanted(minute, at_once=2) for minute in (5, 3, 4, 6)])
    store.runs.request_many([wanted(minute, task=OTHER, at_once=1) for minute in (2, 1)])
    for minute in (8, 9, 10):
        store.runs.request(wanted(minute))
    assert minutes(store, TASK) == [(0, 3), (0, 4), (0, 8), (0, 9), (0, 10)]
    assert minutes(store, TASK, OTHER) == [*minutes(store, TASK), (1, 1)]
    assert minutes(store, TaskId(2, 0)) == []


def test_the_next_of_a_backfill_is_seen_when_one_has_ended(store: Store) -> None:
    runs = [wanted(minute, at_once=2) for minute in (3, 4, 5)]
    store.runs.request_many(runs)
    mine = claimed(runs[0])
    assert store.runs.claim_pending(mine)
    assert minutes(store, TASK) == [(0, 4)]
    started = mine.evolve(state=RunState.RUNNING, started_ms=20)
    store.runs.record([started])
    assert minutes(store, TASK) == [(0, 4)]
    store.runs.record([started.evolve(state=RunState.FAILED, ended_ms=30)])
    assert minutes(store, TASK) == [(0, 4), (0, 5)]
    assert store.runs.get(mine.key).fence == 7


def test_a_run_of_the_schedule_takes_no_place_of_a_backfill(store: Store) -> None:
    store.runs.claim([run(fire_ms=9 * MINUTE_MS)])
    store.runs.request_many([wanted(3, at_once=1)])
    assert minutes(store, TASK) == [(0, 3)]


def test_how_long_last_runs_took_is_known_of_those_that_ended(store: Store) -> None:
    began = [run(job, state=RunState.CLAIMED) for job in (1, 2, 3)]
    store.runs.claim([*began, run(4)])
    for one, took in zip(began, (0, 1500, None), strict=True):
        state = RunState.RUNNING if took is None else RunState.SUCCEEDED
        ended_ms = None if took is None else 100 + took
        store.runs.record([one.evolve(state=state, started_ms=100, ended_ms=ended_ms)])
    assert store.runs.last_durations() == {1: 0, 2: 1500}
