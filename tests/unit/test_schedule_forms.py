"""What cron does not know: `H`, `L`, `W`, `#`, and several schedules of one job."""

from __future__ import annotations

import calendar
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.cronfields import ScheduleError, parse_fields
from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339, to_ms
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.domain.schedule import Kind, notes, parse_schedule
from cronkeeper.domain.spread import slot

NOW = parse_rfc3339("2026-11-21T00:00:30Z")
YEAR_MS = 366 * 86_400_000

DAYS = [
    ("the last day", "0 0 L * *", ["2026-11-30", "2026-12-31", "2027-01-31", "2027-02-28"]),
    ("three days before the last", "0 0 L-3 * *", ["2026-11-27", "2026-12-28", "2027-01-28", "2027-02-25"]),
    ("the last weekday", "0 0 LW * *", ["2026-11-30", "2026-12-31", "2027-01-29", "2027-02-26"]),
    ("Saturday gives way to Friday", "0 0 15W * *", ["2026-12-15", "2027-01-15", "2027-02-15", "2027-03-15"]),
    ("never into the month before", "0 0 1W 5,8 *", ["2027-05-03", "2027-08-02"]),
    ("never into the month after", "0 0 31W 1,10 *", ["2027-01-29", "2027-10-29"]),
    ("a month without such a day", "0 0 31W * *", ["2026-12-31", "2027-01-29", "2027-03-31", "2027-05-31"]),
    ("the second Tuesday", "0 0 * * 2#2", ["2026-12-08", "2027-01-12", "2027-02-09"]),
    ("by name", "0 0 * * tue#2", ["2026-12-08", "2027-01-12", "2027-02-09"]),
    ("Sunday is 7", "0 0 * * 7#1", ["2026-12-06", "2027-01-03"]),
    ("a fifth Monday", "0 0 * * 1#5", ["2026-11-30", "2027-03-29", "2027-05-31"]),
    ("the last Friday", "0 0 * * friL", ["2026-11-27", "2026-12-25", "2027-01-29"]),
    ("either day field", "0 0 L * 1#1", ["2026-11-30", "2026-12-07", "2026-12-31", "2027-01-04"]),
    ("both, after a star", "0 0 */2 * 1#1", ["2026-12-07", "2027-02-01", "2027-03-01", "2027-04-05"]),
    ("with plain days", "0 0 1,L * *", ["2026-11-30", "2026-12-01", "2026-12-31", "2027-01-01"]),
    ("with plain weekdays", "0 0 * 12 mon,fri#1", ["2026-12-04", "2026-12-07", "2026-12-14"]),
    ("across a century without a leap day", "0 0 29 2 */7", ["2032-02-29", "2060-02-29", "2088-02-29", "2128-02-29"]),
]


@pytest.mark.parametrize(("case", "text", "expected"), DAYS, ids=[row[0] for row in DAYS])
def test_days_that_no_number_names(case: str, text: str, expected: list[str]) -> None:
    schedule = parse_schedule(text)
    found = []
    after = NOW
    for _ in expected:
        after = schedule.next_fire(after) or 0
        found.append(from_ms(after).date().isoformat())
    assert found == expected
    assert " on " in schedule.words()


def last_workday(year: int, month: int) -> int:
    return max(day for day in days_of(year, month) if date(year, month, day).weekday() < 5)


def days_of(year: int, month: int) -> range:
    return range(1, calendar.monthrange(year, month)[1] + 1)


@settings(max_examples=150, deadline=None)
@given(
    year=st.integers(1996, 2104),
    month=st.integers(1, 12),
    back=st.integers(0, 27),
    near=st.integers(1, 28),
    weekday=st.integers(0, 6),
    nth=st.integers(1, 4),
)
def test_day_rules_equal_a_search_through_the_month(
    year: int, month: int, back: int, near: int, weekday: int, nth: int
) -> None:
    days = days_of(year, month)
    of_weekday = [day for day in days if date(year, month, day).isoweekday() % 7 == weekday]
    working = [day for day in days if date(year, month, day).weekday() < 5]
    expected = {
        f"0 0 L-{back} * *": days[-1] - back,
        "0 0 LW * *": last_workday(year, month),
        f"0 0 {near}W * *": min(working, key=lambda day: (abs(day - near), day)),
        f"0 0 * * {weekday}L": of_weekday[-1],
        f"0 0 * * {weekday}#{nth}": of_weekday[nth - 1],
    }
    start = to_ms(datetime(year, month, 1, tzinfo=UTC)) - 1
    end = to_ms(datetime(year, month, 1, tzinfo=UTC) + timedelta(days=len(days))) - 1
    for text, day in expected.items():
        found = parse_schedule(text).fire_times(start, end)
        assert [from_ms(ms).day for ms in found] == [day], text


