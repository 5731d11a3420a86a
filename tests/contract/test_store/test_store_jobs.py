from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from cronkeeper.domain.job import Artifact, Job, JobSpec, JobState, JobStatus, JobType, Limits
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import RunState
from cronkeeper.domain.schedule import Dst, Fold, Gap
from cronkeeper.errors import ConflictError, NotFoundError, StaleWriteError, WireFormatError
from cronkeeper.ports import JobQuery, NewJob, Store
from tests.contract.test_store.builders import MINUTE_MS, new_job, recorded
from tests.contract.test_store.conftest import Backend

FULL = JobSpec(
    executable="s3://bucket/ab12/backup.sh",
    schedule="0 3 * * *",
    type=JobType.SCRIPT,
    namespace="billing",
    name="Nightly backup é",
    description="dumps\nand ships \U0001f600",
    owner="ops@example.com",
    timezone="Europe/Berlin",
    args=("--all", "a b", "%d"),
    env={"A": "1", "QUOTE": "'\"\\`%s"},
    run_as="backup",
    timeout_s=600,
    retry=Retry(3, 10, 300),
    dst=Dst(Gap.SKIP, Fold.SECOND),
    starts_at_ms=1_700_000_000_000,
    ends_at_ms=1_800_000_000_000,
    selector="zone in (eu,us), !spot",
    shards=3,
    limits=Limits(60, 512, 2048),
    labels={"team": "billing", "tier": ""},
    filename="backup.sh",
    artifact=Artifact("ab12", "s3://bucket/ab12/backup.sh", "ab12", 120, "backup.sh"),
)


def with_spec(spec: JobSpec) -> NewJob:
    return NewJob(
        spec.namespace,
        spec.name,
        lambda job_id: Job(job_id, spec, 1, JobState.ACTIVE, 5, 6, 4, b"\x00\xff envelope"),
    )


def changed(job: Job, **spec: object) -> Job:
    return replace(
        job,
        spec=job.spec.evolve(**spec),
        generation=job.generation + 1,
        envelope=b"changed",
        updated_ms=job.updated_ms + 1,
        last_run=None,
    )


def test_a_job_comes_back_as_it_was_saved(store: Store) -> None:
    saved = store.jobs.create(with_spec(FULL))
    assert saved.id > 0 and saved.spec == FULL
    assert store.jobs.get(saved.id) == saved


def test_a_job_is_built_with_the_id_it_is_saved_under(store: Store) -> None:
    first, second = store.jobs.create(new_job("a")), store.jobs.create(new_job("b"))
    assert second.id > first.id
    assert store.jobs.get(second.id).envelope == f"envelope of {second.id}".encode()


def test_an_unknown_job_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.jobs.get(4711)


def test_a_name_is_taken_once_in_a_namespace(store: Store) -> None:
    store.jobs.create(new_job("report"))
    with pytest.raises(ConflictError):
        store.jobs.create(new_job("report"))
    store.jobs.create(new_job("report", namespace="other"))
    assert len(store.jobs.page(JobQuery())) == 2


def test_names_differ_by_case_and_accent(store: Store) -> None:
    for name in ("report", "Report", "repört"):
        store.jobs.create(new_job(name))
    assert set(store.jobs.find("default", ["report", "Report"])) == {"report", "Report"}


def test_jobs_without_a_name_never_conflict(store: Store) -> None:
    assert store.jobs.create(new_job()).id != store.jobs.create(new_job()).id


def test_nothing_is_saved_when_building_fails(store: Store) -> None:
    def explode(job_id: int) -> Job:
        raise RuntimeError("no signer")

    with pytest.raises(RuntimeError, match="no signer"):
        store.jobs.create(NewJob("default", "a", explode))
    assert store.jobs.job_ids() == set()


