"""Schedules: what is accepted means what Debian's cron means; what cron would misread is refused with a mend."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.cronfields import ScheduleError
from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339, to_ms
from cronkeeper.domain.schedule import Dst, Fold, Gap, clock_changes, notes, parse_schedule

NOW = parse_rfc3339("2026-11-21T00:00:30Z")

REFUSED = [
    ("minute out of range", "60 * * * *", 0),
    ("hour out of range", "0 24 * * *", 2),
    ("day 0", "0 0 0 * *", 4),
    ("month 13", "0 0 1 13 *", 6),
    ("weekday 8", "0 0 * * 8", 8),
    ("cron reads 1#2 as 1", "1#2 0 * * *", 1),
    ("a sixth Monday", "0 0 * * 1#6", 8),
    ("L alone as a weekday", "0 0 * * L", 8),
    ("a fifth Friday of no February", "0 0 30W 2 *", 4),
    ("the nearest to no day", "0 0 32W * *", 4),
    ("H without a choice", "H(5-5) * * * *", 0),
    ("H out of range", "H(0-60) * * * *", 4),
    ("H with too large a step", "H(0-9)/10 * * * *", 7),
    ("H with garbage", "H5 * * * *", 1),
    ("the second of two", "0 0 * * *; 60 * * * *", 11),
    ("nothing after ;", "0 0 * * *;", 10),
    ("too many", "* * * * *; " * 16 + "* * * * *", 174),
    ("garbage after a number", "1;2 * * * *", 1),
    ("garbage after a star", "*foo * * * *", 1),
    ("two steps", "*/5/2 * * * *", 3),
    ("two ranges", "5-10-20 * * * *", 4),
    ("fractional step", "*/1.5 * * * *", 3),
    ("a reversed range never matches", "5-1 * * * *", 0),
    ("reversed names never match", "0 0 * * mon-sun", 8),
    ("a step beyond the range", "*/99 * * * *", 2),
    ("a step of zero", "*/0 * * * *", 2),
    ("a step without a range", "1/20 * * * *", 0),
    ("an empty term", "1,,2 * * * *", 2),
    ("a trailing comma", "1, * * * *", 2),
    ("a question mark", "0 0 ? * *", 4),
    ("an unknown name", "0 0 * foo *", 6),
    ("L in the hour", "0 L * * *", 2),
    ("30 February", "0 0 30 2 *", 4),
    ("31st of short months", "0 0 31 4,6,9,11 *", 4),
    ("four fields", "* * * *", 0),
    ("seven fields", "* * * * * * *", 0),
    ("empty", "", 0),
    ("a newline", "* * * * *\n* * * * *", 9),
    ("a NUL", "* * * * *\x00", 9),
    ("another digit", "٣ * * * *", 0),
    ("too long", "1," * 200 + "1 * * * *", 256),
    ("an unknown name after @", "@hourl", 0),
    ("@reboot with more", "@reboot now", 0),
    ("@reboot among others", "5 * * * *; @reboot", 11),
    ("@every without a duration", "@every", 7),
    ("@every nonsense", "@every soon", 7),
    ("@every nothing", "@every 0s", 7),
    ("@every too long", "@every 9999d", 7),
    ("@at without a zone", "@at 2027-01-01T00:00:00", 4),
    ("@at no such day", "@at 2027-02-30T00:00:00Z", 4),
]


@pytest.mark.parametrize(("case", "text", "position"), REFUSED, ids=[row[0] for row in REFUSED])
def test_is_refused_with_its_position(case: str, text: str, position: int) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_schedule(text)
    assert caught.value.position == position, caught.value.message
    assert caught.value.message


NEXT = [
    ("hourly", "5 * * * *", "UTC", ["2026-11-21T00:05:00Z", "2026-11-21T01:05:00Z"]),
    ("steps", "*/20 * * * *", "UTC", ["2026-11-21T00:20:00Z", "2026-11-21T00:40:00Z"]),
    ("names", "0 12 * jan mon", "UTC", ["2027-01-04T12:00:00Z", "2027-01-11T12:00:00Z"]),
    ("sunday is 7", "0 0 * * 7", "UTC", ["2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"]),
    (
        "either day field",
        "0 0 13 * 5",
        "UTC",
        ["2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"],
    ),
    (
        "both day fields when one starts with a star",
        "0 0 */2 * 1",
        "UTC",
        ["2026-11-23T00:00:00Z", "2026-12-07T00:00:00Z"],
    ),
    ("seconds", "*/30 * * * * *", "UTC", ["2026-11-21T00:01:00Z", "2026-11-21T00:01:30Z"]),
    ("nickname", "@weekly", "UTC", ["2026-11-22T00:00:00Z"]),
    ("a zone", "0 9 * * *", "Asia/Kolkata", ["2026-11-21T03:30:00Z"]),
    ("every, counted from 1970", "@every 90s", "UTC", ["2026-11-21T00:01:30Z", "2026-11-21T00:03:00Z"]),
    ("at", "@at 2027-01-01T00:00:00+01:00", "UTC", ["2026-12-31T23:00:00Z"]),
    ("a leap day", "0 0 29 2 *", "UTC", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
]


@pytest.mark.parametrize(("case", "text", "zone", "expected"), NEXT, ids=[row[0] for row in NEXT])
def test_next_fires(case: str, text: str, zone: str, expected: list[str]) -> None:
    schedule = parse_schedule(text, zone)
    found = schedule.fire_times(NOW, NOW + 10 * 366 * 86_400_000, limit=len(expected) - 1)[: len(expected)]
    assert [rfc3339(ms) for ms in found] == expected
    assert schedule.words()


BERLIN = [
    ("gap: a fixed time runs when the gap ends, once", "15,45 2 * * *", Dst(), "2026-03-29", ["01:00"]),
    ("gap: skip", "15,45 2 * * *", Dst(gap=Gap.SKIP), "2026-03-29", []),
    ("gap: run after", "15,45 2 * * *", Dst(gap=Gap.RUN_AFTER), "2026-03-29", ["01:00"]),
    ("gap: a wildcard follows the clock", "*/30 2 * * *", Dst(), "2026-03-29", []),
    ("fold: a fixed time runs once", "30 2 * * *", Dst(), "2026-10-25", ["00:30"]),
    ("fold: first", "30 2 * * *", Dst(fold=Fold.FIRST), "2026-10-25", ["00:30"]),
    ("fold: second", "30 2 * * *", Dst(fold=Fold.SECOND), "2026-10-25", ["01:30"]),
    ("fold: both", "30 2 * * *", Dst(fold=Fold.BOTH), "2026-10-25", ["00:30", "01:30"]),
    ("fold: a wildcard runs in both passes", "*/30 2 * * *", Dst(), "2026-10-25", ["00:00", "00:30", "01:00", "01:30"]),
    ("fold: a wildcard by rule, first", "*/30 2 * * *", Dst(fold=Fold.FIRST), "2026-10-25", ["00:00", "00:30"]),
]


@pytest.mark.parametrize(("case", "text", "dst", "day", "expected"), BERLIN, ids=[row[0] for row in BERLIN])
def test_clock_changes_in_berlin(case: str, text: str, dst: Dst, day: str, expected: list[str]) -> None:
    start = to_ms(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Berlin"))) - 1
    found = parse_schedule(text, "Europe/Berlin", dst).fire_times(start, start + 25 * 3_600_000)
    assert [from_ms(ms).strftime("%H:%M") for ms in found if from_ms(ms).date().isoformat() == day] == expected


def test_unknown_zone_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Europe/Berlin"):
        parse_schedule("0 0 * * *", "Europe/Berlim")


@pytest.mark.parametrize("zone", ["../../etc/passwd", "right/UTC ", "europe/berlin", "", "\x00"])
def test_hostile_zone_names_are_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        parse_schedule("0 0 * * *", zone)


def test_notes_tell_the_next_clock_change() -> None:
    assert "goes forward by 1 hour at 2027-03-28T01:00:00Z" in " ".join(
        notes(parse_schedule("0 2 * * *", "Europe/Berlin"), NOW)
    )


def test_clock_changes_find_a_half_hour() -> None:
    assert {abs(after - before) for _, before, after in clock_changes("Australia/Lord_Howe", NOW)} == {1800}


FIELD = {
    "minute": st.sampled_from(["*", "0", "59", "*/7", "3-40/9", "1,2,50", "17"]),
    "hour": st.sampled_from(["*", "2", "1,3", "*/5", "0-6", "23"]),
    "day": st.sampled_from(["*", "1", "*/2", "13", "28-31"]),
    "month": st.sampled_from(["*", "3", "10,11", "*/4"]),
    "weekday": st.sampled_from(["*", "0", "1-5", "*/3", "6,7"]),
}
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"]
)


def brute_force(
    minute: str, hour: str, day: str, month: str, weekday: str, start: datetime, hours: int
) -> list[datetime]:
    """An evaluator of our own that shares nothing with the product: minute by minute, in UTC."""

    def values(field: str, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for term in field.split(","):
            body, _, step = term.partition("/")
            first, _, last = body.partition("-")
            span = range(low, high + 1) if body == "*" else range(int(first), int(last or first) + 1)
            found |= set(span[:: int(step or 1)])
        return found

    days, weekdays = values(day, 1, 31), {v % 7 for v in values(weekday, 0, 6)}
    both = day.startswith("*") or weekday.startswith("*")
    found = []
    for offset in range(1, hours * 60 + 1):
        at = start + timedelta(minutes=offset)
        in_day, in_weekday = at.day in days, at.isoweekday() % 7 in weekdays
        fits = (in_day and in_weekday) if both else (in_day or in_weekday)
        if (
            fits
            and at.month in values(month, 1, 12)
            and at.hour in values(hour, 0, 23)
            and at.minute in values(minute, 0, 59)
        ):
            found.append(at)
    return found


@settings(max_examples=60, deadline=None)
@given(**FIELD, day_offset=st.integers(0, 700))
def test_equals_an_independent_evaluator_in_utc(
    minute: str, hour: str, day: str, month: str, weekday: str, day_offset: int
) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day_offset)
    schedule = parse_schedule(f"{minute} {hour} {day} {month} {weekday}")
    found = schedule.fire_times(to_ms(start), to_ms(start + timedelta(hours=60)), limit=5000)
    assert [from_ms(ms) for ms in found] == brute_force(minute, hour, day, month, weekday, start, 60)


@settings(max_examples=200, deadline=None)
@given(
    **FIELD,
    zone=ZONES,
    gap=st.sampled_from([None, *Gap]),
    fold=st.sampled_from([None, *Fold]),
    offset=st.integers(0, 800 * 86_400),
)
def test_fire_times_ascend_and_do_not_depend_on_where_the_search_starts(
    minute: str,
    hour: str,
    day: str,
    month: str,
    weekday: str,
    zone: str,
    gap: Gap | None,
    fold: Fold | None,
    offset: int,
) -> None:
    schedule = parse_schedule(f"{minute} {hour} {day} {month} {weekday}", zone, Dst(gap, fold))
    start = NOW + offset * 1000
    until = start + 3 * 86_400_000
    found = schedule.fire_times(start, until, limit=6000)
    assert all(a < b for a, b in itertools.pairwise(found))
    middle = start + 86_400_000 + 1_234_000
    assert found == schedule.fire_times(start, middle, limit=6000) + schedule.fire_times(middle, until, limit=6000)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=40), st.from_regex(r"[-*/,0-9a-z ]{1,40}", fullmatch=True)))
def test_noise_is_refused_or_has_a_next_fire(text: str) -> None:
    refusal = None
    try:
        schedule = parse_schedule(text)
    except ScheduleError as exc:
        refusal = exc
    if refusal is None:
        assert schedule.next_fire(NOW) is not None or schedule.text.startswith("@at")
    else:
        assert 0 <= refusal.position <= max(len(text), 256)


def test_catching_up_after_years_is_bounded() -> None:
    times, older = parse_schedule("* * * * * *").latest_fires(0, NOW, keep=10)
    assert len(times) == 10
    assert times[-1] == NOW
    assert older > 0
