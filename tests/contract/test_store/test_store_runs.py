from __future__ import annotations

from dataclasses import replace

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.errors import ConflictError, FencedError, NotFoundError
from cronkeeper.ports import LastFire, Span, Store
from tests.contract.test_store.builders import MINUTE_MS, new_job, on_demand, recorded, run

TASK = TaskId(1, 0)
#: Everything that has a row counts.
EVER = Span(2**62, 2**62)


def test_an_unknown_run_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.runs.get(run().key)


def test_history_is_newest_first_and_pages_through_shards_and_attempts(store: Store) -> None:
    places = [(fire, shard, attempt) for fire in (1, 2, 3) for shard in (0, 1) for attempt in (1, 2)]
    runs = [run(fire_ms=fire * MINUTE_MS, shard=shard, attempt=attempt) for fire, shard, attempt in places]
    store.runs.claim([*runs, run(job_id=2)])
    expected = runs[::-1]
    assert store.runs.history(1, limit=100) == expected
    seen = store.runs.history(1, limit=5)
    while page := store.runs.history(1, limit=5, before=seen[-1].key):
        assert len(page) <= 5
        seen += page
    assert seen == expected


def test_at_returns_every_shard_and_attempt_of_one_fire(store: Store) -> None:
    runs = [run(shard=shard, attempt=attempt) for shard in (0, 1, 10) for attempt in (1, 2)]
    store.runs.claim([*runs, run(fire_ms=MINUTE_MS + 1), run(job_id=2)])
    assert store.runs.at(1, MINUTE_MS) == runs


def test_last_fires_know_each_tasks_newest_scheduled_fire(store: Store) -> None:
    store.runs.claim(
        [
            run(fire_ms=1 * MINUTE_MS),
            run(fire_ms=3 * MINUTE_MS, trigger=Trigger.TIMER),
            run(fire_ms=2 * MINUTE_MS),
            run(fire_ms=9 * MINUTE_MS, trigger=Trigger.MANUAL),
            run(fire_ms=9 * MINUTE_MS, trigger=Trigger.RETRY, attempt=2),
            run(shard=1, fire_ms=4 * MINUTE_MS, trigger=Trigger.CATCH_UP),
            run(job_id=2, fire_ms=5 * MINUTE_MS),
        ]
    )
    store.runs.record([run(shard=2, fire_ms=7 * MINUTE_MS, state=RunState.SKIPPED, reason=Reason.LATE)])
    tasks = [TaskId(1, 0), TaskId(1, 1), TaskId(1, 2), TaskId(1, 3), TaskId(3, 0)]
    assert store.runs.last_fires(dict.fromkeys(tasks, EVER)) == {
        TaskId(1, 0): LastFire(3 * MINUTE_MS, 1),
        TaskId(1, 1): LastFire(4 * MINUTE_MS, 1),
        TaskId(1, 2): LastFire(7 * MINUTE_MS, 1),
    }
    assert store.runs.last_fires({}) == {}


def test_what_counts_as_the_last_fire_of_a_span(store: Store) -> None:
    store.runs.claim([run(fire_ms=minute * MINUTE_MS) for minute in (4, 8)])
    skipped = [
        run(fire_ms=minute * MINUTE_MS, state=RunState.SKIPPED, reason=Reason.OVERLAP) for minute in (2, 3, 6, 7, 9)
    ]
    store.runs.record(skipped)

    def last(early: int, until: int) -> int | None:
        fire_ms = store.runs.last_fires({TASK: Span(early * MINUTE_MS, until * MINUTE_MS)})[TASK].fire_ms
        return None if fire_ms is None else fire_ms // MINUTE_MS

    # Skips count up to the span's beginning; nothing counts that is after its end.
    assert (last(9, 10), last(5, 10), last(5, 7), last(6, 7)) == (9, 8, 4, 6)
    assert (last(3, 3), last(2, 3), last(1, 3)) == (3, 2, None)


def test_last_fires_of_thousands_of_tasks_are_one_call(store: Store) -> None:
    store.runs.claim([run(job_id=job_id, fire_ms=job_id * MINUTE_MS) for job_id in range(1, 1101)])
    tasks = [TaskId(job_id, 0) for job_id in range(1, 1101)]
    expected = {task: LastFire(task.job_id * MINUTE_MS, 1) for task in tasks}
    assert store.runs.last_fires(dict.fromkeys(tasks, EVER)) == expected