STYLES = ["backup-{}", "default/job{}", "team-{}-report", "db{:05d}", "2027/{}/etl"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("place", range(6))
def test_numbered_names_are_spread_evenly(style: str, place: int) -> None:
    few = {slot(style.format(number), place, 60) for number in range(100)}
    assert len(few) >= 45
    loads = Counter(slot(style.format(number), place, 60) for number in range(1, 1001))
    assert max(loads.values()) <= 1.6 * 1000 / 60


def test_names_without_numbers_are_spread_as_dice_are() -> None:
    words = [
        a + b for a in ("bill", "mail", "log", "sync", "dump", "scan", "push") for b in "abcdefghijklmnopqrstuvwxyz"
    ]
    names = [f"{first}-{second}" for first in words[:40] for second in words[-25:]]
    loads = Counter(slot(name, 1, 60) for name in names)
    assert len(names) == 1000
    assert len(loads) == 60
    assert max(loads.values()) <= 2.2 * 1000 / 60


def test_minutes_and_hours_are_spread_apart() -> None:
    times = {(slot(f"job-{number}", 2, 24), slot(f"job-{number}", 1, 60)) for number in range(1000)}
    assert len(times) >= 700  # of 1440; dice would find 721


def test_the_place_of_a_name_is_for_ever() -> None:
    texts = [parse_fields(text, "default/backup-7").text for text in ("H H * * *", "H/15 H(0-5) H * H", "H H H H H H")]
    assert texts == ["34 5 * * *", "8-59/15 1 22 * 4", "27 34 5 22 6 4"]


@pytest.mark.parametrize("name", ["a", "b7", "nightly", "x-1", "x-2"])
def test_h_keeps_to_its_range(name: str) -> None:
    fields = parse_fields("H(10-29) H(0-23)/6 H(29-31) H(jan-mar) H(mon-fri)", name)
    assert fields.minute.values <= set(range(10, 30))
    assert len(fields.hour.values) == 4
    assert {b - a for a, b in zip(fields.hour.ordered, fields.hour.ordered[1:], strict=False)} == {6}
    assert fields.day.values <= {29, 30, 31}
    assert fields.month.values <= {1, 2, 3}
    assert fields.weekday.values <= {1, 2, 3, 4, 5}
    assert parse_fields(fields.text) == parse_fields(fields.text)
    assert parse_fields(fields.text).minute == fields.minute


def test_h_is_a_fixed_time_to_the_clock_change() -> None:
    assert not parse_fields("H H * * *", "a").wildcard
    assert parse_fields("H * * * *", "a").wildcard


def test_h_belongs_to_the_name_not_to_the_text() -> None:
    spec = JobSpec("ls", "H * * * *", JobType.COMMAND, name="job-1")
    others = {spec.evolve(name=f"job-{number}").parsed_schedule().next_fire(NOW) for number in range(50)}
    assert len(others) >= 30
    assert spec.evolve(namespace="other").parsed_schedule() != spec.parsed_schedule()
    assert spec.evolve(name=None, spread="17").seed == "17"
    assert "stands for" in " ".join(notes(spec.parsed_schedule(), NOW))


def test_several_schedules_fire_in_order_and_once_where_they_meet() -> None:
    schedule = parse_schedule("0 */6 * * *; 0 12 * * 6; @at 2026-11-21T13:00:00Z; @every 12h")
    assert schedule.kind is Kind.SEVERAL
    found = schedule.fire_times(NOW, NOW + 86_400_000)
    assert [rfc3339(ms)[11:16] for ms in found] == ["06:00", "12:00", "13:00", "18:00", "00:00"]
    assert schedule.next_fire(NOW) == found[0]
    assert schedule.latest_fires(NOW, NOW + 86_400_000, keep=2) == (found[-2:], 3)
    assert schedule.words().count("; ") == 3
    assert schedule.last_ms is None


def test_only_instants_have_a_last_one() -> None:
    first, second = "@at 2026-12-01T00:00:00Z", "@at 2026-12-24T00:00:00Z"
    assert parse_schedule(f"{second}; {first}").last_ms == parse_rfc3339("2026-12-24T00:00:00Z")
    assert parse_schedule(first).last_ms == parse_rfc3339("2026-12-01T00:00:00Z")
    assert parse_schedule("@daily").last_ms is None


def test_reboot_is_due_on_a_node_alone_and_then_once() -> None:
    schedule = parse_schedule("@Reboot", "Europe/Berlin")
    assert (schedule.text, schedule.next_fire(0), schedule.last_ms, schedule.spread) == ("@reboot", None, None, False)
    assert schedule.words() == "At each start of each node that fits"
    here = schedule.on_node(5000)
    assert (here.next_fire(4999), here.next_fire(5000), here.fire_times(0, 9999)) == (5000, None, [5000])
    assert parse_schedule("5 * * * *").on_node(5000) == parse_schedule("5 * * * *")
    with pytest.raises(ScheduleError, match="stands alone") as caught:
        parse_schedule("5 * * * *; @REBOOT")
    assert "two jobs" in caught.value.hint


@settings(max_examples=400, deadline=None)
@given(st.from_regex(r"[-*/,0-9a-zH()#LW;@ ]{1,60}", fullmatch=True), st.text("ab1-", max_size=5))
def test_what_is_accepted_fires(text: str, seed: str) -> None:
    refusal = schedule = None
    try:
        schedule = parse_schedule(text, seed=seed)
    except ScheduleError as exc:
        refusal = exc
    if schedule is not None:
        assert schedule.next_fire(NOW) is not None or schedule.last_ms is not None
        assert schedule.words()
    else:
        assert refusal is not None
        assert 0 <= refusal.position <= len(text)
