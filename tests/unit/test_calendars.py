"""Days without fires: dropped, moved, told; and blackouts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.calendars import Blackout, Calendar, OnExcluded, Weekday
from cronkeeper.domain.exclusion import excluded
from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339, to_ms
from cronkeeper.domain.job import JobSpec, JobType, next_fire
from cronkeeper.domain.schedule import Schedule, parse_schedule

NOW = parse_rfc3339("2026-12-01T00:00:30Z")
DAY_MS = 86_400_000
CHRISTMAS = {"DE": (date(2026, 12, 25), date(2026, 12, 26), date(2027, 1, 1))}
WEEKEND = (Weekday.SAT, Weekday.SUN)


def spec_of(schedule: str, on_excluded: OnExcluded = OnExcluded.SKIP, timezone: str = "UTC") -> JobSpec:
    calendar = Calendar(("DE",), (date(2026, 12, 24),), WEEKEND, (date(2026, 12, 27),), on_excluded)
    spec = JobSpec("ls", schedule, JobType.COMMAND, timezone=timezone)
    return spec.evolve(calendar=calendar, holiday_dates=CHRISTMAS)


def days(schedule: Schedule, first: str, last: str) -> list[str]:
    found = schedule.fire_times(
        to_ms(datetime.fromisoformat(f"{first}T00:00Z")) - 1, parse_rfc3339(f"{last}T23:59:59Z")
    )
    return [rfc3339(ms)[:10] for ms in found]


MOVES = [
    ("dropped", OnExcluded.SKIP, "0 9 22-28 12 *", ["22", "23", "27", "28"]),
    ("on to the next day", OnExcluded.NEXT, "0 9 24 12 *", ["27"]),
    ("back to the day before", OnExcluded.PREVIOUS, "0 9 26 12 *", ["23"]),
    ("several on one day are one", OnExcluded.NEXT, "0 9 22-28 12 *", ["22", "23", "27", "28"]),
    ("an allowed day stays", OnExcluded.NEXT, "0 9 27 12 *", ["27"]),
]


@pytest.mark.parametrize(("case", "on_excluded", "text", "expected"), MOVES, ids=[row[0] for row in MOVES])
def test_a_fire_on_an_excluded_day(case: str, on_excluded: OnExcluded, text: str, expected: list[str]) -> None:
    found = days(spec_of(text, on_excluded).parsed_schedule(), "2026-12-20", "2026-12-31")
    assert found == [f"2026-12-{day}" for day in expected]


@pytest.mark.parametrize(("shut", "expected"), [(31, ["2027-01-11"]), (32, [])])
def test_a_fire_moves_by_31_days_at_most(shut: int, expected: list[str]) -> None:
    dates = tuple(date(2026, 12, 11) + timedelta(days=day) for day in range(shut))
    calendar = Calendar(exclude=dates, on_excluded=OnExcluded.NEXT)
    spec = JobSpec("ls", "0 9 11 12 *", JobType.COMMAND, calendar=calendar)
    assert days(spec.parsed_schedule(), "2026-12-01", "2027-03-01") == expected


def test_a_moved_fire_keeps_its_time_on_the_jobs_clock() -> None:
    spec = JobSpec("ls", "30 2 28 3 *", JobType.COMMAND, timezone="Europe/Berlin")
    moved = spec.evolve(calendar=Calendar(exclude=(date(2027, 3, 28),), on_excluded=OnExcluded.NEXT))
    fire_ms = moved.parsed_schedule().next_fire(NOW)
    assert fire_ms is not None
    assert from_ms(fire_ms).astimezone(ZoneInfo("Europe/Berlin")).isoformat() == "2027-03-29T02:30:00+02:00"


def test_the_day_is_the_one_of_the_jobs_zone() -> None:
    spec = JobSpec("ls", "0 9 * * *", JobType.COMMAND, timezone="Pacific/Auckland")
    shut = spec.evolve(calendar=Calendar(exclude=(date(2026, 12, 25),)))
    # 09:00 on 25 December in Auckland is still 24 December in UTC.
    lost = set(spec.parsed_schedule().fire_times(NOW, NOW + 40 * DAY_MS)) - set(
        shut.parsed_schedule().fire_times(NOW, NOW + 40 * DAY_MS)
    )
    assert [rfc3339(ms) for ms in lost] == ["2026-12-24T20:00:00Z"]


@settings(max_examples=60, deadline=None)
@given(
    excluded_days=st.sets(st.integers(0, 60), max_size=50),
    weekdays=st.sets(st.sampled_from(Weekday), max_size=3),
    included=st.sets(st.integers(0, 60), max_size=5),
    on_excluded=st.sampled_from(OnExcluded),
    text=st.sampled_from(["0 9 * * *", "0 9 1,15 * *", "0 9 * * 1", "0 9 L * *", "*/30 8-9 */3 * *"]),
    offset=st.integers(0, 60 * 86_400),
)
def test_moves_equal_a_search_day_by_day(
    excluded_days: set[int],
    weekdays: set[Weekday],
    included: set[int],
    on_excluded: OnExcluded,
    text: str,
    offset: int,
) -> None:
    first = date(2026, 12, 1)
    calendar = Calendar(
        (),
        tuple(first + timedelta(day) for day in sorted(excluded_days)),
        tuple(weekdays),
        tuple(first + timedelta(day) for day in sorted(included)),
        on_excluded,
    )
    spec = JobSpec("ls", text, JobType.COMMAND, calendar=calendar)

    def allowed(day: date) -> bool:
        shut = day in calendar.exclude or list(Weekday)[day.isoweekday() % 7] in calendar.exclude_weekdays
        return day in calendar.include or not shut

    def moved(at: datetime) -> datetime | None:
        if allowed(at.date()):
            return at
        step = {OnExcluded.SKIP: 0, OnExcluded.NEXT: 1, OnExcluded.PREVIOUS: -1}[on_excluded]
        near = [at + timedelta(days=step * distance) for distance in range(1, 32)] if step else []
        return next((other for other in near if allowed(other.date())), None)

    low = NOW + offset * 1000
    high = low + 20 * DAY_MS
    wide = parse_schedule(text).fire_times(low - 40 * DAY_MS, high + 40 * DAY_MS, limit=10_000)
    expected = {to_ms(found) for ms in wide if (found := moved(from_ms(ms))) is not None}
    assert spec.parsed_schedule().fire_times(low, high, limit=10_000) == sorted(
        ms for ms in expected if low < ms <= high
    )


def test_blackouts_close_from_their_first_instant_to_before_their_last() -> None:
    noon = parse_rfc3339("2026-12-01T12:00:00Z")
    spec = JobSpec("ls", "*/15 * * * *", JobType.COMMAND, blackouts=(Blackout(noon, noon + 1_800_000),))
    found = spec.parsed_schedule().fire_times(noon - 900_001, noon + 1_800_000)
    assert [rfc3339(ms)[11:16] for ms in found] == ["11:45", "12:30"]


@pytest.mark.parametrize("text", ["* * * * * *", "@every 1s", "* * * * *; @every 1s"])
def test_a_blackout_of_years_is_jumped_over(text: str) -> None:
    windows = (Blackout(NOW + 5000, NOW + 10 * 366 * DAY_MS), Blackout(NOW + 9 * 366 * DAY_MS, NOW + 11 * 366 * DAY_MS))
    schedule = JobSpec("ls", text, JobType.COMMAND, blackouts=windows).parsed_schedule()
    assert schedule.next_fire(NOW + 5000) == NOW + 11 * 366 * DAY_MS


def test_an_interval_is_dropped_on_excluded_days_and_keeps_its_beat() -> None:
    spec = spec_of("@every 7h")
    found = spec.parsed_schedule().fire_times(NOW, NOW + 40 * DAY_MS, limit=1000)
    plain = parse_schedule("@every 7h").fire_times(NOW, NOW + 40 * DAY_MS, limit=1000)
    assert found == [ms for ms in plain if excluded(spec, ms) is None]
    assert {from_ms(ms).weekday() for ms in found if from_ms(ms).day != 27} == {0, 1, 2, 3, 4}
    assert not {from_ms(ms).day for ms in found if from_ms(ms).month == 12} & {24, 25, 26}


def test_nothing_fires_if_no_day_is_allowed() -> None:
    spec = JobSpec("ls", "* * * * *", JobType.COMMAND, calendar=Calendar(exclude_weekdays=tuple(Weekday)))
    assert next_fire(spec, NOW) is None
    assert next_fire(spec.evolve(schedule="@every 1s"), NOW) is None


def test_the_newest_fires_before_a_blackout_are_found() -> None:
    spec = JobSpec("ls", "* * * * * *", JobType.COMMAND, blackouts=(Blackout(NOW - 30 * 3_600_000, NOW + 1),))
    times, older = spec.parsed_schedule().latest_fires(NOW - 2 * DAY_MS, NOW, keep=1000)
    last = NOW - 30 * 3_600_000 - 1000
    assert times == list(range(last - 999_000, last + 1, 1000))
    assert older > 10_000


TOLD = [
    ("2026-12-24T09:00:00Z", "2026-12-24 is excluded by the job's calendar"),
    ("2026-12-25T09:00:00Z", "2026-12-25 is a holiday of DE"),
    ("2026-12-19T09:00:00Z", "2026-12-19 is a Saturday, which the job's calendar excludes"),
    ("2026-12-22T09:00:00Z", "it lies in the blackout from 2026-12-22T00:00:00Z to 2026-12-23T00:00:00Z"),
    ("2026-12-27T09:00:00Z", None),
    ("2026-12-25T09:01:00Z", None),
]


@pytest.mark.parametrize(("at", "reason"), TOLD)
def test_why_a_fire_is_not_due(at: str, reason: str | None) -> None:
    blackout = Blackout(parse_rfc3339("2026-12-22T00:00:00Z"), parse_rfc3339("2026-12-23T00:00:00Z"))
    spec = spec_of("0 9 * * *").evolve(blackouts=(blackout,))
    assert excluded(spec, parse_rfc3339(at)) == reason


def test_a_moved_fire_is_told_where_it_went() -> None:
    spec = spec_of("0 9 24 12 *", OnExcluded.NEXT)
    told = excluded(spec, parse_rfc3339("2026-12-24T09:00:00Z"))
    assert told == "2026-12-24 is excluded by the job's calendar; its fire moves to the next allowed day"
    assert excluded(spec, parse_rfc3339("2026-12-27T09:00:00Z")) is None


def test_timing_tells_what_fire_times_depend_on() -> None:
    spec = spec_of("0 9 * * *")
    assert spec.timing == spec.evolve(name="x", executable="id").timing
    assert hash(spec.timing) is not None
    changes: tuple[dict[str, Any], ...] = (
        {"holiday_dates": {}},
        {"blackouts": (Blackout(0, 1),)},
        {"calendar": None},
        {"timezone": "Asia/Tokyo"},
        {"ends_at_ms": 5},
    )
    for change in changes:
        assert spec.evolve(**change).timing != spec.timing
    hashed = spec.evolve(schedule="H 9 * * *", name="x")
    assert hashed.timing != hashed.evolve(name="y").timing


def test_every_day_is_allowed_again_after_the_calendar() -> None:
    assert days(spec_of("0 9 * * *").parsed_schedule(), "2027-01-01", "2027-01-05") == ["2027-01-04", "2027-01-05"]
    assert datetime(2027, 1, 4, tzinfo=UTC).weekday() == 0