def test_last_fires_tell_the_generation_of_each_tasks_newest_run(store: Store) -> None:
    store.runs.claim(
        [
            run(fire_ms=1 * MINUTE_MS, generation=9),
            run(fire_ms=2 * MINUTE_MS, generation=3),
            run(shard=1, fire_ms=5 * MINUTE_MS, generation=8),
            # Whoever asked for it, and whenever: it has run. Of a fire's attempts the newest counts.
            run(job_id=2, fire_ms=3 * MINUTE_MS, generation=4),
            run(job_id=2, fire_ms=9 * MINUTE_MS, generation=5, trigger=Trigger.MANUAL),
            run(job_id=2, fire_ms=9 * MINUTE_MS, generation=6, trigger=Trigger.MANUAL, attempt=2),
            run(job_id=3, fire_ms=9 * MINUTE_MS, generation=7, trigger=Trigger.MANUAL),
            run(job_id=5, generation=0),
        ]
    )
    skip = run(job_id=6, fire_ms=8 * MINUTE_MS, generation=2, state=RunState.SKIPPED, reason=Reason.OVERLAP)
    store.runs.record([skip, run(job_id=7, fire_ms=1 * MINUTE_MS, generation=2)])
    # What nobody has taken up yet was not run; what ZooKeeper granted may not tell its generation.
    asked_for = run(fire_ms=7 * MINUTE_MS, generation=5, state=RunState.PENDING, trigger=Trigger.MANUAL, worker="")
    store.runs.request(asked_for, replace(asked_for, key=RunKey(TaskId(4, 0), 7 * MINUTE_MS, 1)))
    store.runs.record([run(job_id=7, fire_ms=2 * MINUTE_MS, generation=0)])
    tasks = [TaskId(1, 0), TaskId(1, 1), *(TaskId(job_id, 0) for job_id in (2, 3, 4, 5, 6, 7))]
    found = store.runs.last_fires(dict.fromkeys(tasks, Span(0, 6 * MINUTE_MS)))
    assert found == {
        TaskId(1, 0): LastFire(2 * MINUTE_MS, 3),
        TaskId(1, 1): LastFire(5 * MINUTE_MS, 8),
        TaskId(2, 0): LastFire(3 * MINUTE_MS, 6),
        TaskId(3, 0): LastFire(None, 7),
        TaskId(5, 0): LastFire(1 * MINUTE_MS, 0),
        TaskId(6, 0): LastFire(None, 2),
        TaskId(7, 0): LastFire(2 * MINUTE_MS, 2),
    }


def test_open_runs_are_those_that_are_claimed_or_running(store: Store) -> None:
    for minute, state in enumerate(RunState, start=1):
        store.runs.record([run(fire_ms=minute * MINUTE_MS, state=state, worker=f"w{minute}")])
    store.runs.claim([run(shard=1), run(job_id=2)])
    found = store.runs.open_runs([TASK, TaskId(5, 0)])
    assert [item.state for item in found] == [RunState.CLAIMED, RunState.RUNNING]
    assert {item.key.task for item in found} == {TASK}
    assert store.runs.open_runs([]) == []


def test_lost_runs_are_those_without_a_later_attempt(store: Store) -> None:
    lost = [recorded(store, RunState.LOST, fire_ms=minute * MINUTE_MS) for minute in (1, 2, 3)]
    recorded(store, RunState.SUCCEEDED, fire_ms=2 * MINUTE_MS, attempt=2)
    again = recorded(store, RunState.LOST, fire_ms=3 * MINUTE_MS, attempt=2)
    recorded(store, RunState.LOST, job_id=2)
    assert store.runs.lost_runs([TASK], since_ms=0) == [lost[0], again]
    assert store.runs.lost_runs([TASK], since_ms=3 * MINUTE_MS) == [again]


