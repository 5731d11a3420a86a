"""Sealed secrets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cronkeeper.domain.secret_env import Sealed, SecretEnv, SecretUse
from cronkeeper.errors import StaleCopyError, StaleWriteError
from cronkeeper.ports import JobQuery, Secret, Store
from tests.contract.test_store.builders import new_job

PG = Secret("default", "pg", Sealed(1, "v1.key.box"), 1_795_000_000_123, "ci")


def test_a_secret_is_read_as_it_was_saved(store: Store) -> None:
    other = replace(PG, namespace="team-a", name="PG")
    store.secrets.save(other, expected_version=0)
    store.secrets.save(PG, expected_version=0)
    assert store.secrets.find("default", ["pg", "PG", "none"]) == {"pg": PG}
    assert store.secrets.find("team-a", []) == {}
    assert store.secrets.all() == [PG, other]
    assert store.secrets.all("team-a") == [other]


def test_only_the_expected_version_is_replaced(store: Store) -> None:
    store.secrets.save(PG, expected_version=0)
    second = replace(PG, sealed=Sealed(2, "v1.key.second"))
    store.secrets.save(second, expected_version=1)
    for expected in (0, 1, 3):
        with pytest.raises(StaleWriteError):
            store.secrets.save(replace(PG, sealed=Sealed(expected + 1, "v1.key.third")), expected_version=expected)
    with pytest.raises(StaleWriteError):
        store.secrets.save(replace(PG, name="none"), expected_version=1)
    assert store.secrets.all() == [second]


def test_saving_the_same_again_is_safe(store: Store) -> None:
    second = replace(PG, sealed=Sealed(2, "v1.key.second"))
    for secret, expected in ((PG, 0), (PG, 0), (second, 1), (second, 1)):
        store.secrets.save(secret, expected_version=expected)
    assert store.secrets.all() == [second]


def test_a_secret_is_deleted_once(store: Store) -> None:
    store.secrets.save(PG, expected_version=0)
    assert not store.secrets.delete("team-a", "pg")
    assert store.secrets.delete("default", "pg")
    assert not store.secrets.delete("default", "pg")
    assert store.secrets.all() == []


def test_jobs_are_found_by_the_secrets_that_they_use(store: Store) -> None:
    def job(namespace: str, *names: str, **more: Any) -> int:
        uses = {f"V{number}": SecretUse(name, as_file=number > 0) for number, name in enumerate(names)}
        secrets = SecretEnv(uses)
        return store.jobs.create(new_job(namespace=namespace, secrets=secrets, **more)).id

    first = job("default", "pg", "s3")
    job("default", "s3", env={"secret": "pg", "A": '{"secret":"pg"}'}, labels={"secret": "pg"})
    job("default", "pg2", "PG", "xpg")
    second = job("default", "s3", "pg", env={"X": "y"})
    elsewhere = job("team-a", "pg")

    def found(name: str, namespace: str | None = None, limit: int = 10) -> list[int]:
        return [job.id for job in store.jobs.page(JobQuery(secret=name, namespace=namespace, limit=limit))]

    assert (found("pg"), found("pg", "default")) == ([first, second, elsewhere], [first, second])
    assert found("pg", limit=2) == [first, second]
    assert found("p") == []


def using(*versions: int, namespace: str = "default") -> dict[str, Any]:
    sealed = dict.fromkeys(["pg"], Sealed(versions[0], "box")) if versions else {}
    return {"namespace": namespace, "secrets": SecretEnv({"P": SecretUse("pg")}, sealed)}


def test_a_job_is_saved_only_with_the_present_version_of_its_secrets(store: Store) -> None:
    store.secrets.save(PG, expected_version=0)
    job = store.jobs.create(new_job(**using(1)))
    store.secrets.save(replace(PG, sealed=Sealed(2, "v1.key.second")), expected_version=1)
    for spec in (using(1), using(3), using(), using(2, namespace="team-a")):
        with pytest.raises(StaleCopyError):
            store.jobs.create(new_job(**spec))
    stale = replace(job, generation=2)
    with pytest.raises(StaleCopyError):
        store.jobs.replace(stale, expected_generation=1)
    assert store.jobs.get(job.id).generation == 1
    fresh = replace(stale, spec=job.spec.evolve(**using(2)))
    store.jobs.replace(fresh, expected_generation=1)
    other = store.jobs.create(new_job(**using(2)))
    store.jobs.save_many([], [(replace(one, generation=9), one.generation) for one in (fresh, other)], [])


def test_a_secret_that_is_gone_is_copied_by_nobody(store: Store) -> None:
    with pytest.raises(StaleCopyError):
        store.jobs.create(new_job(**using(1)))
    assert store.jobs.create(new_job(**using())).spec.secrets.sealed == {}
