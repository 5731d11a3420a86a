"""T39: leap days, ends of months and ends of years: our search beside the checker's walk through every minute."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from cronkeeper.domain.schedule import parse_schedule
from tests.faults.checker.evaluator import Rules, fire_times

EXPRESSIONS = (
    "0 0 29 2 *",
    "30 12 29 2 1",
    "0 0 */2 2 *",
    "15 6 31 * *",
    "0 0 30 4,6,9,11 *",
    "0 1 28-31 * 0",
    "*/20 22-23 28-31 * *",
    "59 23 31 12 *",
    "59 59 23 31 12 *",
    "0 0 1 1 *",
    "0 0 1 * *",
    "0 3 * * 5",
    "@yearly",
    "@monthly",
    "@weekly",
    "@every 7h",
)
ZONES = ("UTC", "America/St_Johns", "Pacific/Kiritimati")
#: The middle of each window: leap days that are and that are not, ends of months, ends of years, a lost day.
MIDDLES = (
    *((year, 2, 28) for year in (1972, 2000, 2023, 2024, 2100, 2400)),
    *((2025, month, 28) for month in (1, 4, 11)),
    *((year, 12, 31) for year in (1999, 2024, 2037)),
)
HALF = timedelta(hours=18)


@pytest.mark.parametrize("middle", MIDDLES, ids=lambda day: "-".join(map(str, day)))
@pytest.mark.parametrize("zone", ZONES)
def test_t39_leap_day_month_end_year_end(zone: str, middle: tuple[int, int, int]) -> None:
    """Each expression is due exactly when the walk says so."""
    around = datetime(*middle, 23, 0, tzinfo=ZoneInfo(zone))
    start_s, end_s = int((around - HALF).timestamp()), int((around + HALF).timestamp())
    fired = 0
    for text in EXPRESSIONS:
        walked = fire_times(text, zone, Rules(), start_s, end_s)
        assert parse_schedule(text, zone).fire_times(start_s * 1000 - 1, end_s * 1000 - 1) == walked, text
        fired += len(walked)
    assert fired


def test_a_day_that_never_was_is_nobodys_last_day() -> None:
    """Samoa had no 30 December 2011."""
    start_s, end_s = (int(datetime(2011, 12, day, tzinfo=UTC).timestamp()) for day in (28, 31))
    for text in ("0 12 30 12 *", "0 12 * * *", "0 */6 28-31 12 *", "59 23 29 * *", "0 0 31 12 *"):
        walked = fire_times(text, "Pacific/Apia", Rules(), start_s, end_s)
        assert parse_schedule(text, "Pacific/Apia").fire_times(start_s * 1000 - 1, end_s * 1000 - 1) == walked, text


@pytest.mark.parametrize(("after", "following"), [("1896-03-01", "1904-02-29"), ("2096-03-01", "2104-02-29")])
def test_the_next_leap_day_is_found_across_a_century_without_one(after: str, following: str) -> None:
    after_ms, following_ms = (
        int(datetime.fromisoformat(f"{day}T00:00Z").timestamp()) * 1000 for day in (after, following)
    )
    assert parse_schedule("0 0 29 2 *", "UTC").next_fire(after_ms) == following_ms


@pytest.mark.parametrize("year", [2023, 2024, 2100])
def test_the_last_day_of_each_month_is_the_calendars(year: int) -> None:
    start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    times = parse_schedule("0 0 L * *", "UTC").fire_times(
        int(start.timestamp()) * 1000 - 1, int(end.timestamp()) * 1000 - 1
    )
    days = [datetime.fromtimestamp(ms / 1000, UTC) for ms in times]
    assert [(day.month, day.day) for day in days] == [(m, calendar.monthrange(year, m)[1]) for m in range(1, 13)]