def test_failed_runs_are_those_without_a_later_attempt(store: Store) -> None:
    failed = [recorded(store, RunState.FAILED, fire_ms=minute * MINUTE_MS) for minute in (1, 2, 3)]
    recorded(store, RunState.SUCCEEDED, fire_ms=2 * MINUTE_MS, attempt=2)
    again = recorded(store, RunState.TIMED_OUT, fire_ms=3 * MINUTE_MS, attempt=2)
    recorded(store, RunState.FAILED, job_id=2)
    recorded(store, RunState.LOST, fire_ms=4 * MINUTE_MS)
    assert store.runs.failed_runs([TASK], since_ms=0) == [failed[0], again]
    assert store.runs.failed_runs([TASK], since_ms=3 * MINUTE_MS) == [again]
    assert store.runs.failed_runs([], since_ms=0) == []


def test_a_run_on_demand_is_requested_once(store: Store) -> None:
    asked = on_demand()
    store.runs.request(asked)
    assert store.runs.pending([TASK]) == [asked]
    assert store.runs.pending([TaskId(2, 0)]) == []
    with pytest.raises(ConflictError):
        store.runs.request(asked)


def test_a_pending_run_is_claimed_by_one(store: Store) -> None:
    store.runs.request(on_demand())
    mine = run(worker="w1", fence=9, generation=3, trigger=Trigger.MANUAL)
    assert store.runs.claim_pending(mine)
    assert store.runs.claim_pending(mine), "again with the same nonce"
    assert not store.runs.claim_pending(run(worker="w2"))
    assert store.runs.get(mine.key) == mine
    assert store.runs.pending([TASK]) == []


def test_what_was_never_requested_cannot_be_claimed_as_pending(store: Store) -> None:
    assert not store.runs.claim_pending(run())
    with pytest.raises(NotFoundError):
        store.runs.get(run().key)


def test_a_pending_run_is_cancelled_at_once(store: Store) -> None:
    asked = on_demand()
    store.runs.request(asked)
    cancelled = store.runs.request_cancel(asked.key)
    assert (cancelled.state, cancelled.reason) == (RunState.CANCELLED, Reason.REQUESTED)
    assert cancelled.ended_ms is not None and cancelled.cancel_requested
    assert store.runs.get(asked.key) == cancelled
    assert not store.runs.claim_pending(run())
    with pytest.raises(ConflictError):
        store.runs.request_cancel(asked.key)


def test_the_worker_is_told_of_a_wish_to_cancel(store: Store) -> None:
    mine = recorded(store, RunState.RUNNING, worker="w1")
    recorded(store, RunState.RUNNING, worker="w1", shard=1)
    theirs = recorded(store, RunState.CLAIMED, worker="w2", shard=2)
    assert store.runs.cancellations("w1") == []
    assert store.runs.request_cancel(mine.key) == mine.evolve(cancel_requested=True)
    store.runs.request_cancel(mine.key)
    store.runs.request_cancel(theirs.key)
    assert store.runs.cancellations("w1") == [mine.key]
    store.runs.record([mine.evolve(state=RunState.CANCELLED)])
    assert store.runs.cancellations("w1") == []


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.SKIPPED, RunState.LOST])
def test_what_is_over_cannot_be_cancelled(store: Store, state: RunState) -> None:
    done = run(state=state)
    store.runs.record([done])
    with pytest.raises(ConflictError):
        store.runs.request_cancel(done.key)
    with pytest.raises(NotFoundError):
        store.runs.request_cancel(run(shard=7).key)
    assert store.runs.get(done.key) == done


def test_the_leader_gives_up_a_lost_workers_active_runs(store: Store) -> None:
    job = store.jobs.create(new_job())
    claimed = recorded(store, RunState.CLAIMED, job_id=job.id, fire_ms=1)
    running = recorded(store, RunState.RUNNING, job_id=job.id, fire_ms=2, started_ms=20)
    done = recorded(store, RunState.SUCCEEDED, job_id=job.id, fire_ms=3)
    theirs = recorded(store, RunState.RUNNING, job_id=job.id, fire_ms=4, worker="w2", shard=1)
    term = store.terms.take("m1")
    lost = store.runs.lose("w1", term=term, reason="worker_lost")
    assert lost == [item.evolve(state=RunState.LOST, reason=Reason.WORKER_LOST) for item in (claimed, running)]
    assert [store.runs.get(item.key) for item in lost] == lost
    assert store.runs.get(done.key) == done and store.runs.get(theirs.key) == theirs
    assert store.runs.lose("w1", term=term, reason="worker_lost") == []