def test_find_returns_the_jobs_that_exist(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    store.jobs.create(new_job("b", namespace="other"))
    assert store.jobs.find("default", ["a", "b", "c"]) == {"a": job}


def test_replace_writes_the_whole_row(store: Store) -> None:
    job = store.jobs.create(new_job("a", labels={"team": "x"}))
    new = changed(job, name="b", description="other", labels={"team": "y"}, shards=2)
    store.jobs.replace(new, expected_generation=1)
    assert store.jobs.get(job.id) == new
    assert store.jobs.find("default", ["a", "b"]) == {"b": new}
    assert store.jobs.page(JobQuery(labels=(("team", "x"),))) == []
    assert store.jobs.page(JobQuery(labels=(("team", "y"),))) == [new]


def test_the_second_writer_of_a_generation_is_told(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    store.jobs.replace(changed(job, description="first"), expected_generation=1)
    with pytest.raises(StaleWriteError):
        store.jobs.replace(changed(job, description="second"), expected_generation=1)
    assert store.jobs.get(job.id).spec.description == "first"


def test_replace_of_a_removed_job_is_not_found(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    assert store.jobs.delete(job.id)
    with pytest.raises(NotFoundError):
        store.jobs.replace(changed(job), expected_generation=1)


def test_a_job_cannot_take_the_name_of_another(store: Store) -> None:
    store.jobs.create(new_job("a"))
    job = store.jobs.create(new_job("b"))
    with pytest.raises(ConflictError):
        store.jobs.replace(changed(job, name="a"), expected_generation=1)
    assert store.jobs.get(job.id) == job


def test_many_jobs_are_saved_in_order(store: Store) -> None:
    saved = store.jobs.save_many([new_job(f"job {i}", labels={"n": str(i)}) for i in range(1201)], [], [])
    assert [job.spec.name for job in saved] == [f"job {i}" for i in range(1201)]
    assert [job.id for job in saved] == sorted({job.id for job in saved})
    assert store.jobs.page(JobQuery(limit=2000)) == saved
    assert store.jobs.envelopes([job.id for job in saved]) == {job.id: job.envelope for job in saved}


def test_many_jobs_come_back_as_they_were_saved(store: Store) -> None:
    """What they have in common is sent once, and long texts in another form than short ones."""
    hostile = "%s %(0)s %(0.1)s ' \" \\ \n\r\x1a \x00 \U0001f600 é _binary X'41' -- /* ; "
    texts = [hostile * times for times in (0, 1, 2, 40)]
    specs = [
        FULL.evolve(name=f"n{number}", description=texts[number % 4], executable=texts[number // 4] + "x", labels={})
        for number in range(16)
    ]
    # One that differs from all others, where they have everything in common.
    specs[-1] = specs[-1].evolve(namespace="other", schedule="@hourly", selector=None)
    jobs = store.jobs.save_many([with_spec(spec) for spec in specs], [], [])
    assert [job.spec for job in jobs] == specs
    assert store.jobs.page(JobQuery(namespace="other")) == jobs[-1:]
    assert store.jobs.page(JobQuery()) == jobs
    changes = [(changed(job, owner=hostile * 3), 1) for job in jobs]
    store.jobs.save_many([], changes, [])
    assert store.jobs.page(JobQuery()) == [job for job, _ in changes]
    assert len(store.jobs.page(JobQuery(q=hostile * 2))) == 12


def test_insert_change_and_finish_are_one_transaction(store: Store) -> None:
    first, second = store.jobs.save_many([new_job("a"), new_job("b")], [], [])
    new = changed(first, description="new")
    (third,) = store.jobs.save_many([new_job("c")], [(new, 1)], [second.id])
    assert store.jobs.get(first.id) == new
    assert store.jobs.get(second.id).state is JobState.FINISHED
    assert store.jobs.get(third.id) == third


@pytest.mark.parametrize("fault", ["stale", "taken", "unknown"])
def test_a_refused_batch_saves_nothing(store: Store, fault: str) -> None:
    first, second = store.jobs.save_many([new_job("a"), new_job("b")], [], [])
    new, edits = [new_job("c")], [(changed(first, description="new"), 1)]
    match fault:
        case "stale":
            edits.append((changed(second), 9))
        case "taken":
            new.append(new_job("b"))
        case "unknown":
            edits.append((replace(changed(second), id=second.id + 100), 1))
    expected = {"stale": StaleWriteError, "taken": ConflictError, "unknown": NotFoundError}[fault]
    with pytest.raises(expected):
        store.jobs.save_many(new, edits, [second.id])
    assert store.jobs.page(JobQuery()) == [first, second]


def test_pages_follow_each_other_without_gap_or_repeat(store: Store) -> None:
    saved = store.jobs.save_many([new_job(f"j{i}") for i in range(7)], [], [])
    seen: list[Job] = []
    while page := store.jobs.page(JobQuery(limit=3, after=seen[-1].id if seen else 0)):
        assert len(page) <= 3
        seen += page
    assert seen == saved


def test_the_namespaces_of_jobs_are_told(store: Store) -> None:
    first, second = store.jobs.create(new_job("a")), store.jobs.create(new_job("a", namespace="other"))
    wanted = [second.id, first.id, 999_999]
    assert store.jobs.namespaces_of(wanted) == {first.id: "default", second.id: "other"}
    assert store.jobs.namespaces_of([]) == {}


def test_a_page_is_narrowed_by_namespace_text_and_labels(store: Store) -> None:
    store.jobs.create(new_job("one", executable="tar cf", labels={"team": "a", "tier": "x"}))
    store.jobs.create(new_job("two", executable="RSYNC 100%_a", description="Größe", labels={"team": "a"}))
    store.jobs.create(new_job("three", namespace="other", labels={"team": "b"}))

    def found(query: JobQuery) -> list[str | None]:
        return [job.spec.name for job in store.jobs.page(query)]

    assert found(JobQuery(namespace="other")) == ["three"]
    assert found(JobQuery(within=frozenset({"other", "no-such"}))) == ["three"]
    assert found(JobQuery(within=frozenset({"default"}), namespace="other")) == []
    assert found(JobQuery(within=frozenset())) == []
    assert found(JobQuery(q="rsync")) == ["two"]
    assert found(JobQuery(q="GRÖSSE")) == ["two"]
    assert found(JobQuery(q="%_a")) == ["two"]
    assert found(JobQuery(q="0%a")) == []
    assert found(JobQuery(q="t")) == ["one", "two", "three"]
    assert found(JobQuery(labels=(("team", "a"),))) == ["one", "two"]
    assert found(JobQuery(labels=(("team", "a"), ("tier", "x")))) == ["one"]
    assert found(JobQuery(labels=(("team", "A"),))) == []


@pytest.mark.parametrize("bad", [RunState.FAILED, RunState.TIMED_OUT])
def test_status_is_filtered_by_state_and_last_run(store: Store, bad: RunState) -> None:
    fine, failed, new, paused, finished = store.jobs.save_many(
        [
            new_job("fine"),
            new_job("failed"),
            new_job("new"),
            new_job("paused", state=JobState.PAUSED),
            new_job("finished", state=JobState.FINISHED),
        ],
        [],
        [],
    )
    recorded(store, RunState.SUCCEEDED, job_id=fine.id)
    for job in (failed, paused, finished):
        recorded(store, bad, job_id=job.id)

    def ids(status: JobStatus) -> list[int]:
        return [job.id for job in store.jobs.page(JobQuery(status=status))]

    assert ids(JobStatus.SCHEDULED) == [fine.id, new.id]
    assert ids(JobStatus.ERROR) == [failed.id]
    assert ids(JobStatus.PAUSED) == [paused.id]
    assert ids(JobStatus.FINISHED) == [finished.id]


def test_an_unreadable_row_does_not_stop_the_others(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    store = backend.store
    jobs = store.jobs.save_many([new_job(f"j{i}") for i in range(6)], [], [])
    backend.spoil_job(jobs[1].id)
    others = [job for job in jobs if job is not jobs[1]]
    with caplog.at_level(logging.CRITICAL):
        assert store.jobs.page(JobQuery()) == others
        # A short page would be taken for the last one.
        assert store.jobs.page(JobQuery(limit=3)) == others[:3]
    assert [row.job_id for row in store.jobs.plan_rows()] == [job.id for job in jobs]
    assert store.jobs.job_ids() == {job.id for job in jobs}
    assert store.jobs.envelopes([jobs[1].id]) == {jobs[1].id: jobs[1].envelope}
    with pytest.raises(WireFormatError, match=str(jobs[1].id)):
        store.jobs.get(jobs[1].id)


def test_the_leader_gets_what_it_plans_by(store: Store) -> None:
    job = store.jobs.create(with_spec(FULL))
    (row,) = store.jobs.plan_rows()
    assert (row.job_id, row.generation, row.state, row.shards) == (job.id, 1, JobState.ACTIVE, 3)
    assert (row.selector, row.schedule, row.timezone) == (FULL.selector, FULL.schedule, FULL.timezone)
    assert (row.effective_from_ms, row.updated_ms) == (4, 6)


def test_the_leader_can_ask_for_what_has_changed(store: Store) -> None:
    old, new = store.jobs.save_many([new_job("old", updated_ms=1000), new_job("new", updated_ms=2000)], [], [])
    assert [row.job_id for row in store.jobs.plan_rows(changed_since_ms=1001)] == [new.id]
    assert store.jobs.mark_finished(old.id, generation=1)
    assert [row.job_id for row in store.jobs.plan_rows(changed_since_ms=1001)] == [old.id, new.id]


def test_an_active_job_is_marked_finished_once_and_safely_again(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    assert store.jobs.mark_finished(job.id, generation=1)
    assert store.jobs.get(job.id).state is JobState.FINISHED
    assert store.jobs.mark_finished(job.id, generation=1)


def test_a_job_that_has_changed_is_not_marked_finished(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    store.jobs.replace(changed(job), expected_generation=1)
    assert not store.jobs.mark_finished(job.id, generation=1)
    assert not store.jobs.mark_finished(job.id + 1, generation=1)
    assert store.jobs.get(job.id).state is JobState.ACTIVE


def test_a_paused_job_is_not_marked_finished(store: Store) -> None:
    job = store.jobs.create(new_job("a", state=JobState.PAUSED))
    assert not store.jobs.mark_finished(job.id, generation=1)
    assert store.jobs.get(job.id).state is JobState.PAUSED


def test_delete_removes_the_job_with_its_runs_and_output(store: Store) -> None:
    keep, gone = store.jobs.save_many([new_job("keep"), new_job("gone")], [], [])
    for job in (keep, gone):
        done = recorded(store, RunState.FAILED, job_id=job.id)
        store.runs.append_output(done.key, offset=0, data=b"hello")
    assert store.jobs.delete(gone.id)
    assert not store.jobs.delete(gone.id)
    assert store.jobs.job_ids() == {keep.id}
    assert store.runs.history(gone.id, limit=10) == []
    assert len(store.runs.history(keep.id, limit=10)) == 1
    assert store.jobs.create(new_job("gone")).last_run is None


def test_an_id_is_never_used_again(store: Store) -> None:
    job = store.jobs.create(new_job("a"))
    store.jobs.delete(job.id)
    assert store.jobs.create(new_job("a")).id > job.id


def test_a_page_shows_each_job_with_its_last_run(store: Store) -> None:
    ran, never = store.jobs.save_many([new_job("ran"), new_job("never")], [], [])
    recorded(store, RunState.SUCCEEDED, job_id=ran.id, fire_ms=MINUTE_MS)
    last = recorded(store, RunState.FAILED, job_id=ran.id, fire_ms=2 * MINUTE_MS, ended_ms=99)
    first, second = store.jobs.page(JobQuery())
    assert first.last_run is not None and first == store.jobs.get(ran.id)
    assert (first.last_run.run_id, first.last_run.state) == (last.id, RunState.FAILED)
    assert (first.last_run.fire_ms, first.last_run.ended_ms) == (2 * MINUTE_MS, 99)
    assert second.id == never.id and second.last_run is None
