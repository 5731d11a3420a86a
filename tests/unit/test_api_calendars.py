"""Named calendars over HTTP, on the doubles: from the request to the fires, and back after a break in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from werkzeug.test import TestResponse

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import spec_from_dict, spec_to_dict
from cronkeeper.ports import JobQuery, Role
from cronkeeper_manager.service import CalendarDraft, Calendars, Caller
from tests.harness.api import JOB, World, fields_of

BANK = {"description": "Banks", "exclude": ["2026-03-03", "2026-03-02", "2026-03-04/2026-03-06"], "include": []}
CALLER = Caller("1", "test", Role.OPERATOR)
DAILY: dict[str, Any] = {"schedule": "0 9 * * *", "calendar": {"named": ["bank"]}}


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def put(world: World, name: str = "bank", query: str = "", **fields: Any) -> TestResponse:
    return world.call("PUT", f"/calendars/{name}{query}", json={**BANK, **fields})


def next_fires(world: World, job: str = "1") -> list[str]:
    found: list[str] = world.call("GET", f"/jobs/{job}/next?count=2").get_json()["next"]
    return [text[:10] for text in found]


def test_a_calendar_is_made_read_listed_and_removed(world: World) -> None:
    made = put(world)
    assert made.status_code == 201
    calendar = made.get_json()["calendar"]
    assert calendar["exclude"] == ["2026-03-02/2026-03-06"]
    assert (calendar["generation"], calendar["namespace"]) == (1, "default")
    read = world.call("GET", "/calendars/bank", role=Role.VIEWER)
    assert (read.get_json(), read.headers["ETag"]) == (calendar, made.headers["ETag"])
    put(world, "a", "?namespace=other")
    put(world, "refresh")
    listed = world.call("GET", "/calendars?limit=2")
    assert [item["name"] for item in listed.get_json()] == ["bank", "refresh"]
    assert "after=default%2Frefresh" in listed.headers["Link"]
    assert [item["name"] for item in world.call("GET", "/calendars?after=default/refresh").get_json()] == ["a"]
    assert [item["name"] for item in world.call("GET", "/calendars?namespace=other").get_json()] == ["a"]
    assert world.call("DELETE", "/calendars/bank").status_code == 204
    assert world.call("GET", "/calendars/bank").status_code == 404
    assert world.call("DELETE", "/calendars/bank").status_code == 404


def test_the_same_again_changes_nothing(world: World) -> None:
    put(world)
    again = put(world)
    assert (again.status_code, again.get_json()["calendar"]["generation"]) == (200, 1)
    assert put(world, description="x").get_json()["calendar"]["generation"] == 2


def test_an_edit_that_was_overtaken_is_refused(world: World) -> None:
    tag = put(world).headers["ETag"]
    newer = world.call("PUT", "/calendars/bank", json={}, headers={"If-Match": tag}).headers["ETag"]
    for method in ("PUT", "DELETE"):
        late = world.call(method, "/calendars/bank", json={"exclude": []}, headers={"If-Match": tag})
        assert (late.status_code, late.get_json()["generation"]) == (412, 2)
    assert world.call("DELETE", "/calendars/bank", headers={"If-Match": newer}).status_code == 204
    put(world)
    assert world.call("PUT", "/calendars/bank", json={}, headers={"If-Match": newer}).status_code == 412
    assert world.call("PUT", "/calendars/new", json={}, headers={"If-Match": newer}).status_code == 412


def test_a_job_follows_the_calendars_that_it_names(world: World) -> None:
    put(world)
    body = world.post_job(**DAILY)
    assert body["named_dates"] == {"bank": {"exclude": ["2026-03-02/2026-03-06"], "include": []}}
    assert next_fires(world) == ["2026-03-07", "2026-03-08"]
    told = world.call("POST", "/preview?count=1", json={**JOB, **DAILY}).get_json()
    assert told["next"] == ["2026-03-07T09:00:00Z"]
    assert "Days of the calendars bank count as they are now." in told["notes"]
    why = world.call("GET", "/jobs/1/why?at=2026-03-02T09:00:00Z").get_json()
    assert not why["due"]
    assert "2026-03-02 is excluded by the calendar bank" in why["words"]
    forecast = world.call("GET", "/forecast?from=2026-03-01T12:00:00Z&to=2026-03-08T00:00:00Z").get_json()
    assert [bucket["at"][:10] for bucket in forecast["buckets"] if bucket["fires"]] == ["2026-03-07"]


def test_a_change_reaches_every_job_from_now_on_and_never_backwards(world: World) -> None:
    put(world)
    world.post_job(name="daily", **DAILY)
    world.post_job(name="plain")
    world.clock.advance_ms(60_000)
    shown = put(world, exclude=["2026-03-07"], query="?dry_run=true").get_json()
    assert (shown["dry_run"], shown["changed"], world.call("GET", "/jobs/1").get_json()["generation"]) == (True, 1, 1)
    answer = put(world, exclude=["2026-03-07"]).get_json()
    assert answer["jobs"] == shown["jobs"]
    (job,) = answer["jobs"]
    assert (job["id"], job["name"]) == ("1", "daily")
    assert [text[:10] for text in job["next_before"]] == ["2026-03-07", "2026-03-08", "2026-03-09"]
    assert [text[:10] for text in job["next_after"]] == ["2026-03-02", "2026-03-03", "2026-03-04"]
    assert (answer["changed"], answer["remaining"]) == (1, 0)
    stored = world.store.jobs.get(1)
    assert (stored.generation, stored.effective_from_ms) == (2, world.clock.now_ms())
    assert world.store.jobs.get(2).generation == 1
    task = world.coordinator.read_tasks([TaskId(1, 0)])[TaskId(1, 0)]
    signed = world.verifier.open(task, job_id=1)
    assert (signed.generation, signed.spec) == (2, stored.spec)
    versions = world.store.audit.versions([1])
    assert [item.spec.named_dates["bank"].exclude for item in versions] == [("2026-03-02/2026-03-06",), ("2026-03-07",)]


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("method", ["jobs.save_many", "jobs.page", "calendars.save", "calendars.find"])
def test_what_broke_off_is_finished_by_the_same_request(world: World, method: str, landed: bool) -> None:
    put(world)
    for number in range(150):
        world.post_job(name=f"j{number}", **DAILY)
    world.store.fail_next(method, landed=landed)
    assert put(world, exclude=["2026-03-07"]).status_code == 503
    assert put(world, exclude=["2026-03-07"]).get_json()["remaining"] == 0
    jobs = world.store.jobs.page(JobQuery())
    assert {job.spec.named_dates["bank"].exclude for job in jobs} == {("2026-03-07",)}
    assert {job.generation for job in jobs} == {2}


def test_a_job_that_was_left_behind_can_be_paused_and_is_up_to_date_then(world: World) -> None:
    put(world)
    world.post_job(**DAILY)
    world.store.fail_next("jobs.save_many")
    assert put(world, exclude=["2026-03-07"]).status_code == 503
    assert next_fires(world) == ["2026-03-07", "2026-03-08"]
    assert world.call("POST", "/jobs/1/pause").get_json()["named_dates"]["bank"]["exclude"] == ["2026-03-07"]
    world.call("POST", "/jobs/1/resume")
    assert next_fires(world) == ["2026-03-02", "2026-03-03"]


def test_very_many_jobs_take_several_requests(world: World) -> None:
    put(world)
    for number in range(250):
        world.post_job(name=f"j{number}", **DAILY)
    calendars = Calendars(world.store, world.services.jobs, world.clock, most=100)
    draft = CalendarDraft(exclude=("2026-03-07",))
    found = [calendars.put("default", "bank", draft, CALLER) for _ in range(4)]
    assert [(one.changed, one.remaining) for one in found] == [(100, 150), (100, 50), (50, 0), (0, 0)]


def test_a_calendar_that_jobs_name_stays(world: World) -> None:
    put(world)
    for name in ("a", "b"):
        world.post_job(name=name, **DAILY)
    refused = world.call("DELETE", "/calendars/bank")
    assert (refused.status_code, refused.get_json()["type"]) == (409, "/problems/conflict")
    assert "the jobs a, b" in refused.get_json()["detail"]
    found = world.call("GET", "/jobs?calendar=bank").get_json()
    assert [job["name"] for job in found] == ["a", "b"]
    world.call("PATCH", "/jobs/1", json={"calendar": None})
    world.call("DELETE", "/jobs/2?purge=true")
    assert world.call("DELETE", "/calendars/bank").status_code == 204


UNKNOWN = [
    ("a name that is nearly right", "default", ["bnak"], "calendar.named[0]", "did you mean bank?"),
    ("a name of another namespace", "other", ["bank"], "calendar.named[0]", "make one"),
    ("nothing like it", "default", ["bank", "zzz"], "calendar.named[1]", "known are bank"),
    ("the same name twice", "default", ["bank", "bank"], "calendar.named[1]", "leave one out"),
]


@pytest.mark.parametrize(("case", "namespace", "named", "field", "hint"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_a_calendar_that_is_not_there_is_named(
    world: World, case: str, namespace: str, named: list[str], field: str, hint: str
) -> None:
    put(world)
    job = {**JOB, "name": "x", "namespace": namespace, "calendar": {"named": named}}
    for path in ("/jobs", "/preview"):
        answer = world.call("POST", path, json=job)
        assert (answer.status_code, fields_of(answer)) == (422, {field})
        assert hint in answer.get_json()["errors"][0]["hint"]
    answer = world.call("POST", "/apply", json={"jobs": [job], "namespace": namespace})
    assert fields_of(answer) == {f"jobs[0].{field}"}
    assert world.store.jobs.page(JobQuery()) == []


def test_apply_leaves_a_job_alone_whose_calendar_has_not_changed(world: World) -> None:
    put(world)
    jobs = {"jobs": [{**JOB, "name": "x", **DAILY}]}
    assert len(world.call("POST", "/apply", json=jobs).get_json()["created"]) == 1
    assert len(world.call("POST", "/apply", json=jobs).get_json()["unchanged"]) == 1


def test_a_job_with_calendars_has_less_room_of_its_own(world: World) -> None:
    put(world)
    big = {**JOB, "env": {f"V{number}": "x" * 4000 for number in range(8)}, "args": ["y" * 4000] * 11}
    assert world.call("POST", "/jobs", json=big).status_code == 201
    assert fields_of(world.call("POST", "/jobs", json={**big, **DAILY})) == {"env"}


def test_a_refresh_adds_years_and_changes_no_day_that_is_known(world: World) -> None:
    world.post_job(schedule="0 9 * * *", calendar={"holidays": ["DE-BY"]})
    world.post_job(name="plain")
    old = world.store.jobs.get(1).spec
    short = tuple(day for day in old.holiday_dates["DE-BY"] if day.year <= 2027 and day != date(2027, 1, 6))
    world.services.jobs.renew([(world.store.jobs.get(1), old.evolve(holiday_dates={"DE-BY": short}))], CALLER)
    shown = world.call("POST", "/calendars/refresh?dry_run=true").get_json()
    assert (shown["looked"], shown["changed"], shown["after"], shown["jobs"][0]["id"]) == (2, 1, None, "1")
    assert world.store.jobs.get(1).spec.holiday_dates["DE-BY"] == short
    done = world.call("POST", "/calendars/refresh?limit=1").get_json()
    assert (done["looked"], done["changed"], done["after"]) == (1, 1, "1")
    assert world.call("POST", "/calendars/refresh?after=1").get_json()["changed"] == 0
    dates = world.store.jobs.get(1).spec.holiday_dates["DE-BY"]
    assert dates[: len(short)] == short
    assert {day.year for day in dates[len(short) :]} == set(range(2028, 2037))
    assert world.call("POST", "/calendars/refresh").get_json()["changed"] == 0


def test_a_refresh_is_not_for_jobs_with_years_to_come(world: World) -> None:
    world.post_job(schedule="0 9 * * *", calendar={"holidays": ["DE-BY"]})
    world.clock.set_ms(parse_rfc3339("2034-11-30T00:00:00Z"))
    assert world.call("POST", "/calendars/refresh").get_json()["changed"] == 0
    world.clock.set_ms(parse_rfc3339("2035-01-01T00:00:00Z"))
    assert world.call("POST", "/calendars/refresh").get_json()["changed"] == 1


def test_a_region_that_is_known_no_longer_is_left_and_told(world: World) -> None:
    world.post_job(schedule="0 9 * * *", calendar={"holidays": ["DE-BY"]})
    job = world.store.jobs.get(1)
    gone = spec_to_dict(job.spec) | {"holiday_dates": {"XX": ["2026-05-01"]}}
    gone["calendar"]["holidays"] = ["XX"]
    world.services.jobs.renew([(job, spec_from_dict(gone))], CALLER)
    done = world.call("POST", "/calendars/refresh").get_json()
    assert (done["changed"], done["left"]) == (0, ["1"])


def test_a_refresh_mends_what_a_broken_change_left_behind(world: World) -> None:
    put(world)
    world.post_job(**DAILY)
    world.store.fail_next("jobs.save_many")
    put(world, exclude=["2026-03-07"])
    assert world.call("POST", "/calendars/refresh").get_json()["changed"] == 1
    assert next_fires(world) == ["2026-03-02", "2026-03-03"]