def test_a_lost_run_shows_as_its_jobs_last_one(store: Store) -> None:
    job = store.jobs.create(new_job())
    running = recorded(store, RunState.RUNNING, job_id=job.id)
    store.runs.lose("w1", term=store.terms.take("m1"), reason="worker_lost")
    last = store.jobs.get(job.id).last_run
    assert last is not None and (last.run_id, last.state) == (running.id, RunState.LOST)


def test_an_old_leader_gives_up_nothing(store: Store) -> None:
    running = recorded(store, RunState.RUNNING)
    old = store.terms.take("m1")
    store.terms.take("m2")
    with pytest.raises(FencedError):
        store.runs.lose("w1", term=old, reason="worker_lost")
    assert store.runs.get(running.key) == running


def test_output_is_read_back_from_any_byte(store: Store) -> None:
    mine = recorded(store, RunState.RUNNING)
    data = bytes(range(256)) * 700
    for offset in range(0, len(data), 65_536):
        store.runs.append_output(mine.key, offset=offset, data=data[offset : offset + 65_536])
    assert store.runs.read_output(mine.key, offset=0, limit=1 << 20) == data
    assert store.runs.read_output(mine.key, offset=65_530, limit=20) == data[65_530:65_550]
    assert store.runs.read_output(mine.key, offset=len(data), limit=10) == b""
    assert store.runs.read_output(run(shard=1).key, offset=0, limit=10) == b""


def test_appending_again_is_safe(store: Store) -> None:
    key = run().key
    for _ in range(2):
        store.runs.append_output(key, offset=0, data=b"hello ")
        store.runs.append_output(key, offset=6, data=b"world")
    assert store.runs.read_output(key, offset=0, limit=100) == b"hello world"


def test_output_ends_at_a_gap_until_it_is_filled(store: Store) -> None:
    key = run().key
    store.runs.append_output(key, offset=0, data=b"hello ")
    store.runs.append_output(key, offset=11, data=b"!")
    assert store.runs.read_output(key, offset=0, limit=100) == b"hello "
    store.runs.append_output(key, offset=6, data=b"world")
    assert store.runs.read_output(key, offset=3, limit=100) == b"lo world!"


def test_too_large_a_chunk_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="65536"):
        store.runs.append_output(run().key, offset=0, data=b"x" * 65_537)


def test_purge_removes_old_ended_runs_with_their_output(store: Store) -> None:
    for minute in range(1, 8):
        done = recorded(store, RunState.FAILED, fire_ms=minute * MINUTE_MS)
        store.runs.append_output(done.key, offset=0, data=b"out")
    active = recorded(store, RunState.RUNNING, fire_ms=1, job_id=2)
    assert store.runs.purge(before_ms=5 * MINUTE_MS, limit=3) == 3
    assert [item.key.fire_ms // MINUTE_MS for item in store.runs.history(1, limit=10)] == [7, 6, 5, 4]
    assert store.runs.purge(before_ms=5 * MINUTE_MS, limit=100) == 1
    assert store.runs.read_output(RunKey(TASK, MINUTE_MS, 1), offset=0, limit=10) == b""
    assert store.runs.read_output(RunKey(TASK, 7 * MINUTE_MS, 1), offset=0, limit=10) == b"out"
    assert store.runs.get(active.key) == active
    assert store.runs.purge(before_ms=5 * MINUTE_MS, limit=100) == 0


def test_purge_keeps_each_jobs_last_run(store: Store) -> None:
    job = store.jobs.create(new_job())
    recorded(store, RunState.FAILED, job_id=job.id, fire_ms=1)
    last = recorded(store, RunState.SUCCEEDED, job_id=job.id, fire_ms=2)
    assert store.runs.purge(before_ms=MINUTE_MS, limit=100) == 1
    assert store.runs.history(job.id, limit=10) == [last]
    assert store.runs.last_fires({TaskId(job.id, 0): EVER}) == {TaskId(job.id, 0): LastFire(2, 1)}
