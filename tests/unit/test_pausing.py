"""The leader pauses what fails too often: on the doubles that we ship."""

from __future__ import annotations

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import FencedError
from tests.unit.manager_town import NOON_MS, Manager, Town


def town_with(**fields: object) -> tuple[Town, Job]:
    town = Town("a", "b")
    job = town.create("* * * * *", pause_after_failures=3, **fields)
    town.run(4)
    return town, job


def fail(town: Town, job: Job, *, state: RunState = RunState.FAILED, shard: int = 0) -> Run:
    """A worker reports a fire of this very second."""
    town.clock.advance_ms(1000)
    key = RunKey(TaskId(job.id, shard), town.clock.now_ms(), 1)
    run = Run(key, Trigger.TIMER, state, "a", nonce=f"n-{key}", generation=job.generation, exit_code=1)
    town.store.runs.record([run.evolve(claimed_ms=key.fire_ms, ended_ms=key.fire_ms)])
    return run


def test_a_job_that_fails_too_often_is_paused_and_its_tasks_are_withdrawn() -> None:
    town, job = town_with(shards=2)
    assert len(town.homes()) == 2
    for _ in range(2):
        fail(town, job)
        town.run(2)
    assert town.store.jobs.get(job.id).state is JobState.ACTIVE
    fail(town, job)
    town.run(3)

    paused = town.store.jobs.get(job.id)
    assert (paused.state, paused.withdrawn, paused.generation) == (JobState.PAUSED, True, 1)
    assert paused.state_reason.startswith("paused after 3 failures in a row, last: exit 1 at 2026-03-01T12:00:1")
    assert town.homes() == {}
    assert town.owners() == {}
    town.run(5)
    assert town.eyes.read_tasks(job.tasks()) == {}, "what nobody may have is not left lying about"
    (event,) = town.store.events.latest(limit=9, kind="job.paused_after_failures")
    assert (event.subject, event.detail) == (str(job.id), paused.state_reason)
    assert town.store.failures.noted(limit=9) == {}


def test_a_success_in_between_keeps_it_going() -> None:
    town, job = town_with()
    for state in (RunState.FAILED, RunState.FAILED, RunState.SUCCEEDED, RunState.FAILED, RunState.FAILED):
        fail(town, job, state=state)
    town.run(5)
    assert town.store.jobs.get(job.id).state is JobState.ACTIVE


def test_a_job_that_is_saved_anew_gets_its_workers_back_and_counts_anew() -> None:
    town, job = town_with()
    for _ in range(3):
        fail(town, job)
    town.run(5)
    resumed = town.edit(town.store.jobs.get(job.id))
    town.run(5)
    assert town.homes().keys() == town.owners().keys() == {TaskId(job.id, 0)}
    fail(town, resumed)
    fail(town, resumed)
    town.run(5)
    assert town.store.jobs.get(job.id).state is JobState.ACTIVE
    fail(town, resumed)
    town.run(5)
    assert town.store.jobs.get(job.id).state is JobState.PAUSED


def test_a_pause_that_is_signed_is_placed_like_any_paused_job() -> None:
    town, job = town_with()
    for _ in range(3):
        fail(town, job)
    town.run(5)
    town.edit(town.store.jobs.get(job.id), JobState.PAUSED)
    town.run(5)
    assert town.homes().keys() == {TaskId(job.id, 0)}


def test_many_failing_jobs_are_looked_at_a_bounded_number_each_turn() -> None:
    town = Town("a")
    jobs = [town.create(pause_after_failures=1) for _ in range(130)]
    town.run(4)
    for job in jobs:
        fail(town, job)
    town.run(1)
    left = len(town.store.failures.noted(limit=1000))
    assert 0 < left < 130
    town.run(3)
    assert {town.store.jobs.get(job.id).state for job in jobs} == {JobState.PAUSED}


def test_a_long_history_is_read_page_by_page() -> None:
    town = Town("a")
    job = town.create("@every 1s", pause_after_failures=600)
    town.run(4)
    first_ms = NOON_MS + 1000
    for number in range(600):
        key = RunKey(TaskId(job.id, 0), first_ms + number * 1000, 1)
        town.store.runs.record([Run(key, Trigger.TIMER, RunState.FAILED, "a", nonce=f"n-{key}", generation=1)])
    town.run(2)
    assert town.store.jobs.get(job.id).state is JobState.PAUSED


def test_without_mysql_nothing_is_paused_and_nothing_is_forgotten() -> None:
    town, job = town_with()
    for _ in range(3):
        fail(town, job)
    town.set_mysql(False)
    town.run(3)
    town.set_mysql(True)
    town.run(3)
    assert town.store.jobs.get(job.id).state is JobState.PAUSED


def test_a_pause_that_could_not_be_written_is_written_later() -> None:
    town, job = town_with()
    for _ in range(3):
        fail(town, job)
    town.store.fail_next("failures.pause")
    town.run(4)
    assert town.store.jobs.get(job.id).withdrawn


def test_an_answer_that_was_lost_pauses_once() -> None:
    town, job = town_with()
    for _ in range(3):
        fail(town, job)
    town.store.fail_next("failures.pause", landed=True)
    town.run(4)
    assert town.store.jobs.get(job.id).withdrawn
    assert town.homes() == {}


def test_a_new_leader_finishes_what_the_old_one_has_begun() -> None:
    town, job = town_with()
    for _ in range(3):
        fail(town, job)
    town.store.fail_next("failures.settle")
    town.step()
    town.managers[0].die()
    town.managers = [Manager(town, "m2")]
    town.run(6)
    assert town.store.jobs.get(job.id).state is JobState.PAUSED
    assert town.store.failures.noted(limit=9) == {}


def test_a_leader_of_a_former_term_pauses_nothing() -> None:
    town, job = town_with()
    for _ in range(3):
        fail(town, job)
    town.store.terms.take("somebody else")
    with pytest.raises(FencedError):
        town.run(2)
    assert town.store.jobs.get(job.id).state is JobState.ACTIVE
