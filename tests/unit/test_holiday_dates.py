"""What is settled when a job with a calendar, or with an `H`, is saved; and what its user sees of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from cronkeeper.domain.calendars import Calendar
from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper_manager.service.holiday_dates import YEARS_AHEAD, region_fault, settle
from tests.harness.api import JOB, World, fields_of

NOW = parse_rfc3339("2026-11-21T00:00:00Z")
SPEC = JobSpec("ls", "0 9 * * *", JobType.COMMAND, name="a", calendar=Calendar(("DE-BY", "FR")))
BAVARIA: dict[str, Any] = {"holidays": ["DE-BY"], "on_excluded": "next"}


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def test_the_dates_of_eleven_years_are_copied() -> None:
    settled = settle(SPEC, None, now_ms=NOW, job_id=None)
    assert set(settled.holiday_dates) == {"DE-BY", "FR"}
    bavaria, france = settled.holiday_dates["DE-BY"], settled.holiday_dates["FR"]
    assert date(2027, 1, 6) in bavaria
    assert date(2027, 1, 6) not in france
    assert date(2027, 7, 14) in france
    assert {day.year for day in bavaria} == set(range(2025, 2026 + YEARS_AHEAD + 1))


def test_years_that_were_copied_stay_as_they_are() -> None:
    old = SPEC.evolve(holiday_dates={"DE-BY": (date(2027, 2, 3), date(2031, 2, 3))})
    settled = settle(SPEC.evolve(calendar=Calendar(("DE-BY",))), old, now_ms=NOW, job_id=None)
    assert settled.holiday_dates == old.holiday_dates
    later = settle(settled, old, now_ms=parse_rfc3339("2027-01-01T00:00:00Z"), job_id=None).holiday_dates["DE-BY"]
    assert later[:2] == old.holiday_dates["DE-BY"]
    assert {day.year for day in later[2:]} == set(range(2032, 2027 + YEARS_AHEAD + 1))


def test_a_region_that_is_no_longer_named_is_forgotten() -> None:
    old = settle(SPEC, None, now_ms=NOW, job_id=None)
    assert set(settle(SPEC.evolve(calendar=Calendar(("FR",))), old, now_ms=NOW, job_id=None).holiday_dates) == {"FR"}
    assert settle(SPEC.evolve(calendar=None), old, now_ms=NOW, job_id=None).holiday_dates == {}


@pytest.mark.parametrize("region", ["DE", "DE-BY", "US-CA", "GB-SCT", "JP"])
def test_known_regions(region: str) -> None:
    assert region_fault(region) is None


@pytest.mark.parametrize(
    ("region", "hint"),
    [("DE-XX", "DE-BY"), ("GER", "GR"), ("de", "DE"), ("", "ISO 3166"), ("DE-", "DE-BB"), ("-", "ISO")],
)
def test_unknown_regions_are_refused_with_a_hint(region: str, hint: str) -> None:
    fault = region_fault(region)
    assert fault is not None
    assert hint in fault[1]


def test_a_calendar_comes_back_with_its_dates(world: World) -> None:
    body = world.post_job(name="a", schedule="0 9 1 * *", timezone="Europe/Berlin", calendar=BAVARIA)
    assert body["calendar"] == {**BAVARIA, "exclude": [], "exclude_weekdays": [], "include": [], "named": []}
    assert "2027-01-06" in body["holiday_dates"]["DE-BY"]
    again = world.call("PATCH", "/jobs/1", json={"description": "x"}).get_json()
    assert again["holiday_dates"] == body["holiday_dates"]
    gone = world.call("PATCH", "/jobs/1", json={"calendar": None}).get_json()
    assert (gone["calendar"], gone["holiday_dates"]) == (None, {})


def test_the_signed_task_holds_the_dates(world: World) -> None:
    world.post_job(calendar=BAVARIA, blackouts=[{"from": "2026-05-01T00:00:00Z", "to": "2026-05-02T00:00:00Z"}])
    spec = world.verifier.open(world.coordinator.read_tasks([TaskId(1, 0)])[TaskId(1, 0)], job_id=1).spec
    assert date(2027, 1, 6) in spec.holiday_dates["DE-BY"]
    assert spec.blackouts[0].from_ms == parse_rfc3339("2026-05-01T00:00:00Z")


def test_a_job_without_a_name_is_spread_by_its_id(world: World) -> None:
    bodies = [world.post_job(schedule="H * * * *") for _ in range(3)]
    assert [body["spread"] for body in bodies] == ["1", "2", "3"]
    assert len({body["next_fire"] for body in bodies}) == 3
    assert world.post_job(schedule="H * * * *", name="b")["spread"] == ""
    same = world.call("PATCH", "/jobs/1", json={"description": "x"}).get_json()
    assert (same["spread"], same["next_fire"]) == ("1", bodies[0]["next_fire"])


def test_a_list_of_schedules_is_saved_as_one_text(world: World) -> None:
    body = world.post_job(schedule=["0 9 * * 1-5", " 0 12 * * 6 "])
    assert body["schedule"] == "0 9 * * 1-5; 0 12 * * 6"
    unchanged = world.call("PATCH", "/jobs/1", json={"schedule": ["0 9 * * 1-5", "0 12 * * 6"]}).get_json()
    assert unchanged["generation"] == 1


def test_what_get_shows_may_be_put_back(world: World) -> None:
    body = world.post_job(name="a", schedule="H 9 1 * *", calendar=BAVARIA)
    read_only = {"id", "status", "status_reason", "generation", "created_at", "updated_at", "next_fire", "last_run"}
    back = {
        key: value
        for key, value in body.items()
        if key not in {*read_only, "workers", "artifact", "holiday_dates", "named_dates", "spread", "secret_versions"}
    }
    assert world.call("PUT", "/jobs/1", json=back).get_json()["generation"] == 1


WRONG: list[tuple[str, dict[str, Any], set[str]]] = [
    ("no region", {"calendar": {"holidays": ["DE-XX"]}}, {"calendar.holidays[0]"}),
    ("no day", {"calendar": {"exclude": ["2026-02-30"]}}, {"calendar.exclude[0]"}),
    ("no weekday", {"calendar": {"exclude_weekdays": ["monday"]}}, {"calendar.exclude_weekdays[0]"}),
    (
        "no day left",
        {"calendar": {"exclude_weekdays": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]}},
        {"calendar.exclude_weekdays"},
    ),
    ("no such policy", {"calendar": {"on_excluded": "later"}}, {"calendar.on_excluded"}),
    ("an interval that cannot move", {"schedule": "@every 1h", "calendar": BAVARIA}, {"calendar.on_excluded"}),
    ("a blackout without an end", {"blackouts": [{"from": "2026-05-01T00:00:00Z"}]}, {"blackouts[0].to"}),
    (
        "a blackout that runs backwards",
        {"blackouts": [{"from": "2026-05-01T00:00:00Z", "to": "2026-05-01T00:00:00Z"}]},
        {"blackouts[0].to"},
    ),
    (
        "an instant on an excluded day",
        {"schedule": "@at 2026-12-24T09:00:00Z", "calendar": {"exclude": ["2026-12-24"]}},
        {"schedule"},
    ),
    ("dates that the server sets", {"holiday_dates": {}}, {"holiday_dates"}),
    ("a list with a number", {"schedule": ["0 9 * * *", 5]}, {"schedule"}),
    ("an empty list", {"schedule": []}, {"schedule"}),
]


@pytest.mark.parametrize(("case", "fields", "named"), WRONG, ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_named(world: World, case: str, fields: dict[str, Any], named: set[str]) -> None:
    answer = world.call("POST", "/jobs", json={**JOB, **fields})
    assert (answer.status_code, fields_of(answer)) == (422, named)


def test_the_preview_tells_of_the_calendar(world: World) -> None:
    job = {**JOB, "schedule": "0 9 1 * *", "calendar": {**BAVARIA, "exclude": ["2026-04-01"]}}
    said = world.call("POST", "/preview?count=2", json=job).get_json()
    assert said["next"] == ["2026-04-02T09:00:00Z", "2026-05-02T09:00:00Z"]
    assert "Holidays of DE-BY are known until 2036-12-31." in said["notes"]
    assert "A fire on a day that the calendar excludes moves to the next allowed day." in said["notes"]
