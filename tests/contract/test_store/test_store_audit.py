"""What the auditor keeps: versions of jobs, missed fires, its mark; and what it asks of the ledger."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import Job, JobState, spec_to_dict
from cronkeeper.domain.placement import WorkerInfo
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.domain.secret_env import Sealed, SecretEnv, SecretUse
from cronkeeper.errors import ConflictError, FencedError
from cronkeeper.ports import AuditMark, Event, Fire, JobVersion, Missed, Secret, Store
from tests.contract.test_store.builders import MINUTE_MS, new_job, recorded, run

TASK = TaskId(1, 0)


def saved(store: Store, job: Job, *, at_ms: int, state: JobState = JobState.ACTIVE, **spec: object) -> Job:
    after = replace(
        job,
        generation=job.generation + 1,
        updated_ms=at_ms,
        effective_from_ms=at_ms,
        state=state,
        spec=job.spec.evolve(**spec),
        last_run=None,
    )
    store.jobs.replace(after, expected_generation=job.generation)
    return after


def brief(store: Store, *jobs: Job) -> list[tuple[int, int, str, int]]:
    found = store.audit.versions([job.id for job in jobs])
    return [(item.job_id, item.generation, item.state.value, item.since_ms) for item in found]


def missed(fire_ms: int = MINUTE_MS, *, job_id: int = 1, shard: int = 0, **fields: object) -> Missed:
    values: dict[str, object] = {"reason": "unknown", "detail": "é", "noted_ms": 7} | fields
    return Missed(Fire(TaskId(job_id, shard), fire_ms), **values)  # type: ignore[arg-type]


def save(
    store: Store,
    *items: Missed,
    term: int,
    mark: AuditMark | None = None,
    withdrawn: tuple[Fire, ...] = (),
    events: tuple[Event, ...] = (),
) -> None:
    store.audit.save(mark or AuditMark(), missed=items, withdrawn=withdrawn, events=events, term=term)


# ------------------------------------------------------------------------------------------------------ versions


def test_every_save_of_a_job_is_kept_with_the_spec_it_had(store: Store) -> None:
    job = store.jobs.create(new_job("a", description="one"))
    second = saved(store, job, at_ms=2000, description="two", grace_s=5)
    saved(store, second, at_ms=3000, state=JobState.PAUSED)
    assert brief(store, job) == [(job.id, 1, "active", 1000), (job.id, 2, "active", 2000), (job.id, 3, "paused", 3000)]
    first, other, _ = store.audit.versions([job.id])
    assert (first.spec, first.effective_from_ms) == (job.spec, 900)
    assert (other.spec, other.effective_from_ms) == (second.spec, 2000)


def test_a_job_that_finishes_by_itself_is_kept_under_its_generation(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    assert store.jobs.mark_finished(job.id, generation=1)
    assert store.jobs.mark_finished(job.id, generation=1), "repeating is safe"
    active, finished = store.audit.versions([job.id])
    assert (active.state, finished.state) == (JobState.ACTIVE, JobState.FINISHED)
    assert finished.since_ms == store.jobs.get(job.id).updated_ms > active.since_ms


def test_finishing_what_has_changed_meanwhile_leaves_no_version(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    saved(store, job, at_ms=2000)
    assert not store.jobs.mark_finished(job.id, generation=1)
    assert [item[2] for item in brief(store, job)] == ["active", "active"]


def test_many_jobs_are_kept_with_the_same_transaction(store: Store) -> None:
    one, two = store.jobs.create(new_job("a")), store.jobs.create(new_job("b"))
    changed = replace(one, generation=2, updated_ms=5000, last_run=None)
    (three,) = store.jobs.save_many([new_job("c")], [(changed, 1)], [two.id])
    states = [(item[0], item[1], item[2]) for item in brief(store, one, two, three)]
    assert states == [
        (one.id, 1, "active"), (one.id, 2, "active"),
        (two.id, 1, "active"), (two.id, 1, "finished"),
        (three.id, 1, "active"),
    ]  # fmt: skip


def test_a_save_that_is_refused_leaves_no_version(store: Store) -> None:
    one, two = store.jobs.create(new_job("a")), store.jobs.create(new_job("b"))
    with pytest.raises(ConflictError):
        saved(store, two, at_ms=2000, name="a")
    assert brief(store, one, two) == [(one.id, 1, "active", 1000), (two.id, 1, "active", 1000)]


def test_a_removed_job_takes_its_versions_and_missed_fires_along(store: Store) -> None:
    one, two = store.jobs.create(new_job("a")), store.jobs.create(new_job("b"))
    save(store, missed(job_id=one.id), missed(job_id=two.id), term=store.terms.take("m"))
    assert store.jobs.delete(one.id)
    assert brief(store, one, two) == [(two.id, 1, "active", 1000)]
    assert store.audit.missed_of(one.id, limit=9) == []
    assert len(store.audit.missed_of(two.id, limit=9)) == 1


def test_changed_versions_come_page_by_page(store: Store) -> None:
    jobs = [store.jobs.create(new_job(f"j{number}", updated_ms=1000 + number)) for number in range(5)]
    store.jobs.mark_finished(jobs[2].id, generation=1)
    pages: list[list[JobVersion]] = []
    after = (0, 0)
    while page := store.audit.changed_versions(1001, after=after, limit=2):
        pages.append(page)
        after = (page[-1].job_id, page[-1].generation)
    assert [item.job_id for page in pages for item in page] == [
        jobs[1].id, jobs[2].id, jobs[2].id, jobs[3].id, jobs[4].id
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------------- ledger


def test_the_newest_attempt_tells_a_fire_s_fate(store: Store) -> None:
    recorded(store, RunState.LOST, fire_ms=MINUTE_MS)
    recorded(store, RunState.SKIPPED, fire_ms=MINUTE_MS, attempt=2, reason=Reason.OVERLAP, worker="w2")
    recorded(store, RunState.SUCCEEDED, fire_ms=2 * MINUTE_MS, shard=1)
    first, other, none = Fire(TASK, MINUTE_MS), Fire(TaskId(1, 1), 2 * MINUTE_MS), Fire(TASK, 2 * MINUTE_MS)
    found = store.audit.fates([first, other, none, first])
    assert set(found) == {first, other}
    assert (found[first].attempt, found[first].state, found[first].reason) == (2, RunState.SKIPPED, Reason.OVERLAP)
    assert found[first].worker == "w2"
    assert store.audit.fates([]) == {}


def test_rows_of_schedules_are_walked_through_in_order(store: Store) -> None:
    for job_id, shard, minute in ((2, 0, 1), (1, 1, 1), (1, 0, 1), (1, 0, 2), (3, 0, 9)):
        recorded(store, RunState.SUCCEEDED, job_id=job_id, shard=shard, fire_ms=minute * MINUTE_MS)
    recorded(store, RunState.FAILED, job_id=1, fire_ms=MINUTE_MS, attempt=2)
    store.runs.request(run(state=RunState.PENDING, trigger=Trigger.MANUAL, fire_ms=MINUTE_MS + 1, attempt=1))
    seen: list[Fire] = []
    after = Fire(TaskId(0, 0), 0)
    while page := store.audit.recorded(after, 3 * MINUTE_MS, limit=2):
        after = page[-1].fire
        seen += [fate.fire for fate in page]
    assert [str(fire) for fire in seen] == ["1/0@60000", "1/1@60000", "2/0@60000", "1/0@120000"]


# -------------------------------------------------------------------------------------------------------- missed


def test_a_verdict_its_events_and_the_mark_are_written_together_under_the_term(store: Store) -> None:
    assert store.audit.mark() == AuditMark()
    old = store.terms.take("m1")
    term = store.terms.take("m2")
    mark = AuditMark(10, 20, Fire(TaskId(3, 2), 30), 40, ((1, 2), (5, 9)), 3)
    event = Event(5, "fire.missed", "1/0", "x")
    with pytest.raises(FencedError):
        save(store, missed(), mark=mark, events=(event,), term=old)
    assert store.audit.mark() == AuditMark() and store.audit.missed_at(1, MINUTE_MS) == []
    assert store.events.latest(limit=9) == []
    for _ in range(2):
        save(store, missed(), mark=mark, events=(event,), term=term)
    assert store.audit.mark() == mark
    assert store.audit.missed_at(1, MINUTE_MS) == [missed()]
    assert store.events.latest(limit=9) == [event]


def test_a_held_fire_becomes_a_verdict_and_a_verdict_is_withdrawn(store: Store) -> None:
    term = store.terms.take("m")
    save(store, missed(held=True, noted_ms=9), missed(2 * MINUTE_MS, held=True, noted_ms=8), term=term)
    assert [item.fire.fire_ms for item in store.audit.held(limit=9)] == [2 * MINUTE_MS, MINUTE_MS]
    assert store.audit.held(limit=1) == [missed(2 * MINUTE_MS, held=True, noted_ms=8)]
    assert store.audit.missed_of(1, limit=9) == []
    save(store, missed(reason="worker_lost"), withdrawn=(Fire(TASK, 2 * MINUTE_MS),), term=term)
    assert store.audit.held(limit=9) == []
    assert store.audit.missed_of(1, limit=9) == [missed(reason="worker_lost")]


def test_a_fire_that_got_a_row_since_is_not_shown_as_missed(store: Store) -> None:
    save(store, missed(), missed(shard=1), missed(2 * MINUTE_MS), term=store.terms.take("m"))
    recorded(store, RunState.SUCCEEDED, fire_ms=MINUTE_MS)
    found = [str(item.fire) for item in store.audit.missed_of(1, limit=9)]
    assert found == ["1/0@120000", "1/1@60000"]
    assert [item.fire.task.shard for item in store.audit.missed_at(1, MINUTE_MS)] == [0, 1]
    assert len(store.audit.missed_of(1, limit=1)) == 1


def test_missed_fires_are_walked_through_by_task(store: Store) -> None:
    items = [missed(MINUTE_MS, job_id=2), missed(3 * MINUTE_MS, shard=1), missed(9 * MINUTE_MS), missed(MINUTE_MS)]
    save(store, *items, term=store.terms.take("m"))
    seen: list[str] = []
    after = Fire(TaskId(0, 0), 0)
    while page := store.audit.missed_page(after, limit=1):
        after = page[-1].fire
        seen.append(str(after))
    assert seen == ["1/0@60000", "1/0@540000", "1/1@180000", "2/0@60000"]


def test_what_is_old_goes_but_each_job_s_newest_version_stays(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    other = store.jobs.create(new_job("b"))
    second = saved(store, job, at_ms=2000)
    saved(store, second, at_ms=3000)
    save(store, missed(2400), missed(2600), term=store.terms.take("m"))
    assert store.audit.purge(before_ms=2500, limit=10) == 2
    assert brief(store, job, other) == [
        (job.id, 2, "active", 2000), (job.id, 3, "active", 3000), (other.id, 1, "active", 1000),
    ]  # fmt: skip
    assert [item.fire.fire_ms for item in store.audit.missed_of(1, limit=9)] == [2600]
    assert store.audit.purge(before_ms=2500, limit=10) == 0


def test_rows_far_ahead_are_found_the_next_first_and_removed_as_long_as_they_are_what_was_seen(store: Store) -> None:
    now_ms = store.leases.beat(WorkerInfo("w1", "host", epoch="e"), local_ms=0).clock_offset_ms * -1
    near, far, past = (now_ms + ahead for ahead in (100_000, 200_000, -100_000))
    term = store.terms.take("m1")
    for fire_ms in (far, near, past):
        recorded(store, RunState.SUCCEEDED, fire_ms=fire_ms)

    found = store.audit.ahead(30_000, limit=10)
    assert [fate.fire.fire_ms for fate in found] == [near, far]
    assert found[0].nonce

    assert store.audit.drop_ahead([replace(found[0], nonce="x"), found[1]], 30_000, term=term) == 1
    assert [fate.fire.fire_ms for fate in store.audit.ahead(30_000, limit=10)] == [near]
    store.terms.take("m2")
    with pytest.raises(FencedError):
        store.audit.drop_ahead(found, 30_000, term=term)


def test_rows_are_read_beside_their_signed_tasks(store: Store) -> None:
    job = store.jobs.create(new_job(selector="zone=eu"))

    (row,) = store.audit.signed([job.id, job.id + 1])
    assert (row.job_id, row.generation, row.state, row.selector) == (job.id, 1, JobState.ACTIVE, "zone=eu")
    assert (row.envelope, row.withdrawn) == (job.envelope, False)
    assert json.loads(row.spec) == spec_to_dict(job.spec)


def test_plan_rows_tell_which_keys_open_a_jobs_secrets(store: Store) -> None:
    sealed = SecretEnv({"A": SecretUse("pg")}, {"pg": Sealed(1, "v1.abc.Zm9v")})
    store.secrets.save(Secret("default", "pg", Sealed(1, "v1.abc.Zm9v"), 5, "ci"), expected_version=0)
    secretive = store.jobs.create(new_job(secrets=sealed, labels={"sealed": "x"}))
    plain = store.jobs.create(new_job(labels={"sealed": '":{"'}))

    keys = {row.job_id: row.secrets_keys for row in store.jobs.plan_rows()}
    assert keys == {secretive.id: frozenset({"abc"}), plain.id: frozenset()}
