"""Reports: a row only moves forward, only for its owner, and only along the transition table."""

from __future__ import annotations

from typing import Any

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import LastRun
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.run import Reason, Run, RunState, reachable_from
from cronkeeper.ports import Store
from tests.contract.test_store.builders import MINUTE_MS, new_job, nonce, recorded, run

TASK = TaskId(1, 0)


@pytest.mark.parametrize("old", RunState)
def test_a_report_moves_a_row_where_the_table_leads_and_nowhere_else(store: Store, old: RunState) -> None:
    for index, new in enumerate(RunState):
        mine = run(state=old, fire_ms=(1 + index) * MINUTE_MS)
        assert store.runs.record([mine]) == []
        assert store.runs.record([mine.evolve(state=new)]) == []
        allowed = new in reachable_from(old)
        if (old, new) in {(RunState.LOST, RunState.TIMED_OUT), (RunState.LOST, RunState.CANCELLED)}:
            assert store.runs.get(mine.key).state is RunState.FAILED, (
                "a late end that the table does not know has failed"
            )
        else:
            assert store.runs.get(mine.key).state is (new if allowed else old), f"{old} -> {new}"


def test_a_claimed_run_goes_through_its_life(store: Store) -> None:
    mine = run()
    store.runs.claim([mine])
    running = mine.evolve(state=RunState.RUNNING, started_ms=20)
    store.runs.record([running])
    assert store.runs.get(mine.key) == running
    ended = running.evolve(
        state=RunState.FAILED, ended_ms=30, exit_code=3, output_tail="oh no\U0001f4a5", output_bytes=7, reason=None
    )
    store.runs.record([ended])
    assert store.runs.get(mine.key) == ended


def test_an_end_clears_nothing_that_it_does_not_know(store: Store) -> None:
    started = recorded(
        store, RunState.RUNNING, started_ms=20, fence=7, generation=4, output_tail="so far", output_bytes=6
    )
    ended = Run(started.key, started.trigger, RunState.SUCCEEDED, nonce=started.nonce, ended_ms=30, exit_code=0)
    assert store.runs.record([ended]) == []
    assert store.runs.get(started.key) == started.evolve(state=RunState.SUCCEEDED, ended_ms=30, exit_code=0)


def test_a_report_does_not_take_back_a_wish_to_cancel(store: Store) -> None:
    running = recorded(store, RunState.RUNNING)
    store.runs.request_cancel(running.key)
    store.runs.record([running.evolve(state=RunState.CANCELLED, signal=15, cancel_requested=False)])
    stored = store.runs.get(running.key)
    assert (stored.state, stored.signal, stored.cancel_requested) == (RunState.CANCELLED, 15, True)


def test_a_spooled_run_is_inserted_as_it_is(store: Store) -> None:
    spooled = run(state=RunState.SUCCEEDED, autonomous=True, started_ms=11, ended_ms=12, exit_code=0)
    assert store.runs.record([spooled]) == []
    assert store.runs.get(spooled.key) == spooled


def test_repeating_a_report_changes_nothing(store: Store) -> None:
    spooled = run(state=RunState.RUNNING, started_ms=11)
    for _ in range(3):
        assert store.runs.record([spooled]) == []
    assert store.runs.get(spooled.key) == spooled


def test_an_older_report_that_comes_late_changes_nothing(store: Store) -> None:
    done = recorded(store, RunState.SUCCEEDED, exit_code=0)
    assert store.runs.record([done.evolve(state=RunState.RUNNING, exit_code=9, ended_ms=1)]) == []
    assert store.runs.get(done.key) == done


def test_what_one_worker_skipped_and_another_one_ran_has_run(store: Store) -> None:
    skipped = recorded(store, RunState.SKIPPED, worker="w2", reason=Reason.LATE, claimed_ms=None)
    claimed = run(state=RunState.CLAIMED, worker="w1", autonomous=True)
    assert store.runs.record([claimed]) == [claimed.key], "nothing has started yet"
    assert store.runs.get(skipped.key) == skipped
    running = claimed.evolve(state=RunState.RUNNING, started_ms=MINUTE_MS + 5)
    done = running.evolve(state=RunState.FAILED, ended_ms=MINUTE_MS + 9, exit_code=3)
    assert store.runs.record([running, done]) == []
    assert store.runs.record([running, done]) == []
    assert store.runs.get(skipped.key) == done
    assert store.runs.record([skipped]) == [skipped.key], "and it stays so"
    assert store.runs.record([done.evolve(nonce=nonce(), state=RunState.SUCCEEDED)]) == [done.key]
    assert store.runs.get(skipped.key) == done


