"""Noting failures, and pausing jobs for them."""

from __future__ import annotations

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.errors import FencedError
from cronkeeper.ports import Store
from tests.contract.test_store.builders import MINUTE_MS, new_job, recorded, run
from tests.contract.test_store.test_store_jobs import changed


@pytest.fixture
def job(store: Store) -> Job:
    return store.jobs.create(new_job("a", pause_after_failures=3))


@pytest.fixture
def term(store: Store) -> int:
    return store.terms.take("m1")


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.TIMED_OUT, RunState.LOST])
def test_a_failure_notes_its_job_until_it_is_settled(store: Store, job: Job, term: int, state: RunState) -> None:
    recorded(store, state, job_id=job.id)
    noted = store.failures.noted(limit=10)
    assert noted.keys() == {job.id}
    store.failures.settle(noted, term=term)
    store.failures.settle(noted, term=term)
    assert store.failures.noted(limit=10) == {}


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.SKIPPED, RunState.CANCELLED, RunState.RUNNING])
def test_no_other_end_notes_anything(store: Store, job: Job, state: RunState) -> None:
    recorded(store, state, job_id=job.id)
    assert store.failures.noted(limit=10) == {}


def test_only_jobs_on_whose_failures_a_leader_acts_are_noted(store: Store, job: Job) -> None:
    plain = store.jobs.create(new_job("b", retry=Retry(3)))
    moving = store.jobs.create(new_job("c", retry=Retry(3, elsewhere=True)))
    for job_id in (plain.id, 99):
        recorded(store, RunState.FAILED, job_id=job_id)
    assert store.failures.noted(limit=10) == {}
    recorded(store, RunState.FAILED, job_id=moving.id, trigger=Trigger.MANUAL)
    assert store.failures.noted(limit=10).keys() == {moving.id}


def test_a_lost_worker_s_runs_note_their_jobs(store: Store, job: Job, term: int) -> None:
    recorded(store, RunState.RUNNING, job_id=job.id, worker="w1")
    assert store.failures.noted(limit=10) == {}
    store.runs.lose("w1", term=term, reason=Reason.WORKER_LOST.value)
    assert store.failures.noted(limit=10).keys() == {job.id}


def test_what_fails_after_the_look_stays_noted(store: Store, job: Job, term: int) -> None:
    recorded(store, RunState.FAILED, job_id=job.id)
    seen = store.failures.noted(limit=10)
    recorded(store, RunState.FAILED, job_id=job.id, fire_ms=2 * MINUTE_MS)
    store.failures.settle(seen, term=term)
    assert store.failures.noted(limit=10).keys() == {job.id}


def test_few_are_noted_at_a_time(store: Store) -> None:
    jobs = store.jobs.save_many([new_job(f"j{n}", pause_after_failures=1) for n in range(4)], [], [])
    for one in reversed(jobs):
        recorded(store, RunState.FAILED, job_id=one.id)
    assert list(store.failures.noted(limit=3)) == [one.id for one in jobs[:3]]


def test_ends_are_read_page_by_page_without_their_output(store: Store, job: Job) -> None:
    for fire in range(1, 5):
        for shard in range(2):
            recorded(store, RunState.FAILED, job_id=job.id, fire_ms=fire * MINUTE_MS, shard=shard, output_tail="much")
    recorded(store, RunState.FAILED, job_id=job.id + 1, fire_ms=3 * MINUTE_MS)

    first = store.failures.ends(job.id, after_ms=MINUTE_MS, limit=4)
    rest = store.failures.ends(job.id, after_ms=MINUTE_MS, limit=4, before=first[-1].key)
    keys = [RunKey(TaskId(job.id, shard), fire * MINUTE_MS, 1) for fire in (4, 3, 2) for shard in (1, 0)]
    assert [one.key for one in (*first, *rest)] == keys
    assert {one.output_tail for one in (*first, *rest)} == {""}
    whole = store.runs.get(first[0].key)
    assert first[0] == whole.evolve(output_tail="")


def test_a_leader_pauses_the_generation_that_it_saw(store: Store, job: Job, term: int) -> None:
    assert store.failures.pause(job.id, generation=1, reason="paused after 3 failures", term=term)
    assert store.failures.pause(job.id, generation=1, reason="paused after 3 failures", term=term), "safe to repeat"
    found = store.jobs.get(job.id)
    assert (found.state, found.generation, found.withdrawn) == (JobState.PAUSED, 1, True)
    assert found.state_reason == "paused after 3 failures"
    assert found.envelope == job.envelope
    assert found.updated_ms > job.updated_ms
    (row,) = store.jobs.plan_rows(changed_since_ms=job.updated_ms + 1)
    assert (row.state, row.withdrawn) == (JobState.PAUSED, True)
    versions = store.audit.versions([job.id])
    assert [(one.generation, one.state) for one in versions] == [(1, JobState.ACTIVE), (1, JobState.PAUSED)]


def test_an_edit_or_a_person_was_quicker(store: Store, job: Job, term: int) -> None:
    store.jobs.replace(changed(job, executable="mended"), expected_generation=1)
    assert not store.failures.pause(job.id, generation=1, reason="late", term=term)
    assert store.jobs.get(job.id).state is JobState.ACTIVE
    theirs = store.jobs.create(new_job("b", state=JobState.PAUSED))
    assert not store.failures.pause(theirs.id, generation=1, reason="late", term=term)
    assert not store.failures.pause(999, generation=1, reason="late", term=term)
    assert not store.jobs.get(theirs.id).withdrawn


def test_who_does_not_lead_any_more_pauses_nothing(store: Store, job: Job, term: int) -> None:
    recorded(store, RunState.FAILED, job_id=job.id)
    seen = store.failures.noted(limit=10)
    store.terms.take("m2")
    with pytest.raises(FencedError):
        store.failures.pause(job.id, generation=1, reason="late", term=term)
    with pytest.raises(FencedError):
        store.failures.settle(seen, term=term)
    assert store.jobs.get(job.id).state is JobState.ACTIVE
    assert store.failures.noted(limit=10) == seen


def test_whoever_saves_the_job_ends_the_withdrawal(store: Store, job: Job, term: int) -> None:
    store.failures.pause(job.id, generation=1, reason="paused after 3 failures", term=term)
    paused = store.jobs.get(job.id)
    store.jobs.replace(changed(paused), expected_generation=1)
    found = store.jobs.get(job.id)
    assert (found.state, found.withdrawn, found.state_reason) == (JobState.PAUSED, False, "paused after 3 failures")
    assert not store.jobs.plan_rows()[0].withdrawn


def test_a_removed_job_is_not_noted_any_more(store: Store, job: Job) -> None:
    recorded(store, RunState.FAILED, job_id=job.id)
    store.jobs.delete(job.id)
    assert store.failures.noted(limit=10) == {}


def test_a_failure_that_was_spooled_is_noted_as_well(store: Store, job: Job) -> None:
    store.runs.record([run(job.id, state=RunState.FAILED)])
    assert store.failures.noted(limit=10).keys() == {job.id}
