"""Requests with an Idempotency-Key whose server dies before it answers, or is taken for dead."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.errors import ConflictError, StaleWriteError
from cronkeeper.ports import ABANDONED_MS, Idempotency, IdempotencyResult, JobQuery, Store
from tests.contract.test_store.builders import begin, new_job, on_demand, taken

TASK = TaskId(1, 0)


def test_a_request_that_saved_nothing_in_time_is_taken_over(store: Store) -> None:
    dead = taken(begin(store, now_ms=1000))
    assert begin(store, now_ms=1000 + ABANDONED_MS - 1).outcome is Idempotency.IN_FLIGHT
    assert begin(store, now_ms=1000 + ABANDONED_MS, body="b2").outcome is Idempotency.MISMATCH
    heir = taken(begin(store, now_ms=1000 + ABANDONED_MS))
    assert begin(store, now_ms=1000 + ABANDONED_MS + 1).outcome is Idempotency.IN_FLIGHT
    # Whoever was taken for dead and is not can change nothing any more.
    store.idempotency.abandon(dead)
    store.idempotency.finish(dead, status=500, body=b"late")
    with pytest.raises(StaleWriteError):
        store.jobs.create(new_job("a", request=dead))
    with pytest.raises(StaleWriteError):
        store.runs.request(on_demand(), request=dead)
    assert begin(store, now_ms=1000 + ABANDONED_MS + 1).outcome is Idempotency.IN_FLIGHT
    assert (store.jobs.page(JobQuery()), store.runs.pending([TASK])) == ([], [])
    job = store.jobs.create(new_job("a", request=heir))
    assert job.id in store.jobs.job_ids()


def test_what_a_request_has_saved_is_known_before_it_is_answered(store: Store) -> None:
    one, two = (taken(begin(store, scope=f"t{number} POST /jobs")) for number in (1, 2))
    jobs = store.jobs.save_many([new_job("a", request=one), new_job("b"), new_job("c", request=two)], [], [])
    for number, job in ((1, jobs[0]), (2, jobs[2])):
        for now_ms in (1000, 1000 + ABANDONED_MS):
            found = begin(store, scope=f"t{number} POST /jobs", now_ms=now_ms)
            assert found == IdempotencyResult(Idempotency.SAVED, saved=(str(job.id),))
    asked = [on_demand(shard=shard) for shard in (0, 1)]
    store.runs.request(*asked, request=taken(begin(store, scope="run")))
    assert begin(store, scope="run").saved == tuple(run.id for run in asked)
    store.idempotency.abandon(one)
    store.idempotency.finish(one, status=201, body=b"x")
    assert begin(store) == IdempotencyResult(Idempotency.REPLAY, 201, b"x")


def test_a_request_that_saves_nothing_notes_nothing(store: Store) -> None:
    request = taken(begin(store))
    store.jobs.create(new_job("a"))
    with pytest.raises(ConflictError):
        store.jobs.create(new_job("a", request=request))
    store.runs.request(on_demand())
    with pytest.raises(ConflictError):
        store.runs.request(on_demand(shard=1), on_demand(), request=request)
    assert store.runs.pending([TaskId(1, 1)]) == []
    assert begin(store).outcome is Idempotency.IN_FLIGHT
    # In a batch, one that was taken over keeps all others back.
    taken(begin(store, now_ms=1000 + ABANDONED_MS))
    with pytest.raises(StaleWriteError):
        store.jobs.save_many([new_job("b"), new_job("c", request=request)], [], [])
    assert [job.spec.name for job in store.jobs.page(JobQuery())] == ["a"]


def test_of_many_that_take_a_request_over_one_succeeds(store: Store) -> None:
    begin(store)
    start = threading.Barrier(6)

    def race(_: int) -> Idempotency:
        start.wait()
        return begin(store, now_ms=1000 + ABANDONED_MS).outcome

    with ThreadPoolExecutor(6) as pool:
        outcomes = Counter(pool.map(race, range(6)))
    assert outcomes == {Idempotency.NEW: 1, Idempotency.IN_FLIGHT: 5}