def test_a_double_start_is_returned_and_does_not_touch_the_row(store: Store) -> None:
    theirs = recorded(store, RunState.RUNNING, worker="w2")
    mine = run(state=RunState.SUCCEEDED, worker="w1", exit_code=0)
    other = run(job_id=2, state=RunState.SUCCEEDED)
    assert store.runs.record([mine, other]) == [mine.key]
    assert store.runs.record([mine, other]) == [mine.key], "it stays a double, however often it is told"
    assert store.runs.get(theirs.key) == theirs
    assert store.runs.get(other.key) == other


def test_one_batch_may_hold_several_reports_of_one_run(store: Store) -> None:
    claimed = run()
    life = [claimed.evolve(state=state) for state in (RunState.CLAIMED, RunState.RUNNING, RunState.SUCCEEDED)]
    assert store.runs.record([life[0], run(job_id=9, state=RunState.RUNNING), life[1], life[2]]) == []
    assert store.runs.get(claimed.key).state is RunState.SUCCEEDED


def test_a_pending_run_that_another_fence_granted_becomes_the_reporters(store: Store) -> None:
    asked = run(state=RunState.PENDING, worker="", nonce="", generation=0, fence=0, claimed_ms=None)
    store.runs.request(asked)
    done = run(state=RunState.SUCCEEDED, worker="w3", exit_code=0)
    assert store.runs.record([done]) == []
    stored = store.runs.get(asked.key)
    assert (stored.state, stored.worker, stored.nonce) == (RunState.SUCCEEDED, "w3", done.nonce)


def test_a_released_run_may_be_claimed_by_another(store: Store) -> None:
    mine = recorded(store, RunState.CLAIMED)
    assert store.runs.record([mine.evolve(state=RunState.PENDING)]) == []
    assert store.runs.claim_pending(run(worker="w2"))
    assert store.runs.get(mine.key).worker == "w2"
    assert store.runs.record([mine.evolve(state=RunState.RUNNING)]) == [mine.key]


def test_the_late_truth_of_a_lost_run_is_told(store: Store) -> None:
    lost = recorded(store, RunState.LOST, reason=Reason.WORKER_LOST)
    store.runs.record([lost.evolve(state=RunState.SUCCEEDED, exit_code=0, ended_ms=70, reason=None)])
    stored = store.runs.get(lost.key)
    assert (stored.state, stored.exit_code, stored.ended_ms) == (RunState.SUCCEEDED, 0, 70)


def test_output_that_is_no_text_does_not_hold_up_the_batch(store: Store) -> None:
    odd = run(state=RunState.FAILED, output_tail="nul \x00, quote ' \\ %s, line\r\n\u2028")
    assert store.runs.record([odd]) == []
    assert store.runs.get(odd.key).output_tail == odd.output_tail
    broken = run(job_id=2, state=RunState.FAILED, output_tail="half a pair \ud83d")
    assert store.runs.record([broken]) == []
    assert store.runs.get(broken.key).output_tail.startswith("half a pair ")


def test_thousands_of_reports_are_one_call(store: Store) -> None:
    runs = [run(job_id=1 + number % 40, fire_ms=number * MINUTE_MS) for number in range(1, 1201)]
    store.runs.claim(runs)
    assert store.runs.record([item.evolve(state=RunState.SUCCEEDED) for item in runs]) == []
    assert {item.state for item in store.runs.history(1, limit=100)} == {RunState.SUCCEEDED}
    foreign = [item.evolve(nonce=nonce(), state=RunState.FAILED) for item in runs[::7]]
    assert store.runs.record(foreign) == sorted(item.key for item in foreign)


def test_nothing_is_recorded_by_an_empty_call(store: Store) -> None:
    assert store.runs.record([]) == []


def head(store: Store, job_id: int) -> tuple[str, RunState] | None:
    last = store.jobs.get(job_id).last_run
    return None if last is None else (last.run_id, last.state)


