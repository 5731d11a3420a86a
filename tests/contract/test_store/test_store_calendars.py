"""Named calendars, and jobs that hold copies of them."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from cronkeeper.domain.calendars import Calendar
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.named_calendars import Dates, NamedCalendar
from cronkeeper.errors import ConflictError, CronkeeperError, NotFoundError, StaleCopyError, StaleWriteError
from cronkeeper.ports import JobQuery, Store
from cronkeeper.wire.trail import Actor, Entry
from tests.contract.test_store.builders import new_job

CHRISTMAS = Dates(("2026-12-24/2026-12-26",), ("2026-12-27",))
EASTER = Dates(("2027-03-26", "2027-03-29"))


def calendar(name: str = "bank", **fields: Any) -> NamedCalendar:
    values: dict[str, Any] = {"namespace": "default", "description": "", "dates": CHRISTMAS, "generation": 1}
    return NamedCalendar(name=name, created_ms=5, updated_ms=6, **(values | fields))


def saved(store: Store, name: str = "bank", **fields: Any) -> NamedCalendar:
    item = calendar(name, **fields)
    store.calendars.save(item, expected_generation=0)
    return item


def job_of(store: Store, name: str, dates: Dates = CHRISTMAS, **fields: Any) -> Job:
    """A job that names the calendar `bank`, with a copy of these days."""
    return store.jobs.create(new_job(name, calendar=Calendar(named=("bank",)), named_dates={"bank": dates}, **fields))


def changed(job: Job, **fields: Any) -> Job:
    return replace(job, generation=job.generation + 1, **fields)


def test_a_calendar_comes_back(store: Store) -> None:
    first = saved(store, description="Bänke\nzu")
    second = saved(store, "a", namespace="other", dates=Dates())
    assert store.calendars.get("default", "bank") == first
    assert store.calendars.find("default", ["bank", "a", "b"]) == {"bank": first}
    assert store.calendars.find("other", ["a"]) == {"a": second}
    with pytest.raises(NotFoundError):
        store.calendars.get("default", "a")


def test_pages_go_by_namespace_and_name(store: Store) -> None:
    for namespace, name in (("b", "x"), ("a", "z"), ("b", "a"), ("a", "B")):
        saved(store, name, namespace=namespace)

    def keys(**query: Any) -> list[str]:
        return [f"{item.namespace}/{item.name}" for item in store.calendars.page(**query)]

    assert keys(limit=10) == ["a/B", "a/z", "b/a", "b/x"]
    assert keys(limit=2, after=("a", "B")) == ["a/z", "b/a"]
    assert keys(limit=10, within=frozenset({"b"})) == ["b/a", "b/x"]
    assert keys(limit=10, within=frozenset()) == []
    assert store.calendars.names("a") == ["B", "z"]
    assert store.calendars.names("none") == []


def test_the_generation_decides_who_writes(store: Store) -> None:
    first = saved(store)
    with pytest.raises(StaleWriteError):
        saved(store)
    second = replace(first, generation=2, dates=EASTER, updated_ms=9)
    store.calendars.save(second, expected_generation=1)
    with pytest.raises(StaleWriteError):
        store.calendars.save(replace(first, generation=2), expected_generation=1)
    with pytest.raises(StaleWriteError):
        store.calendars.save(calendar("new", generation=2), expected_generation=1)
    assert store.calendars.get("default", "bank") == second
    assert store.calendars.names("default") == ["bank"]


def test_a_job_is_saved_with_the_present_days_only(store: Store) -> None:
    with pytest.raises(StaleCopyError):
        job_of(store, "early")
    first = saved(store)
    job = job_of(store, "a")
    with pytest.raises(StaleCopyError):
        job_of(store, "b", EASTER)
    with pytest.raises(StaleCopyError):
        job_of(store, "c", namespace="other")
    store.calendars.save(replace(first, generation=2, dates=EASTER), expected_generation=1)
    with pytest.raises(StaleCopyError):
        store.jobs.replace(changed(job), expected_generation=1)
    assert [item.spec.name for item in store.jobs.page(JobQuery())] == ["a"]
    fresh = changed(job, spec=job.spec.evolve(named_dates={"bank": EASTER}))
    store.jobs.replace(fresh, expected_generation=1)
    assert store.jobs.get(job.id).spec == fresh.spec


def test_a_job_may_be_finished_with_old_days(store: Store) -> None:
    first = saved(store)
    job = job_of(store, "a")
    store.calendars.save(replace(first, generation=2, dates=EASTER), expected_generation=1)
    store.jobs.replace(changed(job, state=JobState.FINISHED), expected_generation=1)
    assert store.jobs.get(job.id).state is JobState.FINISHED


def test_a_new_description_outdates_no_copy(store: Store) -> None:
    first = saved(store)
    job = job_of(store, "a")
    store.calendars.save(replace(first, generation=2, description="x"), expected_generation=1)
    store.jobs.replace(changed(job), expected_generation=1)
    assert store.calendars.count_uses("default", "bank", outdated=CHRISTMAS.digest) == 0


def test_the_jobs_of_a_calendar_are_found(store: Store) -> None:
    first = saved(store)
    saved(store, namespace="other")
    one, two = job_of(store, "a"), job_of(store, "b")
    foreign = job_of(store, "a", namespace="other")
    store.jobs.create(new_job("plain"))

    def found(**query: Any) -> list[int]:
        return [job.id for job in store.jobs.page(JobQuery(calendar="bank", **query))]

    assert found(namespace="default") == [one.id, two.id]
    assert found(namespace="default", after=one.id) == [two.id]
    assert found() == [one.id, two.id, foreign.id]
    store.calendars.save(replace(first, generation=2, dates=EASTER), expected_generation=1)
    store.jobs.replace(changed(one, spec=one.spec.evolve(named_dates={"bank": EASTER})), expected_generation=1)
    assert found(namespace="default", outdated=EASTER.digest) == [two.id]
    assert found(namespace="default") == [one.id, two.id]
    assert store.calendars.count_uses("default", "bank") == 2
    assert store.calendars.count_uses("default", "bank", outdated=EASTER.digest) == 1
    assert store.calendars.count_uses("other", "bank") == 1
    assert store.calendars.count_uses("default", "none") == 0


def test_a_calendar_that_a_job_names_stays(store: Store) -> None:
    saved(store)
    job = job_of(store, "a")
    with pytest.raises(ConflictError):
        store.calendars.delete("default", "bank", expected_generation=1)
    store.jobs.replace(changed(job, spec=job.spec.evolve(calendar=None, named_dates={})), expected_generation=1)
    for generation in (0, 2):
        with pytest.raises(StaleWriteError):
            store.calendars.delete("default", "bank", expected_generation=generation)
    store.calendars.delete("default", "bank", expected_generation=1)
    with pytest.raises(StaleWriteError):
        store.calendars.delete("default", "bank", expected_generation=1)
    assert store.calendars.names("default") == []


def test_what_is_done_to_a_calendar_stands_in_the_trail(store: Store) -> None:
    actor = Actor("7", "ci", "operator")
    first, refused, last = (Entry(f"{number:032x}", 5, actor, "x.y", "calendar", "bank") for number in range(3))
    store.calendars.save(calendar(), expected_generation=0, trail=[first])
    with pytest.raises(StaleWriteError):
        store.calendars.save(calendar(), expected_generation=0, trail=[refused])
    store.calendars.delete("default", "bank", expected_generation=1, trail=[last])
    assert store.trail.waiting(limit=10) == [first, last]


def test_a_removed_job_names_nothing(store: Store) -> None:
    saved(store)
    job = job_of(store, "a")
    assert store.jobs.delete(job.id)
    assert store.calendars.count_uses("default", "bank") == 0
    store.calendars.delete("default", "bank", expected_generation=1)


def test_whoever_saves_a_job_and_whoever_removes_its_calendar_do_not_both_win(store: Store) -> None:
    for turn in range(6):
        saved(store)
        start, outcome = threading.Barrier(2), dict[str, bool]()

        def create(turn: int = turn, start: threading.Barrier = start, outcome: dict[str, bool] = outcome) -> None:
            start.wait()
            try:
                job_of(store, f"j{turn}")
                outcome["created"] = True
            except CronkeeperError:
                outcome["created"] = False

        thread = threading.Thread(target=create)
        thread.start()
        start.wait()
        try:
            store.calendars.delete("default", "bank", expected_generation=1)
            removed = True
        except ConflictError:
            removed = False
        thread.join()
        assert outcome["created"] is not removed
        for job in store.jobs.page(JobQuery()):
            store.jobs.delete(job.id)
        if not removed:
            store.calendars.delete("default", "bank", expected_generation=1)
