"""Policies of namespaces, and quotas that hold also when many write at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from cronkeeper.domain.job import Artifact, JobState
from cronkeeper.domain.quota import Quotas, Usage
from cronkeeper.errors import QuotaExceededError
from cronkeeper.ports import JobQuery, NamespacePolicy, Store, Weighing
from tests.contract.test_store.builders import new_job
from tests.contract.test_store.conftest import Backend

MINUTE_MS = 60_000


def load_of(schedule: str) -> float:
    return 1.0


WEIGHING = Weighing(5 * MINUTE_MS + 1000, load_of)


def bound(store: Store, /, namespace: str = "default", **quotas: Any) -> None:
    store.namespaces.save(NamespacePolicy(namespace, None, Quotas(**quotas), 7))


def test_a_namespace_that_nobody_decided_about_is_not_bounded(store: Store) -> None:
    assert store.namespaces.get("team-a") == NamespacePolicy("team-a")
    assert store.namespaces.all() == []
    store.jobs.create(new_job("a", namespace="team-b"), weighing=WEIGHING)
    assert store.namespaces.all() == [NamespacePolicy("team-b")]


def test_a_policy_is_kept_and_overwritten(store: Store) -> None:
    full = NamespacePolicy("team-a", ("root", "nobody"), Quotas(5, 2.5, 60, 2**40, 10), 77)
    store.namespaces.save(full)
    assert store.namespaces.get("team-a") == full
    nobody = NamespacePolicy("team-a", (), Quotas(), 78)
    store.namespaces.save(nobody)
    store.namespaces.save(nobody)
    assert store.namespaces.all() == [nobody]


def test_usage_counts_what_is_not_finished(store: Store) -> None:
    file = Artifact("artifacts/x/run.sh", "s3://b/x", "0" * 64, 100, "run.sh")
    store.jobs.create(new_job("a", artifact=file))
    store.jobs.create(new_job("b", state=JobState.PAUSED, artifact=replace(file, size=23), shards=3))
    store.jobs.create(new_job("c", state=JobState.FINISHED, artifact=file))
    store.jobs.create(new_job("a", namespace="other"))
    assert store.namespaces.usage("default", load_of) == Usage(2, 4.0, 123)
    assert store.namespaces.usage("nowhere", load_of) == Usage()


def test_a_row_that_cannot_be_read_stops_nobody(backend: Backend) -> None:
    store = backend.store
    job = store.jobs.create(new_job("a"))
    backend.spoil_job(job.id)
    bound(store, max_jobs=2, max_artifact_bytes=10)
    store.jobs.create(new_job("b"), weighing=WEIGHING)
    assert store.namespaces.usage("default", load_of).jobs == 2


@pytest.mark.parametrize(
    ("quotas", "quota", "field"),
    [
        ({"max_jobs": 2}, "max_jobs", "namespace"),
        ({"max_fires_per_minute": 2.5}, "max_fires_per_minute", "schedule"),
        ({"max_artifact_bytes": 250}, "max_artifact_bytes", "executable"),
    ],
)
def test_what_goes_beyond_a_quota_is_not_saved(store: Store, quotas: dict[str, Any], quota: str, field: str) -> None:
    file = Artifact("artifacts/x/run.sh", "s3://b/x", "0" * 64, 100, "run.sh")
    bound(store, **quotas)
    made = [store.jobs.create(new_job(name, artifact=file), weighing=WEIGHING) for name in "ab"]
    with pytest.raises(QuotaExceededError) as caught:
        store.jobs.create(new_job("c", artifact=file), weighing=WEIGHING)
    assert (caught.value.quota, caught.value.field, caught.value.retry_after_s) == (quota, field, None)
    assert [job.spec.name for job in store.jobs.page(JobQuery())] == ["a", "b"]
    # What stays or shrinks is always allowed; what is given up makes room.
    finished = replace(made[0], state=JobState.FINISHED, generation=2)
    store.jobs.replace(finished, expected_generation=1, weighing=WEIGHING)
    third = store.jobs.create(new_job("c", artifact=file), weighing=WEIGHING)
    again = replace(finished, state=JobState.ACTIVE, generation=3)
    with pytest.raises(QuotaExceededError):
        store.jobs.replace(again, expected_generation=2, weighing=WEIGHING)
    bound(store, max_jobs=0, max_fires_per_minute=0, max_artifact_bytes=0)
    store.jobs.replace(replace(third, generation=2), expected_generation=1, weighing=WEIGHING)
    store.jobs.create(new_job("d", namespace="other"), weighing=WEIGHING)


def test_a_job_that_moves_in_is_held_against_the_quota(store: Store) -> None:
    bound(store, "other", max_jobs=0)
    job = store.jobs.create(new_job("a"))
    moved = replace(job, spec=job.spec.evolve(namespace="other"), generation=2)
    with pytest.raises(QuotaExceededError):
        store.jobs.replace(moved, expected_generation=1, weighing=WEIGHING)
    assert store.jobs.get(job.id).spec.namespace == "default"


def test_all_of_many_or_none(store: Store) -> None:
    bound(store, max_jobs=2)
    with pytest.raises(QuotaExceededError):
        store.jobs.save_many([new_job(name) for name in "abc"], [], [], weighing=WEIGHING)
    assert store.jobs.page(JobQuery()) == []
    assert len(store.jobs.save_many([new_job(name) for name in "ab"], [], [], weighing=WEIGHING)) == 2


def test_a_token_creates_so_many_in_a_minute(store: Store) -> None:
    bound(store, max_creates_per_minute=2)

    def create(name: str, by: str, now_ms: int) -> None:
        store.jobs.create(replace(new_job(name), by=by), weighing=Weighing(now_ms, load_of))

    create("a", "1", 60_000)
    create("b", "1", 119_999)
    create("c", "2", 119_999)
    with pytest.raises(QuotaExceededError) as caught:
        create("d", "1", 100_000)
    assert (caught.value.quota, caught.value.retry_after_s) == ("max_creates_per_minute", 20)
    create("d", "1", 120_000)
    store.jobs.create(replace(new_job("e", namespace="other"), by="1"), weighing=Weighing(120_000, load_of))


def test_what_is_refused_does_not_count_as_created(store: Store) -> None:
    bound(store, max_creates_per_minute=2, max_jobs=0)
    for _ in range(5):
        with pytest.raises(QuotaExceededError) as caught:
            store.jobs.create(replace(new_job("a"), by="1"), weighing=WEIGHING)
        assert caught.value.quota == "max_jobs"


def test_many_at_once_do_not_get_beyond_a_quota(store: Store) -> None:
    start = threading.Barrier(8)

    def go(number: int) -> int:
        start.wait()
        try:
            store.jobs.create(new_job(f"job-{number}-{limit}"), weighing=WEIGHING)
        except QuotaExceededError:
            return 0
        return 1

    for limit in range(1, 5):
        bound(store, max_jobs=limit)
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(go, range(8))) == 1
        assert len(store.jobs.page(JobQuery())) == limit


def test_many_at_once_do_not_get_beyond_a_rate(store: Store) -> None:
    bound(store, max_creates_per_minute=5)
    start = threading.Barrier(8)

    def go(number: int) -> int:
        start.wait()
        try:
            store.jobs.create(replace(new_job(f"job-{number}"), by="1"), weighing=WEIGHING)
        except QuotaExceededError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(go, range(8))) == 5