def test_the_last_run_only_moves_forward(store: Store) -> None:
    job = store.jobs.create(new_job())
    newer = recorded(store, RunState.RUNNING, job_id=job.id, fire_ms=5 * MINUTE_MS)
    assert head(store, job.id) == (newer.id, RunState.RUNNING)
    recorded(store, RunState.FAILED, job_id=job.id, fire_ms=4 * MINUTE_MS)
    assert head(store, job.id) == (newer.id, RunState.RUNNING)
    store.runs.record([newer.evolve(state=RunState.SUCCEEDED, ended_ms=8)])
    assert head(store, job.id) == (newer.id, RunState.SUCCEEDED)
    again = recorded(store, RunState.FAILED, job_id=job.id, fire_ms=5 * MINUTE_MS, attempt=2)
    assert head(store, job.id) == (again.id, RunState.FAILED)


def test_a_newer_fire_is_the_last_run_whatever_its_attempt_and_shard(store: Store) -> None:
    job = store.jobs.create(new_job())
    recorded(store, RunState.FAILED, job_id=job.id, fire_ms=MINUTE_MS, attempt=3, shard=2, ended_ms=5)
    newer = recorded(store, RunState.RUNNING, job_id=job.id, fire_ms=2 * MINUTE_MS, attempt=1, shard=0)
    last = store.jobs.get(job.id).last_run
    assert last == LastRun(newer.id, newer.key.fire_ms, RunState.RUNNING, None)


def test_the_last_run_is_the_newest_of_its_batch(store: Store) -> None:
    first, second = store.jobs.save_many([new_job(), new_job()], [], [])
    runs = [
        run(job_id=job.id, fire_ms=minute * MINUTE_MS, state=state)
        for job in (first, second)
        for minute, state in ((3, RunState.FAILED), (1, RunState.SUCCEEDED), (2, RunState.TIMED_OUT))
    ]
    store.runs.record(runs)
    assert head(store, first.id) == (runs[0].id, RunState.FAILED)
    assert head(store, second.id) == (runs[3].id, RunState.FAILED)


def test_a_fire_that_was_skipped_is_not_the_last_run(store: Store) -> None:
    job = store.jobs.create(new_job())
    running = recorded(store, RunState.RUNNING, job_id=job.id, fire_ms=MINUTE_MS)
    skipped = run(job_id=job.id, fire_ms=2 * MINUTE_MS, state=RunState.SKIPPED, reason=Reason.OVERLAP)
    store.runs.record([skipped])
    store.runs.record([running.evolve(state=RunState.FAILED)])
    assert head(store, job.id) == (running.id, RunState.FAILED)
    assert store.runs.get(skipped.key).reason is Reason.OVERLAP


def test_another_workers_run_does_not_become_the_last_one_by_my_report(store: Store) -> None:
    job = store.jobs.create(new_job())
    theirs = recorded(store, RunState.RUNNING, job_id=job.id, worker="w2")
    store.runs.record([run(job_id=job.id, state=RunState.FAILED)])
    assert head(store, job.id) == (theirs.id, RunState.RUNNING)


def test_a_former_owner_skips_nothing_that_was_due_after_its_task_went_to_another(store: Store) -> None:
    given = Assignment(TASK, "w2", 1, 9, MoveReason.WORKER_LOST, 5 * MINUTE_MS, 0)
    store.assignments.save([given], term=store.terms.take("m1"))

    def told(minute: int, **fields: Any) -> bool:
        mine = run(fire_ms=minute * MINUTE_MS, **{"state": RunState.SKIPPED, "reason": Reason.OVERLAP} | fields)
        assert store.runs.record([mine]) == []
        return store.runs.at(1, mine.key.fire_ms) == [mine]

    assert [told(minute) for minute in (4, 5, 6)] == [True, True, False]
    # What it ran is told in any case; the owner skips what it likes, before and after.
    assert told(7, state=RunState.SUCCEEDED, reason=None, started_ms=1)
    assert told(8, worker="w2", fence=9)
    # Another owner may decide what was left out.
    assert store.runs.claim([run(fire_ms=6 * MINUTE_MS, worker="w2", fence=9)]) == {
        RunKey(TASK, 6 * MINUTE_MS, 1): True
    }
