"""Named calendars: how days are written, what they do to a job's fires, and what a job keeps of them."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.calendars import Calendar, OnExcluded, Weekday, why_closed
from cronkeeper.domain.exclusion import excluded
from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339
from cronkeeper.domain.job import JobSpec, JobType, spec_from_dict, spec_to_dict
from cronkeeper.domain.named_calendars import Dates, days_of, parse_span, spans_of

FIRST = date(2026, 12, 1)
NOW = parse_rfc3339("2026-12-01T00:00:00Z") - 1
DAY_MS = 86_400_000


def spans(*days: int) -> tuple[str, ...]:
    """Days of December 2026, by number."""
    return spans_of((FIRST + timedelta(day - 1) - date(1970, 1, 1)).days for day in days)


def spec_of(calendar: Calendar, schedule: str = "0 9 * * *", **named: Dates) -> JobSpec:
    return JobSpec("ls", schedule, JobType.COMMAND, calendar=calendar, named_dates=named)


def december(spec: JobSpec) -> list[int]:
    return [from_ms(ms).day for ms in spec.parsed_schedule().fire_times(NOW, NOW + 31 * DAY_MS)]


@pytest.mark.parametrize(
    ("text", "count"),
    [("1970-01-01", 1), ("2199-12-31", 1), ("2028-02-28/2028-03-01", 3), ("2026-12-24/2026-12-24", 1)],
)
def test_a_text_stands_for_its_days(text: str, count: int) -> None:
    assert len(parse_span(text)) == count


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-02-30", "is not a day"),
        ("2026-12-24/2027-02-30", "is not a day"),
        ("24.12.2026", "is not a day"),
        ("2026-12-24/", "is not a day"),
        ("２026-12-24", "is not a day"),
        ("20261224", "is not a day"),
        ("", "is not a day"),
        ("2026-12-25/2026-12-24", "runs backwards"),
        ("1969-12-31", "out of range"),
        ("2199-12-31/2200-01-01", "out of range"),
    ],
)
def test_what_is_no_day_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_span(text)


@given(days=st.sets(st.integers(0, 84_005), max_size=60))
def test_days_come_back_from_their_texts(days: set[int]) -> None:
    texts = spans_of(days)
    assert days_of(texts) == days
    assert spans_of(days_of(texts)) == texts
    assert list(texts) == sorted(texts)


def test_three_days_in_a_row_are_a_range() -> None:
    assert spans(24, 25, 28, 29, 30, 30) == ("2026-12-24", "2026-12-25", "2026-12-28/2026-12-30")


def test_the_digest_tells_days_apart() -> None:
    found = {Dates(spans(1), ()).digest, Dates((), spans(1)).digest, Dates(spans(2), ()).digest, Dates().digest}
    assert len(found) == 4
    assert Dates(spans(1, 2, 3)).digest == Dates(("2026-12-01/2026-12-03",)).digest


BANK = Dates(spans(24, 25, 26), spans(5))
WEEKEND = (Weekday.SAT, Weekday.SUN)
ALL = set(range(1, 32))
MEANINGS = [
    ("its days are off", Calendar(named=("bank",)), ALL - {24, 25, 26}),
    ("what it includes is worked on at a weekend", Calendar(exclude_weekdays=WEEKEND, named=("bank",)), None),
    ("the job's include wins", Calendar(include=(date(2026, 12, 24),), named=("bank",)), ALL - {25, 26}),
    ("the job's exclude wins", Calendar(exclude=(date(2026, 12, 5),), named=("bank",)), ALL - {5, 24, 25, 26}),
    ("a calendar that was not copied closes nothing", Calendar(named=("other",)), ALL),
    ("one includes what another excludes", Calendar(named=("bank", "open")), ALL - {25, 26}),
]


@pytest.mark.parametrize(("case", "calendar", "expected"), MEANINGS, ids=[row[0] for row in MEANINGS])
def test_what_its_days_mean(case: str, calendar: Calendar, expected: set[int] | None) -> None:
    if expected is None:
        expected = {day for day in ALL - {24, 25, 26} if date(2026, 12, day).isoweekday() < 6} | {5}
    assert set(december(spec_of(calendar, bank=BANK, open=Dates((), spans(24))))) == expected


@pytest.mark.parametrize(
    ("on_excluded", "expected"), [(OnExcluded.SKIP, []), (OnExcluded.NEXT, [27]), (OnExcluded.PREVIOUS, [23])]
)
def test_a_fire_on_such_a_day_follows_the_jobs_rule(on_excluded: OnExcluded, expected: list[int]) -> None:
    calendar = Calendar(on_excluded=on_excluded, named=("bank",))
    assert december(spec_of(calendar, "0 9 25 12 *", bank=BANK)) == expected


def test_the_calendar_is_named_when_a_fire_is_not_due() -> None:
    spec = spec_of(Calendar(exclude_weekdays=WEEKEND, named=("bank",)), bank=BANK)
    assert excluded(spec, parse_rfc3339("2026-12-24T09:00:00Z")) == "2026-12-24 is excluded by the calendar bank"
    assert excluded(spec, parse_rfc3339("2026-12-05T09:00:00Z")) is None
    assert "a Saturday" in (excluded(spec, parse_rfc3339("2026-12-12T09:00:00Z")) or "")


def test_nothing_is_said_of_a_day_that_is_allowed() -> None:
    calendar = Calendar(exclude=(date(2026, 12, 24),), exclude_weekdays=WEEKEND, named=("bank", "open"))
    copies = {"bank": BANK, "open": Dates((), spans(24, 25))}
    assert why_closed(calendar, {"DE": (date(2026, 12, 5),)}, copies, date(2026, 12, 5)) == ""
    assert why_closed(calendar, {}, copies, date(2026, 12, 25)) == ""
    assert "by the job's calendar" in why_closed(calendar, {}, copies, date(2026, 12, 24))


def test_a_spec_comes_back_with_its_copies() -> None:
    spec = spec_of(Calendar(named=("bank",)), bank=BANK)
    data = spec_to_dict(spec)
    assert data["named_dates"] == {"bank": {"exclude": ["2026-12-24/2026-12-26"], "include": ["2026-12-05"]}}
    assert spec_from_dict(data) == spec
    first, second = (spec_from_dict(data).named_dates["bank"] for _ in range(2))
    assert first is second
    older = {key: value for key, value in data.items() if key != "named_dates"}
    del older["calendar"]["named"]
    assert (spec_from_dict(older).named_dates, spec_from_dict(older).calendar) == ({}, Calendar())


def test_other_days_are_another_timing() -> None:
    calendar = Calendar(named=("bank",))
    assert spec_of(calendar, bank=BANK).timing != spec_of(calendar, bank=Dates(spans(24))).timing
    assert hash(spec_of(calendar, bank=BANK).timing) is not None


@settings(max_examples=80, deadline=None)
@given(
    shut=st.sets(st.integers(1, 45), max_size=30),
    worked=st.sets(st.integers(1, 45), max_size=6),
    weekdays=st.sets(st.sampled_from(Weekday), max_size=3),
    on_excluded=st.sampled_from([OnExcluded.NEXT, OnExcluded.PREVIOUS]),
    text=st.sampled_from(["0 9 * * *", "0 9 1,15 * *", "30 9 L * *", "0 9 * * 1"]),
)
def test_no_fire_is_lost_but_by_skip(
    shut: set[int], worked: set[int], weekdays: set[Weekday], on_excluded: OnExcluded, text: str
) -> None:
    """Each fire of the schedule alone has an allowed day that it stands on: its own, or the nearest in the rule's
    direction; unless there is none within 31 days."""
    dates = Dates(spans(*shut), spans(*worked))
    calendar = Calendar(exclude_weekdays=tuple(sorted(weekdays)), on_excluded=on_excluded, named=("a",))
    spec = spec_of(calendar, text, a=dates)
    plain = spec.evolve(calendar=None).parsed_schedule().fire_times(NOW, NOW + 45 * DAY_MS)
    moved = set(spec.parsed_schedule().fire_times(NOW - 40 * DAY_MS, NOW + 90 * DAY_MS, limit=1000))
    off, on = days_of(dates.exclude), days_of(dates.include)

    def allowed(day: int) -> bool:
        weekday = list(Weekday)[date.fromordinal(day + date(1970, 1, 1).toordinal()).isoweekday() % 7]
        return day in on or (day not in off and weekday not in weekdays)

    step = 1 if on_excluded is OnExcluded.NEXT else -1
    for fire_ms in plain:
        targets = (distance * step for distance in range(32) if allowed(fire_ms // DAY_MS + distance * step))
        found = next(targets, None)
        assert found is None or fire_ms + found * DAY_MS in moved, rfc3339(fire_ms)
    assert all(allowed(ms // DAY_MS) for ms in moved)
    skipped = spec.evolve(calendar=Calendar(exclude_weekdays=tuple(sorted(weekdays)), named=("a",)))
    kept = skipped.parsed_schedule().fire_times(NOW, NOW + 45 * DAY_MS)
    assert kept == [ms for ms in plain if allowed(ms // DAY_MS)]
