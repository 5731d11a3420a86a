"""Claims: exactly one owner for each (task, fire time, attempt), whatever races, repeats and losses there are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.ports import Store
from tests.contract.test_store.builders import MINUTE_MS, new_job, nonce, recorded, run


def test_the_first_claim_wins(store: Store) -> None:
    mine = run(worker="w1")
    assert store.runs.claim([mine]) == {mine.key: True}
    assert store.runs.claim([run(worker="w2")]) == {mine.key: False}
    assert store.runs.get(mine.key) == mine


def test_a_claim_comes_back_as_it_was_made(store: Store) -> None:
    mine = run(
        shard=3,
        fire_ms=1_700_000_000_123,
        attempt=2,
        trigger=Trigger.CATCH_UP,
        autonomous=True,
        generation=12,
        fence=9_000_000_000,
        claimed_ms=1_700_000_000_500,
    )
    store.runs.claim([mine])
    assert store.runs.get(mine.key) == mine
    assert mine.id == f"1-3-{mine.key.fire_ms}-2"


def test_shards_fire_times_and_attempts_are_claimed_apart(store: Store) -> None:
    runs = [run(), run(shard=1), run(fire_ms=2 * MINUTE_MS), run(attempt=2), run(job_id=2)]
    assert store.runs.claim(runs) == {mine.key: True for mine in runs}


def test_claiming_again_with_the_same_nonces_is_safe(store: Store) -> None:
    runs = [run(shard=shard) for shard in range(5)]
    store.runs.claim(runs[:3])
    assert store.runs.claim(runs) == {mine.key: True for mine in runs}


def test_who_had_the_task_before_its_present_owner_is_granted_nothing_new(store: Store) -> None:
    early = run(worker="w1", fence=5)
    assert store.runs.claim([early]) == {early.key: True}
    given = Assignment(early.key.task, "w2", 1, 6, MoveReason.WORKER_LOST, 1000)
    store.assignments.save([given], term=store.terms.take("m1"))
    late = [run(worker="w1", fence=5, fire_ms=(2 + number) * MINUTE_MS) for number in range(3)]
    assert store.runs.claim([early, *late]) == {early.key: True, **{item.key: False for item in late}}
    theirs = run(worker="w2", fence=6, fire_ms=late[0].key.fire_ms)
    assert store.runs.claim([theirs]) == {theirs.key: True}


def test_who_had_the_task_before_is_granted_nothing_new_also_where_it_asks_for_one_fire_alone(store: Store) -> None:
    early, late = (run(worker="w1", fence=5, fire_ms=number * MINUTE_MS) for number in (1, 2))
    assert store.runs.claim([early]) == {early.key: True}
    given = Assignment(early.key.task, "w2", 1, 6, MoveReason.WORKER_LOST, 1000)
    store.assignments.save([given], term=store.terms.take("m1"))
    assert store.runs.claim([late]) == {late.key: False}
    assert store.runs.claim([early]) == {early.key: True}, "what it had before is its own"
    theirs = run(worker="w2", fence=6, fire_ms=late.key.fire_ms)
    assert store.runs.claim([theirs]) == {theirs.key: True}


def test_the_task_given_anew_to_its_owner_or_to_nobody_takes_nothing_away(store: Store) -> None:
    term = store.terms.take("m1")
    for number, worker in enumerate(("w1", "")):
        store.assignments.save([Assignment(TaskId(1, 0), worker, 1, 9, MoveReason.RESTORE, 1000)], term=term)
        mine = run(worker="w1", fence=5, fire_ms=(2 + number) * MINUTE_MS)
        assert store.runs.claim([mine]) == {mine.key: True}


def test_in_a_mixed_batch_each_key_is_judged_alone(store: Store) -> None:
    theirs = [run(shard=shard, worker="w2") for shard in (1, 3)]
    store.runs.claim(theirs)
    mine = [run(shard=shard) for shard in range(5)]
    won = store.runs.claim(mine)
    assert [won[item.key] for item in mine] == [True, False, True, False, True]
    assert store.runs.get(mine[0].key) == mine[0]
    assert store.runs.get(mine[1].key) == theirs[0]


def test_a_claim_never_moves_a_row_that_is_there(store: Store) -> None:
    done = recorded(store, RunState.SUCCEEDED)
    assert store.runs.claim([run(nonce=done.nonce)]) == {done.key: True}
    assert store.runs.get(done.key) == done


def test_a_claim_that_was_given_up_is_not_ours_any_more(store: Store) -> None:
    mine = run(worker="w1")
    store.runs.claim([mine])
    store.runs.lose("w1", term=store.terms.take("m1"), reason="worker_lost")
    assert store.runs.claim([mine]) == {mine.key: False}


def test_a_claim_is_given_up_by_whose_it_is(store: Store) -> None:
    job = store.jobs.create(new_job())
    mine = [run(job_id=job.id, shard=shard, reason=reason) for shard, reason in enumerate((None, Reason.ISOLATED))]
    theirs, goes_on = (
        run(job_id=job.id, shard=2, worker="w2"),
        recorded(store, RunState.RUNNING, job_id=job.id, shard=3),
    )
    absent = run(job_id=job.id, shard=4)
    store.runs.claim([*mine, theirs])
    asked = [*mine, theirs.evolve(nonce=nonce(), worker="w1"), goes_on, absent]
    given_up = [item.evolve(reason=Reason.FENCE_REFUSED) for item in asked]
    assert store.runs.give_up(given_up) == [item.key for item in mine]
    assert [store.runs.get(item.key) for item in mine] == [
        item.evolve(state=RunState.LOST, reason=Reason.FENCE_REFUSED) for item in mine
    ]
    assert (store.runs.get(theirs.key), store.runs.get(goes_on.key)) == (theirs, goes_on)
    assert store.runs.claim(mine) == {item.key: False for item in mine}
    # Who asks again hears the same; and nothing was put where nothing was: who claims it now gets it.
    assert store.runs.give_up(given_up) == [item.key for item in mine]
    assert store.runs.claim([absent]) == {absent.key: True}
    assert [item.key for item in store.runs.lost_runs([item.key.task for item in mine], since_ms=0)] == [
        item.key for item in mine
    ]


def test_each_claim_is_given_up_with_a_reason_of_its_own(store: Store) -> None:
    mine = [run(shard=shard) for shard in range(2)]
    store.runs.claim(mine)
    reasons = (Reason.ISOLATED, Reason.FENCE_REFUSED)
    store.runs.give_up([item.evolve(reason=reason) for item, reason in zip(mine, reasons, strict=True)])
    assert tuple(store.runs.get(item.key).reason for item in mine) == reasons
    assert store.runs.give_up([]) == []


def test_thousands_are_given_up_in_one_call(store: Store) -> None:
    runs = [run(job_id=1 + number % 50, fire_ms=number * MINUTE_MS) for number in range(1, 1301)]
    store.runs.claim(runs)
    assert sorted(store.runs.give_up(runs)) == sorted(item.key for item in runs)


def test_thousands_are_claimed_in_one_call(store: Store) -> None:
    runs = [run(job_id=1 + number % 50, fire_ms=number * MINUTE_MS) for number in range(1, 1301)]
    won = store.runs.claim(runs)
    assert len(won) == 1300 and all(won.values())
    assert not any(store.runs.claim([item.evolve(nonce=nonce()) for item in runs]).values())


def test_nothing_is_claimed_by_an_empty_call(store: Store) -> None:
    assert store.runs.claim([]) == {}


def test_two_workers_racing_one_by_one_never_both_win(store: Store) -> None:
    keys = [RunKey(TaskId(1, 0), number * MINUTE_MS, 1) for number in range(1, 201)]
    start = threading.Barrier(2)

    def race(worker: str) -> dict[RunKey, bool]:
        start.wait()
        won: dict[RunKey, bool] = {}
        for key in keys:
            won |= store.runs.claim([_claim(key, worker)])
        return won

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(race, ["w1", "w2"])
    _assert_one_winner_each(store, keys, {"w1": first, "w2": second})


def test_workers_racing_for_a_batch_never_both_win(store: Store) -> None:
    keys = [RunKey(TaskId(number, 0), MINUTE_MS, 1) for number in range(1, 201)]
    workers = ["w1", "w2", "w3", "w4"]
    start = threading.Barrier(len(workers))

    def race(worker: str) -> dict[RunKey, bool]:
        # Each in another order, as nodes see their tasks in no common one.
        mine = keys if worker < "w3" else keys[::-1]
        start.wait()
        return store.runs.claim([_claim(key, worker) for key in mine])

    with ThreadPoolExecutor(len(workers)) as pool:
        results = dict(zip(workers, pool.map(race, workers), strict=True))
    _assert_one_winner_each(store, keys, results)


def _claim(key: RunKey, worker: str) -> Run:
    return Run(key, Trigger.TIMER, RunState.CLAIMED, worker=worker, nonce=nonce(), claimed_ms=1)


def _assert_one_winner_each(store: Store, keys: list[RunKey], results: dict[str, dict[RunKey, bool]]) -> None:
    for key in keys:
        winners = [worker for worker, won in results.items() if won[key]]
        assert winners == [store.runs.get(key).worker], key
