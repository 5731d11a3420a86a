"""What the use cases do when somebody else is faster, and when the clock is set back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.errors import ConflictError, StaleWriteError, UnavailableError
from cronkeeper.ports import JobQuery, JobStore, Role
from cronkeeper_manager.service import Caller, Draft, NameTakenError, StaleJobError
from tests.harness.api import NOON_MS, World

ME = Caller("1", "me", Role.OPERATOR)
SPEC = JobSpec("ls -la", "5 * * * *", JobType.COMMAND)


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    found.services.jobs.create(Draft(SPEC), ME)
    yield found
    found.close()


class Outrun:
    """A store of jobs in which somebody else writes first, `times` times."""

    def __init__(self, jobs: JobStore, times: int) -> None:
        self._jobs = jobs
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)

    def replace(self, job: Any, *, expected_generation: int, **more: Any) -> None:
        if self._times:
            self._times -= 1
            theirs = self._jobs.get(job.id)
            spec = theirs.spec.evolve(owner=f"somebody {self._times}")
            other = type(theirs)(
                theirs.id, spec, theirs.generation + 1, theirs.state, theirs.created_ms, theirs.updated_ms,
                theirs.effective_from_ms, theirs.envelope,
            )  # fmt: skip
            self._jobs.replace(other, expected_generation=theirs.generation)
        self._jobs.replace(job, expected_generation=expected_generation, **more)


def _described(spec: JobSpec) -> Draft:
    return Draft(spec.evolve(description="mine"))


def test_a_lost_race_is_run_again_on_what_the_other_wrote(world: World) -> None:
    world.store.jobs = Outrun(world.store.jobs, 2)
    job = world.services.jobs.change(1, _described, ME)
    assert (job.spec.description, job.spec.owner, job.generation) == ("mine", "somebody 0", 4)


def test_a_lost_race_under_if_match_is_told(world: World) -> None:
    world.store.jobs = Outrun(world.store.jobs, 1)
    with pytest.raises(StaleJobError) as caught:
        world.services.jobs.change(1, _described, ME, {1})
    assert caught.value.generation == 2
    assert world.store.jobs.get(1).spec.description == ""


def test_a_race_that_cannot_be_won_is_given_up(world: World) -> None:
    world.store.jobs = Outrun(world.store.jobs, 100)
    with pytest.raises(ConflictError, match="at the same time"):
        world.services.jobs.change(1, _described, ME)


def test_a_job_does_not_fire_backwards_though_the_clock_was_set_back(world: World) -> None:
    world.clock.set_ms(NOON_MS - 3_600_000)
    job = world.services.jobs.change(1, _described, ME)
    assert job.effective_from_ms == NOON_MS


def test_one_transaction_serves_those_who_come_together_and_a_taken_name_hurts_only_its_owner(world: World) -> None:
    names = ["a", "b", "c", "c", "d"]
    outcomes: list[str] = []
    begin = threading.Barrier(len(names))

    def create(name: str) -> None:
        begin.wait(30)
        try:
            outcomes.append(world.services.jobs.create(Draft(SPEC.evolve(name=name)), ME).spec.name or "")
        except NameTakenError:
            outcomes.append("taken")

    threads = [threading.Thread(target=create, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["a", "b", "c", "d", "taken"]
    saved = [job.spec.name for job in world.store.jobs.page(JobQuery())]
    assert sorted(name for name in saved if name) == ["a", "b", "c", "d"]


def test_an_apply_that_loses_a_race_decides_again(world: World) -> None:
    class Taken(Outrun):
        def save_many(self, *given: Any, **more: Any) -> Any:
            if self._times:
                self._times -= 1
                raise StaleWriteError("somebody was first")
            return self._jobs.save_many(*given, **more)

    world.store.jobs = Taken(world.store.jobs, 2)
    drafts = [Draft(SPEC.evolve(name="x"))]
    applied = world.services.jobs.apply(drafts, ME, namespace="default", prune=None, dry_run=False)
    assert [change.name for change in applied.created] == ["x"]
    world.store.jobs = Taken(world.store.jobs, 100)
    with pytest.raises(ConflictError):
        world.services.jobs.apply([Draft(SPEC.evolve(name="y"))], ME, namespace="default", prune=None, dry_run=False)


def test_a_store_that_is_away_is_told_to_everybody(world: World) -> None:
    world.store.set_available(False)
    with pytest.raises(UnavailableError):
        world.services.jobs.create(Draft(SPEC), ME)
    world.store.set_available(True)
    assert world.services.jobs.create(Draft(SPEC), ME).id == 2
